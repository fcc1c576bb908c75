"""Class activation maps: the feature maps of a layer, weighted by their effect on a class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cnnkit._deprecation import renamed_argument
from cnnkit.errors import UsageError
from cnnkit.models.graph import Node
from cnnkit.models.receptive_field import receptive_field
from cnnkit.visualize.attribution.base import (
    Attribution,
    AttributionQuery,
    check_finite_maps,
    iter_batches,
    prepare_query,
    target_score,
)
from cnnkit.visualize.attribution.tf_keras_vis import MAPS, import_tf_keras_vis, model_up_to_layer
from cnnkit.visualize.classifier import last_maps
from cnnkit.visualize.forward import forward_to

# Module and class of tf-keras-vis for each method.
_CLASSES = {
    "gradcam": ("gradcam", "Gradcam"),
    "gradcam++": ("gradcam_plus_plus", "GradcamPlusPlus"),
    "scorecam": ("scorecam", "Scorecam"),
}

# The maps as they are: enlarging and scaling are done here.
_RAW_MAPS = {
    "penultimate_layer": MAPS,
    "seek_penultimate_conv_layer": False,
    "expand_cam": False,
    "normalize_cam": False,
}


@renamed_argument("label", "target")
def gradcam(
    model: keras.Model,
    images: np.ndarray,
    target: int | str | None = None,
    layer: str | None = None,
    *,
    batch_size: int = 16,
) -> list[Attribution]:
    """Weights a layer's maps by the mean gradient of a class's logit (Selvaraju et al. 2017).

    The grid is the positive part of the weighted sum, equations 1 and 2.

    Args:
        model: A classifier, as `cnnkit.visualize.saliency` takes it.
        images: (n, h, w, 3) or (h, w, 3), as the model takes them; RGB in 0..255 for cnnkit models.
        target: Index or name of the class; None takes the most probable class of each image.
        layer: Name of the layer whose maps are weighted; None takes the last ones on the way to the
            classes, after their normalization and activation and before the final pooling.
        batch_size: Images at a time.

    Returns:
        One `Attribution` for every image. `map` has each position's value at the center of its
        receptive field and is bicubic in between (Keys 1981), without the negative values that this
        may give. If the receptive field is not known, positions are spaced evenly.

    Raises:
        UsageError: If there is no such class, the model or the images do not fit, or the layer does
            not exist or has no map.
        DataError: If pixels, weights or outputs are not finite.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import gradcam
        >>> model = zfnet(input_shape=(64, 64, 3), classes=5, hidden_units=16)
        >>> image = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
        >>> [result] = gradcam(model, image)
        >>> result.layer, result.grid.shape, result.map.shape
        ('conv5', (3, 3), (64, 64))
    """
    query = prepare_query(model, images, target, batch_size)
    return _class_activation_maps("gradcam", query, layer, batch_size)


@renamed_argument("label", "target")
def gradcam_plus_plus(
    model: keras.Model,
    images: np.ndarray,
    target: int | str | None = None,
    layer: str | None = None,
    *,
    batch_size: int = 16,
) -> list[Attribution]:
    """Weights maps by their positive gradients, position by position (Chattopadhay et al. 2018).

    The coefficients of the positions, equation 19, are scaled to the sum 1 in every map, as
    tf-keras-vis does. The paper differentiates the exponential of the logit, which overflows
    where that is large. It is a common factor of all weights: the grid is divided by it.

    Args:
        model: A classifier, as `cnnkit.visualize.saliency` takes it.
        images: (n, h, w, 3) or (h, w, 3), as the model takes them; RGB in 0..255 for cnnkit models.
        target: Index or name of the class; None takes the most probable class of each image.
        layer: Name of the layer whose maps are weighted; None takes the last ones on the way to the
            classes, after their normalization and activation and before the final pooling.
        batch_size: Images at a time.

    Returns:
        One `Attribution` for every image, as `gradcam` returns it.

    Raises:
        UsageError: If there is no such class, the model or the images do not fit, or the layer does
            not exist or has no map.
        DataError: If pixels, weights or outputs are not finite.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import gradcam_plus_plus
        >>> model = zfnet(input_shape=(64, 64, 3), classes=5, hidden_units=16)
        >>> image = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
        >>> gradcam_plus_plus(model, image, layer="conv4")[0].grid.shape
        (3, 3)
    """
    query = prepare_query(model, images, target, batch_size)
    return _class_activation_maps("gradcam++", query, layer, batch_size, offsets=query.scores)


@renamed_argument("label", "target")
def scorecam(
    model: keras.Model,
    images: np.ndarray,
    target: int | str | None = None,
    layer: str | None = None,
    *,
    batch_size: int = 16,
) -> list[Attribution]:
    """Weights maps by a class's probability for the image masked with each map.

    After Wang et al. 2020: every map of the layer, enlarged and scaled to 0..1, multiplies the
    image; the probability of the class is the map's weight. No gradient is taken. As in
    tf-keras-vis, the weights are the probabilities themselves; the paper subtracts that of a
    baseline and takes a softmax over the maps.

    It takes as many passes as the layer has maps, and memory for as many images.

    Args:
        model: A classifier, as `cnnkit.visualize.saliency` takes it. In a network that ends in
            sigmoids the probability is that of the class alone.
        images: (n, h, w, 3) or (h, w, 3), as the model takes them; RGB in 0..255 for cnnkit models.
            Masked pixels become 0.
        target: Index or name of the class; None takes the most probable class of each image.
        layer: Name of the layer whose maps are weighted; None takes the last ones on the way to the
            classes, after their normalization and activation and before the final pooling.
        batch_size: Masked images at a time.

    Returns:
        One `Attribution` for every image, as `gradcam` returns it.

    Raises:
        UsageError: If there is no such class, the model or the images do not fit, or the layer does
            not exist or has no map.
        DataError: If pixels, weights or outputs are not finite.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import scorecam
        >>> model = zfnet(input_shape=(64, 64, 3), classes=5, hidden_units=16)
        >>> image = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
        >>> scorecam(model, image, layer="conv1")[0].grid.shape
        (30, 30)
    """
    query = prepare_query(model, images, target, batch_size)
    # One image at a time: each is as many masked images as there are maps. tf-keras-vis takes the
    # softmax of the logits itself.
    return _class_activation_maps("scorecam", query, layer, 1, batch_size=batch_size)


def _class_activation_maps(
    method: str,
    query: AttributionQuery,
    layer: str | None,
    images_at_a_time: int,
    *,
    offsets: np.ndarray | None = None,
    **options: Any,
) -> list[Attribution]:
    """Computes the grids of a method of tf-keras-vis, and enlarges them to the pixels.

    Args:
        method: Key of `_CLASSES`.
        query: The classifier, images and classes.
        layer: Name of the layer; None takes the last maps before the classes.
        images_at_a_time: Images in one call of the method.
        offsets: (n,), subtracted from the logits.
        options: Further arguments of the method.
    """
    node, shape = _layer_with_maps(query, layer)
    module, class_name = _CLASSES[method]
    method_class = getattr(import_tf_keras_vis(module), class_name)
    shapes = query.images.shape[1:], shape
    # Score-CAM takes the softmax of the logits z, and that of z and 0 is the sigmoid of z.
    by_sigmoid = method == "scorecam" and not query.classifier.exclusive
    cam = method_class(model_up_to_layer(query.classifier, node, *shapes, query.classes))
    grids: list[np.ndarray] = []
    for part in iter_batches(len(query.images), images_at_a_time):
        targets: Sequence[int] | np.ndarray = query.targets[part]
        if by_sigmoid:
            select = partial(_logit_and_zero, target=int(targets[0]))
            cam = method_class(model_up_to_layer(query.classifier, node, *shapes, 2, select))
            targets = [0]
        score = target_score(targets, None if offsets is None else offsets[part])
        computed = cam(score, query.images[part], **options, **_RAW_MAPS)
        grids += list(np.asarray(computed, np.float32))
    if not grids:
        return []
    rows, columns = _upsampling_matrices(query, node, grids[0].shape)
    for i, grid in enumerate(grids):
        check_finite_maps(grid, i)
    return [
        Attribution(
            method=method,
            image=i,
            target=int(query.targets[i]),
            score=float(query.scores[i]),
            # Between high values and zeros, a cubic goes below zero.
            map=np.maximum(rows @ grid @ columns.T, 0).astype(np.float32),
            layer=node.layer.name,
            grid=grid,
        )
        for i, grid in enumerate(grids)
    ]


def _logit_and_zero(logits: tf.Tensor, target: int) -> tf.Tensor:
    """Returns the logit of one class, and zero: (n, 2)."""
    logit = logits[:, target]
    return tf.stack([logit, tf.zeros_like(logit)], axis=1)


def maps_layer(query: AttributionQuery, layer: str | None) -> Node:
    """Returns the node of the layer whose maps are weighted; None takes the last maps.

    Raises:
        UsageError: If there is no such layer, it has no maps, or it must be given.
    """
    return _layer_with_maps(query, layer)[0]


def _layer_with_maps(query: AttributionQuery, layer: str | None) -> tuple[Node, tuple[int, ...]]:
    """Returns the node of a layer, or of the last maps, and the shape of its maps."""
    nodes = query.classifier.nodes
    blank = tf.zeros((1, *query.images.shape[1:]))
    shapes = {
        node: tuple(output.shape[1:])
        for node, output in zip(nodes, forward_to(nodes, blank, nodes), strict=True)
        if len(node.tensors) == 1 and output.shape.rank == 4
    }
    if layer is None or not shapes:
        chosen = last_maps(query.classifier, shapes, pooled=False)
    else:
        chosen = query.classifier.graph.node(layer)
    if chosen not in shapes:
        raise UsageError(
            f"Layer {layer!r} has no feature map on the way to the classes",
            expected=f"for example {list(shapes)[-1].layer.name}",
        )
    return chosen, shapes[chosen]


def _upsampling_matrices(
    query: AttributionQuery, node: Node, grid: Sequence[int]
) -> list[np.ndarray]:
    """Returns two matrices, (h, h') and (w, w'), that interpolate a grid to the pixels.

    They are cubic between the centers of the receptive fields. A linear interpolation would have
    ridges along rows and columns, which look like stars.
    """
    sides = query.images.shape[1:3]
    try:
        field = receptive_field(query.classifier.graph, node.layer.name, sides)
        starts, steps, sizes = field.offset, field.stride, field.size
    except UsageError:
        # Some layer below does not have known windows.
        steps = tuple(side / count for side, count in zip(sides, grid, strict=True))
        starts, sizes = (0, 0), steps
    matrices = []
    for start, step, size, side, count in zip(starts, steps, sizes, sides, grid, strict=True):
        centers = start + (size - 1) / 2 + step * np.arange(count)
        matrices.append(_cubic_matrix((np.arange(side) - centers[0]) / step, count))
    return matrices


def _cubic_matrix(places: np.ndarray, count: int) -> np.ndarray:
    """Returns (n, count), the weights of `count` values at `places`, which are indices.

    It is the cubic convolution of Keys (1981) with a = -1/2. Outside of the first and the last
    index the value is that at the edge, and beyond the edges values are repeated.
    """
    places = np.clip(places, 0, count - 1)
    before = np.floor(places).astype(int)
    matrix = np.zeros((len(places), count))
    for offset in range(-1, 3):
        distance = np.abs(places - before - offset)
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((2.5 - 0.5 * distance) * distance - 4) * distance + 2
        weights = np.where(distance < 1, near, np.where(distance < 2, far, 0))
        column = np.clip(before + offset, 0, count - 1)
        np.add.at(matrix, (np.arange(len(places)), column), weights)
    return matrix
