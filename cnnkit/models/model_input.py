"""What the layers of a model before its first weights do to the pixels, measured.

A model may contain its preprocessing: a `Rescaling`, a `Normalization`, arithmetic, the package's
own `SubtractMean`. Constant images show what it does, whatever the layers are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np

from cnnkit._untrusted.limits import MAX_PROBE_NUMBERS
from cnnkit.errors import AssumptionWarning, warn
from cnnkit.layers import SubtractMean
from cnnkit.models.graph import Graph, Node, input_output_tensors, read_nodes
from cnnkit.models.preprocessing import FILE, PRESETS, UNKNOWN, Preprocessing

COLORS = "RGB"
BYTES, MIDDLE_BYTE = (0.0, 255.0), 128.0
# Side of the probing images for a model that takes images of any size.
FREE_SIDE = 64
# Level of the probing images. Digits beyond the sixth are rounding of float32.
LEVEL, DIGITS = 100.0, 6
# Half precision distinguishes three digits.
TOLERANCE = 1e-2
# Bounds of the means and deviations of images in 0..1 and in -1..1.
LARGEST_UNIT_MEAN, LARGEST_UNIT_STD = 1.5, 1.0
SMALLEST_BYTE_STD = 8.0


def find_lead(
    calls: Iterable[tuple[Any, Sequence[Any], bool]], start: Any
) -> tuple[Any, tuple[Any, ...]]:
    """Find where the preprocessing inside a model ends.

    Args:
        calls: (value, values that it is computed from, whether weights are used), in the order of
            the graph.
        start: The input of the model.

    Returns:
        The value that all the first layers with weights take, `start` if they take several, and
        the values that these layers make.
    """
    lead = {start}
    taken: set[Any] = set()
    first = []
    for value, inputs, has_weights in calls:
        if not inputs or not lead.intersection(inputs):
            continue
        if not has_weights and lead.issuperset(inputs):
            lead.add(value)
        else:
            taken.update(lead.intersection(inputs))
            first.append(value)
    return (taken.pop() if len(taken) == 1 else start), tuple(first)


def measure_preprocessing(
    function: Callable[[Any], Any], shape: Sequence[int | None]
) -> Preprocessing | None:
    """Measure what a function does to the channels of images.

    Args:
        function: Maps images (n, h, w, c) to images with as many channels.
        shape: (h, w, c); None stands for a side of any length.

    Returns:
        The preprocessing, with one number for each of the c channels; None if the function is not a
        subtraction and a division by channel, or the images are too large for a measurement.
    """
    height, width, colors = (FREE_SIDE if side is None else side for side in shape)
    if height * width * colors > MAX_PROBE_NUMBERS:
        return None
    probes = np.zeros((colors + 2, height, width, colors), np.float32)
    for channel in range(colors):
        probes[channel + 1, ..., channel] = LEVEL
    probes[-1] = np.linspace(30, 200, colors)
    output = keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(probes))).astype(
        np.float64
    )
    if output.ndim == 2 and output.shape[1] in (colors, height * width * colors):
        # A flattened map, or its mean.
        sides = (1, 1) if output.shape[1] == colors else (height, width)
        output = output.reshape(len(probes), *sides, colors)
    if output.ndim != 4 or output.shape[-1] != colors:
        return None
    places = [(output.shape[1] // k, output.shape[2] // k) for k in (2, 3)]
    center, other = (output[:, row, column] for row, column in places)
    offset = center[0]
    gains = (center[1:-1] - offset) / LEVEL
    source = np.abs(gains).argmax(axis=0)
    gain = gains[source, range(colors)]
    only = np.zeros_like(gains)
    only[source, range(colors)] = gain
    expected = probes[-1, 0, 0] @ only + offset
    scale = TOLERANCE * max(1e-6, np.abs(center).max())
    if (
        not np.isfinite(output).all()
        or (gain <= 0).any()
        or np.abs(center[-1] - expected).max() > scale
        or np.abs(center - other).max() > scale
        or sorted(source) != list(range(colors))
    ):
        return None
    in_order = source.tolist() == list(range(colors))
    if not in_order and source.tolist() != list(range(colors))[::-1]:
        return None
    mean, std = np.empty(colors), np.empty(colors)
    mean[source], std[source] = -offset / gain, 1 / gain
    return Preprocessing(
        tuple(float(f"{value:.{DIGITS}g}") + 0.0 for value in mean),
        None if np.allclose(std, 1, 1e-5) else tuple(float(f"{v:.{DIGITS}g}") for v in std),
        "RGB" if in_order else "BGR",
        origin=FILE,
    )


def outside_of(inside: Preprocessing, reason: str) -> Preprocessing:
    """Return what has to be done to RGB images in 0..255 for a model that does `inside` to them.

    The mean and the deviation tell the range of the images that they belong to: a division by 255
    belongs to 0..255, a mean of 0.45 to 0..1.

    Args:
        inside: Result of `measure_preprocessing`.
        reason: The layers that do it.
    """
    mean = np.asarray(inside.mean, float)
    std = np.ones(1) if inside.std is None else np.asarray(inside.std, float)
    if np.abs(mean).max() > LARGEST_UNIT_MEAN or std.min() >= SMALLEST_BYTE_STD:
        return PRESETS["raw"].said_by_file(reason) if (mean >= 0).all() else _unknown(reason)
    if (mean < 0).any():
        return PRESETS["tf"].said_by_file(reason) if np.allclose(mean, -1) else _unknown(reason)
    if mean.any() or std.max() < LARGEST_UNIT_STD:
        return PRESETS["unit"].said_by_file(reason)
    return _unknown(reason)


def _unknown(reason: str) -> Preprocessing:
    return Preprocessing(origin=UNKNOWN, reason=f"{reason} does not tell the range of the images")


def expected_input(model: keras.Model | Graph) -> Preprocessing | None:
    """Return what a model expects of its images, as far as its own first layers tell.

    Returns:
        What has to be done to RGB images in 0..255: nothing (`raw`), a division (`unit`, `tf`), or
        something unknown; None if the model has no layers before its first weights.
    """
    model = model.model if isinstance(model, Graph) else model
    inputs, _ = input_output_tensors(model)
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[-1] is None:
        return None
    layers, inside = _measured_lead(model)
    if layers and isinstance(layers[0], SubtractMean):
        return PRESETS["raw"].said_by_file(f"layer {layers[0].name!r}")
    reason = name_layers([layer.name for layer in layers])
    if inside is None:
        return _unknown(reason)
    return None if inside.is_identity else outside_of(inside, reason)


def measured_preprocessing(model: keras.Model) -> Preprocessing | None:
    """Return what the first layers of a model of RGB images in 0..255 do to their pixels.

    Returns:
        The preprocessing; None if there is none, or it is no subtraction and division by channel.
    """
    inside = _measured_lead(model)[1] if model.input_shape[-1] == len(COLORS) else None
    return None if inside is None or inside.is_identity else inside


def _measured_lead(
    model: keras.Model,
) -> tuple[list[keras.Operation], Preprocessing | None]:
    layers, functions = _lead_functions(model)

    def apply(images: Any) -> Any:
        for function in functions:
            images = function(images, training=False)
        return images

    return layers, measure_preprocessing(apply, model.inputs[0].shape[1:])


def first_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the first layers with weights, which take the pixels after the preprocessing."""
    nodes = {node.output: node for node in read_nodes(model, expand=False)}
    calls = ((node.output, node.inputs, _has_weights(node)) for node in nodes.values())
    found: list[keras.layers.Layer] = []
    for value in find_lead(calls, 0)[1]:
        layer = nodes[value].layer
        found += first_layers(layer) if isinstance(layer, keras.Model) else [layer]
    return list(dict.fromkeys(found))


