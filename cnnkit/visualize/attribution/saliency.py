"""How a class's logit changes with the pixels: the gradient, of one image or of noisy copies."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from cnnkit._deprecation import renamed_argument
from cnnkit.errors import UsageError
from cnnkit.visualize.attribution.base import (
    Attribution,
    AttributionQuery,
    check_finite_maps,
    iter_batches,
    prepare_query,
    target_score,
)
from cnnkit.visualize.attribution.tf_keras_vis import import_tf_keras_vis, model_up_to_logits


@renamed_argument("label", "target")
def saliency(
    model: keras.Model,
    images: np.ndarray,
    target: int | str | None = None,
    *,
    batch_size: int = 16,
) -> list[Attribution]:
    """Differentiates a class's logit by the pixels (Simonyan et al. 2013, section 3).

    Args:
        model: A network over classes, functional or sequential, models inside of it included.
        images: (n, h, w, 3) or (h, w, 3), as the model takes them; RGB in 0..255 for ours.
        target: The class, its index or name; None is the most probable one of each image.
        batch_size: Images at a time.

    Returns:
        One `Attribution` for every image.

    Raises:
        UsageError: If there is no such class, or the model or the images do not fit.
        DataError: If pixels, weights or answers are not finite.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import saliency
        >>> model = zfnet(input_shape=(64, 64, 3), classes=5, hidden_units=16)
        >>> image = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
        >>> [seen] = saliency(model, image, 2)
        >>> seen.map.shape, seen.gradient.shape
        ((64, 64), (64, 64, 3))
    """
    asked = prepare_query(model, images, target, batch_size)
    gradient = _gradients(asked)
    results = []
    for part in iter_batches(len(asked.images), batch_size):
        results += list(gradient(asked.images[part], asked.targets[part]))
    return [_of_gradient("saliency", asked, i, one) for i, one in enumerate(results)]


@renamed_argument("label", "target")
def smoothgrad(
    model: keras.Model,
    images: np.ndarray,
    target: int | str | None = None,
    *,
    samples: int = 50,
    noise: float = 0.15,
    seed: int = 0,
    batch_size: int = 16,
) -> list[Attribution]:
    """Averages the gradient over noisy copies of an image (Smilkov et al. 2017, section 2.1).

    The paper found noise of 10 % to 20 % and about 50 copies to be enough.

    Args:
        model: As `saliency` takes it.
        images: As there.
        target: As there; of the image without noise.
        samples: Copies of each image.
        noise: Standard deviation of the noise, normal, as a part of the image's range of values.
        seed: Of the noise. Copy k of image i is always the same.
        batch_size: Copies at a time.

    Returns:
        One `Attribution` for every image.

    Raises:
        UsageError: As there, or if there is no copy or the noise is below zero.
        DataError: As there.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import smoothgrad
        >>> model = zfnet(input_shape=(64, 64, 3), classes=5, hidden_units=16)
        >>> image = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
        >>> smoothgrad(model, image, samples=3, seed=1)[0].gradient.shape
        (64, 64, 3)
    """
    if samples < 1:
        raise UsageError("There is nothing to average", expected="1 copy or more", received=samples)
    if not 0 <= noise < np.inf:
        raise UsageError("Noise has a deviation", expected="0 or more", received=noise)
    asked = prepare_query(model, images, target, batch_size)
    gradient = _gradients(asked)
    results = []
    for i, (image, target) in enumerate(zip(asked.images, asked.targets, strict=True)):
        random = np.random.default_rng((seed, i))
        total = np.zeros(image.shape)
        for part in iter_batches(samples, batch_size):
            copies = len(range(samples)[part])
            noisy = image + random.normal(0, noise * np.ptp(image), (copies, *image.shape))
            gradients = gradient(noisy.astype(np.float32), np.repeat(target, copies))
            total += gradients.sum(axis=0, dtype=np.float64)
        mean = (total / samples).astype(np.float32)
        results.append(_of_gradient("smoothgrad", asked, i, mean))
    return results


def _gradients(asked: AttributionQuery) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Returns what makes of images and their classes the gradients, (n, h, w, c)."""
    cut = model_up_to_logits(asked.network, asked.images.shape[1:], asked.classes)
    method = import_tf_keras_vis("saliency").Saliency(cut)

    def gradients(images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.asarray(
            method(
                target_score(targets), images,
                keepdims=True, gradient_modifier=None, normalize_map=False,
            )
        )  # fmt: skip

    return gradients


def _of_gradient(method: str, asked: AttributionQuery, i: int, gradient: np.ndarray) -> Attribution:
    check_finite_maps(gradient, i)
    return Attribution(
        method=method,
        image=i,
        target=int(asked.targets[i]),
        score=float(asked.scores[i]),
        map=np.abs(gradient).max(axis=-1),
        gradient=gradient,
    )
