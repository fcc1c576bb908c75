"""Fields of a configuration: help, range and names as metadata of a frozen dataclass."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import numbers
import os
import textwrap
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cnnkit.errors import UsageError, unknown_name, warn

_T = TypeVar("_T")


@dataclass(frozen=True)
class Option:
    """Metadata of a field: its help, its range, and its names on the command line.

    Attributes:
        help: Description, as full sentences.
        choices: Accepted values, or None.
        minimum: Smallest accepted number, or None.
        maximum: Largest accepted number, or None.
        above: Number that the value must exceed, or None.
        below: Number that the value must stay below, or None.
        metavar: Placeholder of the value in the help of the command line.
        flag: Option of the command line; None is the name of the field.
        former_name: Name of the field in version 0.1.0, which works until 0.3.0.
        former_flag: Option in version 0.1.0, where it does not follow from `former_name`.
    """

    help: str
    choices: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    metavar: str | None = None
    flag: str | None = None
    former_name: str | None = None
    former_flag: str | None = None

    @property
    def range(self) -> str:
        """Accepted numbers in words, such as `at least 0 and less than 1`."""
        bounds = (
            ("at least", self.minimum),
            ("more than", self.above),
            ("at most", self.maximum),
            ("less than", self.below),
        )
        return " and ".join(
            f"{words} {bound if isinstance(bound, int) else format(bound, 'g')}"
            for words, bound in bounds
            if bound is not None
        )

    def accepts(self, number: float) -> bool:
        """Returns True if `number` is finite and within the range."""
        try:
            finite = math.isfinite(number)
        except OverflowError:  # An integer above the range of floats.
            finite = False
        return (
            finite
            and (self.minimum is None or number >= self.minimum)
            and (self.maximum is None or number <= self.maximum)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )


def config_field(default: Any, help: str, **metadata: Any) -> Any:
    """Declares a field with its metadata.

    Args:
        default: Default value; an empty dict becomes a factory.
        help: Description, as full sentences.
        **metadata: Further attributes of `Option`.
    """
    option = {"option": Option(" ".join(help.split()), **metadata)}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=option)
    return field(default=default, metadata=option)


def option_of(item: dataclasses.Field[Any]) -> Option:
    """Returns the metadata of a field that `config_field` declared."""
    option: Option = item.metadata["option"]
    return option


def with_former_names(cls: type[_T]) -> type[_T]:
    """Decorates a dataclass: its docstring lists the fields, its constructor takes former names."""
    constructor: Callable[..., None] = cls.__init__

    @functools.wraps(constructor)
    def __init__(self: object, *args: Any, **fields: Any) -> None:
        constructor(self, *args, **current_names(cls, fields, cls.__name__, stacklevel=4))

    cls.__init__ = __init__  # type: ignore[method-assign]
    cls.__doc__ = _with_attributes(cls)
    return cls


def current_names(
    cls: Any, fields: Mapping[str, Any], origin: str, *, stacklevel: int
) -> dict[str, Any]:
    """Returns fields by their current names, with one warning if former names are among them.

    Args:
        cls: Dataclass whose fields `config_field` declared.
        fields: Values by current or former name.
        origin: File or other source of the fields, for messages.
        stacklevel: As for `warnings.warn`.

    Raises:
        UsageError: If a field is set by both names.
    """
    names = {
        option_of(item).former_name: item.name
        for item in dataclasses.fields(cls)
        if option_of(item).former_name
    }
    former = [name for name in fields if name in names]
    if not former:
        return dict(fields)
    for name in former:
        if names[name] in fields:
            raise UsageError(f"`{name}` is the former name of `{names[name]}`, and both are set")
    renamed = ", ".join(f"{name} is now {names[name]}" for name in former)
    warn(
        f"{origin} uses names of version 0.1.0, which work until 0.3.0: {renamed}",
        FutureWarning,
        stacklevel=stacklevel,
    )
    return {names.get(name, name): value for name, value in fields.items()}


def check_fields(config: Any) -> None:
    """Checks every field of a configuration, and replaces its values by those of JSON.

    NumPy numbers become Python's, lists become tuples and paths become texts, so that a
    configuration equals the one that is read from its file.

    Raises:
        UsageError: If a value is wrong; the field is named.
    """
    cls: type = type(config)
    hints = _hints(cls)
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        plain = _checked(item.name, hints[item.name], option_of(item), value)
        object.__setattr__(config, item.name, plain)  # The dataclass is frozen.


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _checked(name: str, hint: Any, option: Option, value: Any) -> Any:
    """Returns the value of one field after checking its type and its range."""
    kinds = typing.get_args(hint) if type(None) in typing.get_args(hint) else (hint,)
    if value is None and type(None) in kinds:
        return None
    kind = next(kind for kind in kinds if kind is not type(None))
    origin = typing.get_origin(kind) or kind
    if option.choices is not None:
        if not isinstance(value, str) or value not in option.choices:
            raise unknown_name(name.replace("_", " "), value, option.choices)
        return value

    def require(good: bool, expected: str, part: str = "", received: object = value) -> None:
        if not good:
            raise UsageError(
                f"`{name}{part}` must be {expected}", received=repr(received), hint=option.help
            )

    if origin is tuple and str in typing.get_args(kind):
        good = isinstance(value, (tuple, list)) and all(
            isinstance(one, str) and bool(one) for one in value
        )
        require(good, "a list of texts")
        return tuple(value)
    if origin is tuple:
        count = None if Ellipsis in typing.get_args(kind) else len(typing.get_args(kind))
        good = isinstance(value, (tuple, list)) and count in (None, len(value))
        good = good and all(_is_number(one, int) and option.accepts(one) for one in value)
        plural = "integers" if count is None else f"{count} integers"
        require(good, f"{plural} of {option.range}")
        return tuple(map(int, value))
    if origin in (int, float):
        what = "an integer" if origin is int else "a number"
        good = _is_number(value, origin) and option.accepts(value)
        require(good, f"{what} of {option.range}" if option.range else what)
        return origin(value)
    if origin is bool:
        require(isinstance(value, bool), "True or False")
        return value
    if origin is str:
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        require(isinstance(value, str) and bool(value), "a non-empty text")
        return value
    good = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    require(good, "a mapping of names to values")
    if option.minimum is None:
        return {key: _json_value(one, require, f"[{key!r}]") for key, one in value.items()}
    for key, number in value.items():
        good = _is_number(number, float) and option.accepts(number)
        require(good, f"a number of {option.range}", f"[{key!r}]", number)
    return {key: float(number) for key, number in value.items()}


def _json_value(value: Any, require: Callable[..., None], part: str) -> Any:
    """Returns a value as it is read from JSON: arrays and tuples become lists."""
    try:
        # `default` receives NumPy's numbers and arrays.
        return json.loads(json.dumps(value, allow_nan=False, default=lambda one: one.tolist()))
    except (AttributeError, TypeError, ValueError, RecursionError):
        require(False, "a finite number, a text, or a list of them", part, value)


def _is_number(value: object, kind: type) -> bool:
    abstract = numbers.Integral if kind is int else numbers.Real
    return isinstance(value, abstract) and not isinstance(value, bool)


def _with_attributes(cls: Any) -> str:
    """Returns the docstring of a dataclass with its fields and their help."""
    lines = ["Attributes:"]
    for item in dataclasses.fields(cls):
        option = option_of(item)
        text = f"{item.name}: {option.help}"
        if option.choices:
            text += f" One of {', '.join(option.choices)}."
        if option.range:
            text += f" Values: {option.range}."
        lines += textwrap.wrap(text, 92, initial_indent=" " * 4, subsequent_indent=" " * 8)
    attributes = textwrap.indent("\n".join(lines), " " * 4)
    return (cls.__doc__ or "").replace("    Raises:", f"{attributes}\n\n    Raises:", 1)