def input_range(model: keras.Model | Graph) -> tuple[float, float] | None:
    """Return the smallest and the largest pixel of the images that a model expects.

    Returns:
        (0, 255), (0, 1) or (-1, 1); None if the model's own layers do not tell.

    Example:
        >>> from cnnkit import vgg11
        >>> input_range(vgg11(input_shape=(32, 32, 3)))
        (0.0, 255.0)
    """
    found = expected_input(model)
    if found is None or found.is_assumed:
        return None
    mean = np.asarray(found.mean, float).mean()
    std = 1.0 if found.std is None else np.asarray(found.std, float).mean()
    return (float((0 - mean) / std), float((255 - mean) / std))


def pixel_range(model: keras.Model | Graph) -> tuple[float, float]:
    """Return `input_range`, or 0..255 with a warning if the model does not tell its range."""
    found = input_range(model)
    if found is None:
        warn(
            f"The layers of {model.name!r} do not tell the range of its images; taken as 0..255."
            " `input_range` says otherwise",
            AssumptionWarning,
            stacklevel=3,
        )
    return found or BYTES


def gray_level(model: keras.Model | Graph, images: np.ndarray) -> float:
    """Return a gray in the middle of the range of the images that a model expects.

    Args:
        model: The model.
        images: Images for it. Where the model does not tell its range, they do: 0..1, 0..255, or,
            with negative pixels, a range around 0.
    """
    found = input_range(model)
    if found is None:
        least, largest = float(np.min(images)), float(np.max(images))
        found = (-1.0, 1.0) if least < 0 else (0.0, 1.0) if largest <= 1 else BYTES
    # 128 for bytes, as the methods of the papers have it.
    return MIDDLE_BYTE if found == BYTES else sum(found) / 2


def name_layers(names: Sequence[str]) -> str:
    """Return `layer 'a'`, or `layers 'a', 'b'`."""
    return f"layer{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"


def _lead_functions(
    model: keras.Model,
) -> tuple[list[keras.Operation], list[keras.Model]]:
    """Return the layers of the preprocessing inside a model, and functions that apply them."""
    nodes = read_nodes(model, expand=False)
    by_value = {node.output: node for node in nodes}
    end, first = find_lead(((node.output, node.inputs, _has_weights(node)) for node in nodes), 0)
    layers = [node.layer for node in _ancestors(nodes, end)]
    functions: list[keras.Model] = []
    if end != 0:
        functions.append(keras.Model(model.inputs[0], by_value[end].tensors[0]))
    inner = by_value[first[0]].layer if len(first) == 1 else None
    if isinstance(inner, keras.Model) and getattr(inner, "outputs", None):
        inner_layers, inner_functions = _lead_functions(inner)
        layers, functions = layers + inner_layers, functions + inner_functions
    return [x for x in layers if not isinstance(x, keras.layers.InputLayer)], functions


def _ancestors(nodes: Sequence[Node], end: int) -> list[Node]:
    needed, kept = {end}, []
    for node in reversed(nodes):
        if node.output in needed:
            needed.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def _has_weights(node: Node) -> bool:
    layer = node.layer
    return not isinstance(layer, keras.layers.Normalization) and bool(
        getattr(layer, "weights", None)
    )
