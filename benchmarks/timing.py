"""Time candidates that take turns, so that a machine that slows down affects all of them."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As the commands do: see cnnkit.cli.quiet_tensorflow.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def interleaved(
    candidates: dict[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the median seconds of a call of each candidate; its first call is not counted."""
    for function in candidates.values():
        function()
    seconds = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, function in candidates.items():
            start = clock()
            function()
            seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def in_a_row(call: Callable[[], object], times: int) -> Callable[[], None]:
    """Return a function that makes a call several times."""

    def calls() -> None:
        for _ in range(times):
            call()

    return calls


def report(title: str, seconds: dict[str, float], images: int) -> None:
    """Print ms and images/s of each candidate, and the speed-up of the first over the others."""
    first = next(iter(seconds))
    print(f"\n{title}")
    for name, value in seconds.items():
        ratio = "" if name == first else f"   {first} is {value / seconds[first]:.2f}x as fast"
        print(f"  {name:<34} {value * 1e3:9.1f} ms {images / value:8.1f} images/s{ratio}")
