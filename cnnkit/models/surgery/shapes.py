"""Sizes of images and of the maps that they become, by shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import keras

from cnnkit.errors import UsageError
from cnnkit.models.stem import LARGEST_LEAST_SIZE
from cnnkit.models.surgery.chain import Chain


def check_size(size: int | Sequence[int]) -> tuple[int, int]:
    """Returns `size` as (height, width).

    Raises:
        UsageError: If it is neither one whole number of at least 1 nor two.
    """
    sides = (size, size) if isinstance(size, Integral) else size
    if not (
        isinstance(sides, Sequence) and len(sides) == 2 and all(is_count(side) for side in sides)
    ):
        raise UsageError(
            "An image has a height and a width",
            expected="one whole number of at least 1, or two",
            received=repr(size),
        )
    return int(sides[0]), int(sides[1])


def is_count(value: object) -> bool:
    """Tells whether `value` is a whole number of at least 1, Python's or NumPy's."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 1


def check_images(chain: Chain) -> None:
    """Makes sure that `chain` takes images (n, h, w, c), and keeps the channels last.

    Raises:
        UsageError: If it takes something else; a layer with the channels first is named.
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


def maps(chain: Chain, sides: tuple[int, int]) -> list[tuple[int, int]]:
    """Returns (height, width) of what each layer takes, as long as it takes maps.

    Raises:
        UsageError: If no position is left somewhere; the least square size is named.
    """
    found = _maps(chain, sides)
    if found is None:
        least = next(
            (side for side in range(1, LARGEST_LEAST_SIZE) if _maps(chain, (side, side))), None
        )
        raise UsageError(
            f"The image is too small for {chain.name!r}: no position is left",
            expected=None if least is None else f"height and width of at least {least}",
            received=f"{sides[0]} x {sides[1]}",
        )
    return found


def _maps(chain: Chain, sides: tuple[int, int]) -> list[tuple[int, int]] | None:
    shape: tuple[int | None, ...] = (None, *sides, chain.source.batch_shape[-1])
    found = []
    for layer in chain.layers:
        if len(shape) != 4:
            return found
        if min(shape[1:3]) < 1:
            return None
        found.append(shape[1:3])
        if isinstance(layer, keras.layers.Flatten):
            return found
        try:
            shape = tuple(layer.compute_output_shape(shape))
        except ValueError:
            # How Keras says that a window does not fit into the map.
            return None
    return None if len(shape) == 4 and min(shape[1:3]) < 1 else found
