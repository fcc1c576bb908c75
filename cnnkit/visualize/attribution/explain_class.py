"""One call for every method that explains the score of a class by the pixels of an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cnnkit.errors import UsageError, unknown_name
from cnnkit.layers import backward_rule
from cnnkit.visualize.attribution.base import (
    Attribution,
    AttributionQuery,
    check_finite_maps,
    iter_batches,
    prepare_query,
)
from cnnkit.visualize.attribution.cam import gradcam, gradcam_plus_plus, scorecam
from cnnkit.visualize.attribution.saliency import saliency, smoothgrad
from cnnkit.visualize.attribution.tf_keras_vis import logits_after
from cnnkit.visualize.occlusion.occlusion import occlusion
from cnnkit.visualize.rule_support import check_supports_rule

CAMS: dict[str, Callable[..., list[Attribution]]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "scorecam": scorecam,
}
OCCLUSION = "occlusion"
BY_RULE = ("deconvnet", "guided", "gradient")
# Names of the methods of `explain_class`.
EXPLANATION_METHODS = (*BY_RULE, "saliency", "smoothgrad", *CAMS, OCCLUSION)


def explain_class(
    model: keras.Model,
    images: np.ndarray,
    target: int | str | Sequence[int | str] | None = None,
    method: str = "gradcam",
    *,
    layer: str | None = None,
    samples: int = 50,
    seed: int = 0,
    batch_size: int = 16,
) -> list[Attribution]:
    """Explains the score of a class by the pixels of images, by a method of choice.

    `method` is one of

    - `"deconvnet"` (Zeiler & Fergus 2013, section 2.1), `"guided"` (Springenberg et al. 2015) and
      `"gradient"`: the logit of the class, projected to the pixels by that backward rule;
    - `"saliency"` and `"smoothgrad"`: the functions of that name;
    - `"gradcam"`, `"gradcam++"` and `"scorecam"`: `gradcam`, `gradcam_plus_plus` and `scorecam`;
    - `"occlusion"` (Zeiler & Fergus 2013, section 4.2): how far the logit falls, on average, while
      a gray square covers the pixel. The square is a seventh of the shorter side, and moves by a
      quarter of itself. Pixels that lower the logit have the value 0.

    Args:
        model: A classifier, as `saliency` takes it.
        images: (n, h, w, 3) or (h, w, 3), as the model takes them; RGB in 0..255 for cnnkit models.
        target: Index or name of the class, or a sequence with one for each image; None takes the
            most probable class of each image.
        method: Name of the method.
        layer: Layer of class activation maps; None takes the last maps, as `gradcam` does.
        samples: Noisy copies of each image for `"smoothgrad"`.
        seed: Seed of their noise.
        batch_size: Images, or places of the square, at a time.

    Returns:
        One `Attribution` for every image. That of a backward rule holds the projection, (h, w, 3)
        and signed, as its `gradient`.

    Raises:
        UsageError: If there is no such method, class or layer, the model or the images do not fit,
            or a layer does not support the rule.
        DataError: If pixels, weights or outputs are not finite.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import explain_class
        >>> model = zfnet(input_shape=(64, 64, 3), classes=5, hidden_units=16)
        >>> image = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
        >>> [result] = explain_class(model, image, 2, "deconvnet")
        >>> result.target, result.map.shape, result.gradient.shape
        (2, (64, 64), (64, 64, 3))
    """
    if method not in EXPLANATION_METHODS:
        raise unknown_name("method", method, EXPLANATION_METHODS)
    if target is not None and not isinstance(target, int | str | np.integer):
        if np.ndim(images) != 4 or len(target) != len(images):
            raise UsageError(
                "`target` must be one class, or one for each of several images",
                expected=f"{len(images)} classes",
                received=len(target),
            )
        options: dict[str, Any] = {
            "layer": layer,
            "samples": samples,
            "seed": seed,
            "batch_size": batch_size,
        }
        found = [
            explain_class(model, image, one, method, **options)[0]
            for image, one in zip(images, target, strict=True)
        ]
        return [replace(one, image=i) for i, one in enumerate(found)]
    if method in CAMS:
        return CAMS[method](model, images, target, layer, batch_size=batch_size)
    if method == "saliency":
        return saliency(model, images, target, batch_size=batch_size)
    if method == "smoothgrad":
        return smoothgrad(model, images, target, samples=samples, seed=seed, batch_size=batch_size)
    query = prepare_query(model, images, target, batch_size)
    if method == OCCLUSION:
        return [_occlude(query, i, batch_size) for i in range(len(query.images))]
    return _project_classes(query, method, batch_size)


def _project_classes(query: AttributionQuery, rule: str, batch_size: int) -> list[Attribution]:
    """Projects the logits of the target classes to the pixels."""
    check_supports_rule(query.classifier.nodes, rule, logits=True)
    results = []
    for part in iter_batches(len(query.images), batch_size):
        batch = tf.constant(query.images[part])
        with backward_rule(rule), tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(batch)
            logits = logits_after(query.classifier, {0: batch})
            # Images do not interact: the gradient of the sum holds every image's own.
            scores = tf.gather(logits, query.targets[part], axis=1, batch_dims=1)
        for i, pixels in enumerate(tape.gradient(scores, batch).numpy(), start=part.start):
            check_finite_maps(pixels, i)
            results.append(_attribution(query, i, rule, np.abs(pixels).max(axis=-1), pixels))
    return results


def _occlude(query: AttributionQuery, i: int, batch_size: int) -> Attribution:
    """Covers one image place by place, up to its borders."""
    image = query.images[i]
    maps = occlusion(
        query.model,
        image,
        batch_size=batch_size,
        target=int(query.targets[i]),
        edge="clip",
    )
    drop = np.maximum(maps.score_drop(), 0).astype(np.float32)
    return _attribution(query, i, OCCLUSION, drop)


def _attribution(
    query: AttributionQuery,
    i: int,
    method: str,
    values: np.ndarray,
    pixels: np.ndarray | None = None,
) -> Attribution:
    return Attribution(
        method=method,
        image=i,
        target=int(query.targets[i]),
        score=float(query.scores[i]),
        map=values,
        gradient=pixels,
    )
