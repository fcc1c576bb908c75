"""Read a model as a chain of layers, and build a model from one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import keras
import numpy as np

from cnnkit.errors import UsageError
from cnnkit.models.blocks import LARGEST_SEARCHED_SIDE
from cnnkit.models.graph import input_layer, input_output_tensors, read_nodes


@dataclass(frozen=True)
class SequentialChain:
    """A model whose layers each feed the next.

    Attributes:
        name: Name of the model.
        source: The layer of its input.
        layers: The other layers, from the input to the output.
        shapes: Shapes of the inputs of `layers`.
        trainable: Whether the model as a whole is trainable.
    """

    name: str
    source: keras.layers.InputLayer
    layers: tuple[keras.layers.Layer, ...]
    shapes: tuple[tuple[int | None, ...], ...]
    trainable: bool

    def index(self, name: str) -> int:
        """Return the index of a layer by its name."""
        return [layer.name for layer in self.layers].index(name)


@dataclass(frozen=True)
class ChainLayer:
    """A layer of a new model and its weights.

    Attributes:
        layer: The layer.
        weights: Its weights; None leaves them to the initializers of the layer.
    """

    layer: keras.layers.Layer
    weights: list[np.ndarray] | None


def as_sequential(model: keras.Model) -> SequentialChain:
    """Return a model as a chain of layers.

    Raises:
        UsageError: If the model is not built, or its layers form no chain.
    """
    inputs, outputs = input_output_tensors(model)
    if len(inputs) != 1 or len(outputs) != 1:
        raise _not_sequential(model, f"{len(inputs)} inputs and {len(outputs)} outputs")
    nodes = read_nodes(model, expand=False)
    for node in nodes:
        layer = node.layer
        if not isinstance(layer, keras.layers.Layer) or isinstance(layer, keras.Model):
            raise _not_sequential(model, f"{layer.name!r}, a {type(layer).__name__}")
        if sum(layer is other.layer for other in nodes) > 1:
            raise _not_sequential(model, f"layer {layer.name!r} twice")
        if len(node.inputs) != 1:
            raise _not_sequential(model, f"{len(node.inputs)} tensors into {layer.name!r}")
        if len(node.tensors) != 1:
            raise _not_sequential(model, f"{len(node.tensors)} tensors out of {layer.name!r}")
        if not node.is_pure or node.demands_training:
            raise _not_sequential(model, f"layer {layer.name!r} called with arguments of its own")
    # Each node takes one value and the model has one output, so every node feeds the next one.
    taken = [inputs[0], *(node.tensors[0] for node in nodes)][: len(nodes)]
    return SequentialChain(
        model.name,
        input_layer(model),
        tuple(node.layer for node in nodes),
        tuple(tuple(tensor.shape) for tensor in taken),
        model.trainable,
    )


def _not_sequential(model: keras.Model, received: str) -> UsageError:
    return UsageError(
        f"Model {model.name!r} must be a plain chain of layers",
        expected="one input, one output, and layers that each feed the next",
        received=received,
    )


def rebuild_layer(
    layer: keras.layers.Layer, kind: type[keras.layers.Layer] | None = None, **changes: Any
) -> keras.layers.Layer:
    """Return a new layer with the configuration of another one.

    Args:
        layer: The layer.
        kind: Class of the new layer; None is that of `layer`.
        **changes: Configuration values to change.

    Raises:
        UsageError: If the layer cannot be built from its configuration.
    """
    try:
        return (kind or type(layer)).from_config({**layer.get_config(), **changes})
    except (NotImplementedError, TypeError, ValueError) as error:
        raise UsageError(
            f"Layer {layer.name!r} cannot be rebuilt from its configuration",
            expected="get_config and from_config that belong together",
            received=str(error).split("\n")[0],
        ) from error


def copy_layers(layers: Iterable[keras.layers.Layer]) -> list[ChainLayer]:
    """Return copies of `layers` with their weights."""
    return [ChainLayer(rebuild_layer(layer), layer.get_weights()) for layer in layers]


def build_model(
    chain: SequentialChain, parts: Sequence[ChainLayer], sides: Sequence[int | None] | None = None
) -> keras.Model:
    """Return a new model of `parts` on the input of `chain`.

    Copied layers of a model that is frozen as a whole are frozen. Reinitialized layers are
    trainable.

    Args:
        chain: Gives the name, the input and whether the model is frozen.
        parts: The layers, first to last.
        sides: New height and width of the image; None keeps them.

    Raises:
        UsageError: If weights do not fit a layer.
    """
    batch, *shape = chain.source.batch_shape
    if sides is not None:
        shape = [*sides, shape[-1]]
    inputs = keras.Input(shape, batch_size=batch, dtype=chain.source.dtype, name=chain.source.name)
    x = inputs
    for part in parts:
        x = part.layer(x)
        if part.weights is None:
            part.layer.trainable = True
            continue
        wanted, given = weight_shapes(part.layer), [tuple(w.shape) for w in part.weights]
        if wanted != given:
            raise UsageError(
                f"The weights of layer {part.layer.name!r} do not fit the new network",
                expected=wanted,
                received=given,
            )
        part.layer.set_weights(part.weights)
        if not chain.trainable:
            part.layer.trainable = False
    return keras.Model(inputs, x, name=chain.name)


def weight_shapes(layer: keras.layers.Layer) -> list[tuple[int, ...]]:
    """Return the shapes of the weights of `layer`."""
    return [tuple(weight.shape) for weight in layer.weights]


def layers_with_weights(layers: Iterable[keras.layers.Layer]) -> list[keras.layers.Layer]:
    """Return the layers that have weights."""
    return [layer for layer in layers if layer.weights]


def check_image_size(size: int | Sequence[int]) -> tuple[int, int]:
    """Return `size` as (height, width).

    Raises:
        UsageError: If `size` is neither one nor two whole numbers of at least 1.
    """
    sides = (size, size) if isinstance(size, Integral) else size
    if not (
        isinstance(sides, Sequence)
        and len(sides) == 2
        and all(is_positive_int(side) for side in sides)
    ):
        raise UsageError(
            "`size` must be a side, or a height and a width",
            expected="one whole number of at least 1, or two",
            received=repr(size),
        )
    return int(sides[0]), int(sides[1])


def is_positive_int(value: object) -> bool:
    """Return True for a whole number of at least 1, of Python or NumPy."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def check_image_input(chain: SequentialChain) -> None:
    """Check that `chain` takes images (n, h, w, c) and keeps the channels last.

    Raises:
        UsageError: If not. The error names a layer with the channels first.
    """
    if len(chain.source.batch_shape) != 4:
        raise UsageError(
            f"Model {chain.name!r} takes no images",
            expected="an input (n, h, w, c)",
            received=chain.source.batch_shape,
        )
    for layer in chain.layers:
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            raise UsageError(
                f"Layer {layer.name!r} takes the channels first",
                expected="channels_last",
                received=layer.data_format,
            )


