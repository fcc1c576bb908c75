"""Which rule the backward pass of our layers follows.

The rule is read while a function is traced, so a `tf.function` keeps the rule it was traced under:
make a new function for every rule, and never enter the context around `fit` or `predict`.
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
    """Returns the rule in force: `"gradient"` unless inside `backward_rule`."""
    return _rule.get()


@contextmanager
def backward_rule(rule: str) -> Iterator[None]:
    """Sets the backward rule of every ReLU and normalization layer traced inside the block.

    With R the signal from above and f the layer's input (Springenberg et al. 2015, Fig. 1):

    | rule        | ReLU passes down       | normalization passes down |
    |-------------|------------------------|---------------------------|
    | `gradient`  | R where f > 0          | its derivative            |
    | `deconvnet` | R where R > 0          | R, unchanged              |
    | `guided`    | R where R > 0 and f > 0| R, unchanged              |

    Args:
        rule: One of `RULES`.

    Raises:
        UsageError: If there is no such rule.
    """
    if rule not in RULES:
        raise unknown_name("rule", rule, RULES)
    token = _rule.set(rule)
    try:
        yield
    finally:
        _rule.reset(token)
