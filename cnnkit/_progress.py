"""How the progress of a long piece of work is told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

# A context of a piece of work: its number of images or other parts, and what it does.
Progress = Callable[[int, str], AbstractContextManager[Callable[[int], object]]]


def no_progress(count: int, work: str) -> AbstractContextManager[Callable[[int], object]]:
    """Tell nothing."""
    return nullcontext(lambda done: None)