def spatial_maps(chain: SequentialChain, sides: tuple[int, int]) -> list[tuple[int, int]]:
    """Return (height, width) of the input of each layer, up to the first without a map.

    Args:
        chain: The network.
        sides: (height, width) of the image.

    Raises:
        UsageError: If a map would be empty. The error gives the least square size.
    """
    found = _maps(chain, sides)
    if found is None:
        least = next(
            (side for side in range(1, LARGEST_SEARCHED_SIDE) if _maps(chain, (side, side))), None
        )
        raise UsageError(
            f"The image is too small for {chain.name!r}: a map would be empty",
            expected=None if least is None else f"height and width of at least {least}",
            received=f"{sides[0]} x {sides[1]}",
        )
    return found


def _maps(chain: SequentialChain, sides: tuple[int, int]) -> list[tuple[int, int]] | None:
    shape: tuple[Any, ...] = (None, *sides, chain.source.batch_shape[-1])
    found: list[tuple[int, int]] = []
    for layer in chain.layers:
        if len(shape) != 4:
            return found
        height, width = shape[1:3]
        if min(height, width) < 1:
            return None
        found.append((height, width))
        if isinstance(layer, keras.layers.Flatten):
            return found
        try:
            shape = tuple(layer.compute_output_shape(shape))
        except ValueError:
            # Keras raises it if a window does not fit into the map.
            return None
    return None if len(shape) == 4 and min(shape[1:3]) < 1 else found


@dataclass(frozen=True)
class SurgeryResult:
    """Result of a surgery operation.

    Layers without weights are in neither list.

    Attributes:
        model: The network.
        copied: Names of the layers with the weights of the network before, in order.
        reinitialized: Names of the layers with new weights from their initializers; under
            `copy_weights`, the layers that it left unchanged.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.models.surgery import replace_head
        >>> replace_head(alexnet(input_shape=(64, 64, 3), classes=3), 5).reinitialized
        ('fc8',)
    """

    model: keras.Model
    copied: tuple[str, ...]
    reinitialized: tuple[str, ...]
