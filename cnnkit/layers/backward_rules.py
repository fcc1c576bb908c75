"""Rules for the backward pass of ReLU and normalization layers.

A layer reads the rule while it is traced, so a `tf.function` keeps the rule under which it was
traced. Make a new function for every rule, and never enter the context around `fit` or `predict`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from cnnkit.errors import unknown_name

# Backward rules of the ReLU.
RULES = ("gradient", "deconvnet", "guided")

_rule: ContextVar[str] = ContextVar("cnnkit_backward_rule", default="gradient")


def current_rule() -> str:
    """Return the current rule: `"gradient"` unless inside `backward_rule`."""
    return _rule.get()


@contextmanager
def backward_rule(rule: str) -> Iterator[None]:
    """Set the backward rule of every ReLU and normalization layer traced inside the block.

    R is the signal from the layer above, f the input of the layer (Springenberg et al. 2015,
    Fig. 1):

    | rule        | ReLU returns           | normalization returns     |
    |-------------|------------------------|---------------------------|
    | `gradient`  | R where f > 0          | the gradient              |
    | `deconvnet` | R where R > 0          | R, unchanged              |
    | `guided`    | R where R > 0 and f > 0| R, unchanged              |

    Args:
        rule: One of `RULES`.

    Raises:
        UsageError: If there is no such rule.

    Example:
        >>> import tensorflow as tf
        >>> from cnnkit.layers import ReLU, backward_rule
        >>> x = tf.constant([-1.0, 2.0])
        >>> with backward_rule("deconvnet"), tf.GradientTape() as tape:
        ...     tape.watch(x)
        ...     y = ReLU()(x)
        >>> tape.gradient(y, x, tf.constant([3.0, -4.0])).numpy()
        array([3., 0.], dtype=float32)
    """
    if rule not in RULES:
        raise unknown_name("rule", rule, RULES)
    token = _rule.set(rule)
    try:
        yield
    finally:
        _rule.reset(token)
