"""One variant of a network as a builder of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras


def variant(
    builder: Callable[..., keras.Model], name: str, summary: str, **fixed: Any
) -> Callable[..., keras.Model]:
    """Makes a builder with the arguments of `builder` but for those that are `fixed`."""

    def build(**options) -> keras.Model:
        return builder(**fixed, **{"name": name, **options})

    build.__name__ = build.__qualname__ = name
    build.__module__ = builder.__module__
    build.__doc__ = f"{summary}; arguments, layers and errors as `{builder.__name__}`."
    parameters = inspect.signature(builder).parameters
    build.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter for key, parameter in parameters.items() if key not in fixed],
        return_annotation=keras.Model,
    )
    return build
