"""Saliency maps: the gradient of a class's logit by the pixels, plain or averaged."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real

import keras
import numpy as np

from cnnkit._deprecation import renamed_argument
from cnnkit.errors import UsageError
from cnnkit.visualize.argument_checks import check_whole_number
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
        model: A classifier, functional or sequential. Models used as layers are allowed.
        images: (n, h, w, 3) or (h, w, 3), as the model takes them; RGB in 0..255 for cnnkit models.
        target: Index or name of the class; None takes the most probable class of each image.
        batch_size: Images at a time.

    Returns:
        One `Attribution` for every image.

    Raises:
        UsageError: If there is no such class, or the model or the images do not fit.
        DataError: If pixels, weights or outputs are not finite.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import saliency
        >>> model = zfnet(input_shape=(64, 64, 3), classes=5, hidden_units=16)
        >>> image = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
        >>> [result] = saliency(model, image, 2)
        >>> result.map.shape, result.gradient.shape
        ((64, 64), (64, 64, 3))
    """
    query = prepare_query(model, images, target, batch_size)
    gradient = _gradient_function(query)
    gradients: list[np.ndarray] = []
    for part in iter_batches(len(query.images), batch_size):
        gradients += list(gradient(query.images[part], query.targets[part]))
    return [_attribution("saliency", query, i, one) for i, one in enumerate(gradients)]


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
        model: A classifier, as `saliency` takes it.
        images: (n, h, w, 3) or (h, w, 3), as the model takes them.
        target: Index or name of the class; None takes the most probable class of each image without
            noise.
        samples: Noisy copies of each image.
        noise: Standard deviation of the normal noise, as a fraction of the image's range of values.
        seed: Seed of the noise. Copy k of image i depends on the seed, i and k only.
        batch_size: Copies at a time.

    Returns:
        One `Attribution` for every image.

    Raises:
        UsageError: If there is no such class, the model or the images do not fit, or `samples` or
            `noise` is out of its range.
        DataError: If pixels, weights or outputs are not finite.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import smoothgrad
        >>> model = zfnet(input_shape=(64, 64, 3), classes=5, hidden_units=16)
        >>> image = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
        >>> smoothgrad(model, image, samples=3, seed=1)[0].gradient.shape
        (64, 64, 3)
    """
    check_whole_number("samples", samples)
    if not isinstance(noise, Real) or not 0 <= noise < np.inf:
        raise UsageError("`noise` must be 0 or more and finite", received=noise)
    query = prepare_query(model, images, target, batch_size)
    gradient = _gradient_function(query)
    results = []
    for i, (image, index) in enumerate(zip(query.images, query.targets, strict=True)):
        random = np.random.default_rng((seed, i))
        total = np.zeros(image.shape)
        for part in iter_batches(samples, batch_size):
            copies = len(range(samples)[part])
            noisy = image + random.normal(0, noise * np.ptp(image), (copies, *image.shape))
            gradients = gradient(noisy.astype(np.float32), np.repeat(index, copies))
            total += gradients.sum(axis=0, dtype=np.float64)
        mean = (total / samples).astype(np.float32)
        results.append(_attribution("smoothgrad", query, i, mean))
    return results


def _gradient_function(query: AttributionQuery) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Returns a function of images and target classes that computes gradients, (n, h, w, c)."""
    model = model_up_to_logits(query.classifier, query.images.shape[1:], query.classes)
    method = import_tf_keras_vis("saliency").Saliency(model)

    def gradients(images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.asarray(
            method(
                target_score(targets), images,
                keepdims=True, gradient_modifier=None, normalize_map=False,
            )
        )  # fmt: skip

    return gradients


def _attribution(method: str, query: AttributionQuery, i: int, gradient: np.ndarray) -> Attribution:
    check_finite_maps(gradient, i)
    return Attribution(
        method=method,
        image=i,
        target=int(query.targets[i]),
        score=float(query.scores[i]),
        map=np.abs(gradient).max(axis=-1),
        gradient=gradient,
    )
