"""Class activation maps: the maps of a layer, weighted by what a class makes of them."""

from __future__ import annotations

from collections.abc import Callable

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
from cnnkit.visualize.forward import forward_to


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
        model: As `cnnkit.visualize.saliency` takes it.
        images: As there.
        target: As there.
        layer: Layer whose maps are weighted; None is the last convolution.
        batch_size: Images at a time.

    Returns:
        One `Attribution` for every image. `map` puts the value of each place at the middle of what
        it sees and is linear between; where the receptive field is not known, places lie evenly.

    Raises:
        UsageError: As there, or if the layer does not exist or has no map.
        DataError: As there.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import gradcam
        >>> model = zfnet(input_shape=(64, 64, 3), classes=5, hidden_units=16)
        >>> image = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
        >>> [seen] = gradcam(model, image)
        >>> seen.layer, seen.grid.shape, seen.map.shape
        ('conv5', (3, 3), (64, 64))
    """
    asked = prepare_query(model, images, target, batch_size)
    at, cut = _cut_at_maps(asked, layer)
    cam = import_tf_keras_vis("gradcam").Gradcam(cut)

    def grids(part):
        return cam(target_score(asked.targets[part]), asked.images[part], **_AS_IT_IS)

    return _of_grids("gradcam", asked, at, grids, batch_size)


@renamed_argument("label", "target")
def gradcam_plus_plus(
    model: keras.Model,
    images: np.ndarray,
    target: int | str | None = None,
    layer: str | None = None,
    *,
    batch_size: int = 16,
) -> list[Attribution]:
    """Weights maps by their positive gradients, place by place (Chattopadhay et al. 2018).

    The coefficients of the places, equation 19, are scaled to the sum 1 in every map, as
    tf-keras-vis does. The paper differentiates the exponential of the logit, which overflows
    where that is large. It is a common factor of all weights: the grid is divided by it.

    Args:
        model: As `gradcam` takes it.
        images: As there.
        target: As there.
        layer: As there.
        batch_size: As there.

    Returns:
        One `Attribution` for every image, as `gradcam`.

    Raises:
        UsageError: As there.
        DataError: As there.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import gradcam_plus_plus
        >>> model = zfnet(input_shape=(64, 64, 3), classes=5, hidden_units=16)
        >>> image = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
        >>> gradcam_plus_plus(model, image, layer="conv4")[0].grid.shape
        (3, 3)
    """
    asked = prepare_query(model, images, target, batch_size)
    at, cut = _cut_at_maps(asked, layer)
    cam = import_tf_keras_vis("gradcam_plus_plus").GradcamPlusPlus(cut)

    def grids(part):
        score = target_score(asked.targets[part], asked.scores[part])
        return cam(score, asked.images[part], **_AS_IT_IS)

    return _of_grids("gradcam++", asked, at, grids, batch_size)


@renamed_argument("label", "target")
def scorecam(
    model: keras.Model,
    images: np.ndarray,
    target: int | str | None = None,
    layer: str | None = None,
    *,
    batch_size: int = 16,
) -> list[Attribution]:
    """Weights maps by the probability of a class where only they let the image through.

    After Wang et al. 2020: every map of the layer, enlarged and scaled to 0..1, multiplies the
    image; the probability of the class is the map's weight. No gradient is taken. As tf-keras-vis
    does it, the weights are the probabilities themselves; the paper takes off that of a baseline
    and makes a softmax of them over the maps.

    It takes as many passes as the layer has maps, and memory for as many images.

    Args:
        model: As `gradcam` takes it; its classes share one probability, by a softmax.
        images: As there; 0 is what stays of a pixel that is not let through.
        target: As there.
        layer: As there.
        batch_size: Masked images at a time.

    Returns:
        One `Attribution` for every image, as `gradcam`.

    Raises:
        UsageError: As there.
        DataError: As there.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import scorecam
        >>> model = zfnet(input_shape=(64, 64, 3), classes=5, hidden_units=16)
        >>> image = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
        >>> scorecam(model, image, layer="conv1")[0].grid.shape
        (30, 30)
    """
    asked = prepare_query(model, images, target, batch_size)
    if not asked.network.exclusive:
        raise UsageError(
            "The maps are weighted by the softmax of a network, which this one has not",
            expected="classes that share one probability",
            received=f"{asked.network.nodes[-1].layer.name} with a sigmoid",
        )
    at, cut = _cut_at_maps(asked, layer)
    cam = import_tf_keras_vis("scorecam").Scorecam(cut)

    def grids(part):
        # It takes the softmax of the logits by itself.
        score = target_score(asked.targets[part])
        return cam(score, asked.images[part], batch_size=batch_size, **_AS_IT_IS)

    # One image after the other: each is as many masked ones as there are maps.
    return _of_grids("scorecam", asked, at, grids, 1)


# What is enlarged and scaled afterwards is not asked for.
_AS_IT_IS = {
    "penultimate_layer": MAPS,
    "seek_penultimate_conv_layer": False,
    "expand_cam": False,
    "normalize_cam": False,
}


def _cut_at_maps(asked: AttributionQuery, layer: str | None) -> tuple[Node, keras.Model]:
    shape = asked.images.shape[1:]
    blank = tf.zeros((1, *shape))
    nodes = asked.network.nodes
    maps = {
        node: tuple(made.shape[1:])
        for node, made in zip(nodes, forward_to(nodes, blank, nodes), strict=True)
        if made.shape.rank == 4
    }
    convolutions = [
        node
        for node, made in maps.items()
        if isinstance(node.layer, keras.layers.Conv2D) and made[:2] != (1, 1)
    ]
    if layer is None and not convolutions:
        raise UsageError("The network has no convolution with a map", hint="Name a layer")
    at = convolutions[-1] if layer is None else asked.network.graph.node(layer)
    if at not in maps:
        raise UsageError(
            f"Layer {layer!r} has no map on the way to the classes",
            expected=f"for example {(convolutions or list(maps) or [nodes[0]])[-1].layer.name}",
        )
    return at, model_up_to_layer(asked.network, at, shape, maps[at], asked.classes)


def _of_grids(
    method: str,
    asked: AttributionQuery,
    at: Node,
    grids: Callable[[slice], np.ndarray],
    batch_size: int,
) -> list[Attribution]:
    results = []
    for part in iter_batches(len(asked.images), batch_size):
        results += list(np.asarray(grids(part), np.float32))
    if not results:
        return []
    rows, columns = _upsampling_matrices(asked, at, results[0].shape)
    for i, grid in enumerate(results):
        check_finite_maps(grid, i)
    return [
        Attribution(
            method=method,
            image=i,
            target=int(asked.targets[i]),
            score=float(asked.scores[i]),
            map=(rows @ grid @ columns.T).astype(np.float32),
            layer=at.layer.name,
            grid=grid,
        )
        for i, grid in enumerate(results)
    ]


def _upsampling_matrices(
    asked: AttributionQuery, at: Node, grid: tuple[int, int]
) -> list[np.ndarray]:
    """Returns two matrices (pixels, places): linear between the middles of what places see."""
    sides = asked.images.shape[1:3]
    try:
        seen = receptive_field(asked.network.graph, at.layer.name, sides)
        starts, steps, sizes = seen.offset, seen.stride, seen.size
    except UsageError:
        # Some layer on the way is not known to look at windows.
        steps = tuple(side / count for side, count in zip(sides, grid, strict=True))
        starts, sizes = (0, 0), steps
    matrices = []
    for start, step, size, side, count in zip(starts, steps, sizes, sides, grid, strict=True):
        middles = start + (size - 1) / 2 + step * np.arange(count)
        units = np.eye(count)
        matrices.append(np.stack([np.interp(np.arange(side), middles, u) for u in units], axis=1))
    return matrices
