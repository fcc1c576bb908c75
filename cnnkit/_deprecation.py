"""Old names of arguments, accepted for one release."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


def renamed_argument(old: str, new: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that accepts a keyword argument by its old name too.

    The old name is passed on under the new one with a `FutureWarning`. The signature and the
    docstring stay those of the decorated function.

    Args:
        old: The old name, which the function itself no longer has.
        new: The new name.

    Raises:
        TypeError: By the decorated function, if both names are given.

    Example:
        >>> import warnings
        >>> from cnnkit._deprecation import renamed_argument
        >>> @renamed_argument("label", "target")
        ... def name_class(target):
        ...     return f"class {target}"
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     name_class(label=2)
        'class 2'
        >>> print(str(caught[0].message).split(". ")[0])
        `label` of name_class() is now called `target`
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = f"{function.__qualname__}()"

        def rename(kwargs: dict[str, Any]) -> None:
            if old in kwargs:
                if new in kwargs:
                    raise TypeError(f"{name} takes `{new}` or its old name `{old}`, not both")
                warnings.warn(
                    f"`{old}` of {name} is now called `{new}`. The old name will be removed in the"
                    " next release.",
                    FutureWarning,
                    stacklevel=3,
                )
                kwargs[new] = kwargs.pop(old)

        if inspect.iscoroutinefunction(function):
            # A coroutine function too, for callers that check.
            @functools.wraps(function)
            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                rename(kwargs)
                return await function(*args, **kwargs)

            return cast("Callable[P, R]", coroutine)

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            rename(kwargs)
            return function(*args, **kwargs)

        return wrapper

    return decorate
