"""Checks of numbers, names and positions that the functions of `cnnkit.visualize` take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

from cnnkit._network_names import check_unit
from cnnkit.errors import UsageError


def check_batch_size(batch_size: int) -> None:
    """Checks that a batch size is positive.

    Raises:
        UsageError: If it is not.
    """
    check_whole_number("batch_size", batch_size)


def check_whole_number(name: str, value: object, *, least: int | None = 1) -> None:
    """Checks that an argument is a whole number, at least `least` if that is given.

    Raises:
        UsageError: If it is not; the argument is named.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UsageError(f"`{name}` must be a whole number", received=repr(value))
    if least is not None and int(value) < least:
        raise UsageError(f"`{name}` must be at least {least}", received=value)


def check_names(name: str, values: object) -> None:
    """Checks that an argument is a list of names, and not one name.

    Raises:
        UsageError: If it is not; the argument is named.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UsageError(f"`{name}` must be a list of names", received=repr(values))


def unit_indices(unit: object, count: int, layer: str) -> list[int]:
    """Returns one unit or several as a list of indices.

    Raises:
        UsageError: If one is not a whole number, or there is no such unit.
    """
    units: list[Any]
    units = list(unit) if isinstance(unit, Iterable) and not isinstance(unit, str) else [unit]
    for one in units:
        check_whole_number("unit", one, least=None)
        check_unit(layer, one, count)
    return [int(one) for one in units]


def validate_position(position: Sequence[int], sides: Sequence[int]) -> tuple[int, ...]:
    """Returns a position in a map with these sides as a tuple of integers.

    Raises:
        UsageError: If the position lies outside of the map.
    """
    fits = isinstance(position, Sequence) and len(position) == len(sides)
    if not fits or not all(
        isinstance(index, Integral) and 0 <= index < side
        for index, side in zip(position, sides, strict=True)
    ):
        raise UsageError(
            "`position` must lie in the feature map",
            expected=f"within {' x '.join(map(str, sides))}" if sides else "None in a dense layer",
            received=position,
        )
    return tuple(map(int, position))
