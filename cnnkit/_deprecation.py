"""Old names of arguments, accepted for one release."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

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
        >>> print(caught[0].message)
        `label` of name_class() is now called `target`. The old name will be removed in the next release.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            if old in kwargs:
                if new in kwargs:
                    raise TypeError(
                        f"{function.__name__}() takes `{new}` or its old name `{old}`, not both"
                    )
                warnings.warn(
                    f"`{old}` of {function.__name__}() is now called `{new}`. The old name will be"
                    " removed in the next release.",
                    FutureWarning,
                    stacklevel=2,
                )
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return wrapper

    return decorate
