"""A small load test: callers that ask the same thing again and again, and how long answers take."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cnnkit.client.errors import ServerError
from cnnkit.client.inputs import LARGEST_REQUEST
from cnnkit.client.metadata import Signature
from cnnkit.errors import UsageError

# More is no small test, and not what one process in Python can honestly produce.
MAX_REQUESTS = 100_000
MAX_SECONDS = 600.0
MAX_CALLERS = 256


@dataclass(frozen=True)
class LoadTestResult:
    """What a load test came to.

    Attributes:
        latencies: Seconds of each request that was answered, ascending.
        errors: How often each gRPC code came instead of an answer.
        seconds: From the first request's begin to the last one's end.
        client_cpu_seconds: CPU time of this process meanwhile. Near `seconds`, the callers were the
            bottleneck and not the server.
    """

    latencies: tuple[float, ...]
    errors: Mapping[str, int]
    seconds: float
    client_cpu_seconds: float

    @property
    def requests(self) -> int:
        """How many requests were made, answered or not."""
        return len(self.latencies) + sum(self.errors.values())

    @property
    def answers_per_second(self) -> float:
        """Answered requests a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: float) -> float | None:
        """Returns the seconds within which so many percent of the answers came; None without any.

        Example:
            >>> LoadTestResult((1.0, 2.0, 3.0, 9.0), {}, 1.0, 0.0).percentile(75)
            3.0
        """
        if not self.latencies:
            return None
        # A latency that was measured, the nearest rank's: none in between is made up.
        return float(np.percentile(self.latencies, percent, method="inverted_cdf"))


def run_load_test(
    ask: Callable[[], object], *, callers: int, requests: int, seconds: float, warm_up: int = 1
) -> LoadTestResult:
    """Lets several callers ask at once, each as soon as its last answer is there.

    Such a closed loop never asks faster than the server answers: under more load than it can take,
    latencies grow with the number of callers, and no queue builds up outside.

    Args:
        ask: Makes one request; called from several threads.
        callers: How many ask at once, 1..256.
        requests: All callers' requests together at most, 1..100,000.
        seconds: No request begins later than this, up to 600.
        warm_up: Requests of each caller before, which do not count. An error ends the test here.

    Raises:
        UsageError: A number is out of its range.
        ServerError: The server does not answer even before the test.

    Example:
        >>> run_load_test(lambda: None, callers=2, requests=10, seconds=1).requests
        10
    """
    for name, value, most in (
        ("callers", callers, MAX_CALLERS),
        ("requests", requests, MAX_REQUESTS),
        ("seconds", seconds, MAX_SECONDS),
    ):
        if not 0 < value <= most:
            raise UsageError(
                f"A small test has other {name}",
                expected=f"above 0, {most:g} at most",
                received=value,
            )
    for _ in range(warm_up * callers):
        ask()
    test = _Test(ask, requests)
    threads = [threading.Thread(target=test.call, daemon=True) for _ in range(callers)]
    cpu, begun = time.process_time(), time.perf_counter()
    test.end = begun + seconds
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        test.left = 0
    took = time.perf_counter() - begun
    if test.broken is not None:
        raise test.broken
    used = time.process_time() - cpu
    return LoadTestResult(tuple(sorted(test.latencies)), dict(test.errors), took, used)


class _Test:
    def __init__(self, ask: Callable[[], object], requests: int) -> None:
        self.left = requests
        self.end = 0.0
        self.latencies: list[float] = []
        self.errors: Counter[str] = Counter()
        self.broken: Exception | None = None
        self._ask = ask
        self._lock = threading.Lock()

    def call(self) -> None:
        while self._more():
            begun = time.perf_counter()
            try:
                self._ask()
            except ServerError as error:
                with self._lock:
                    self.errors[error.code] += 1
            except Exception as error:
                # A mistake of ours, not an answer of the server's: it ends the test.
                self.broken, self.left = error, 0
            else:
                self.latencies.append(time.perf_counter() - begun)

    def _more(self) -> bool:
        with self._lock:
            if self.left < 1 or time.perf_counter() >= self.end:
                return False
            self.left -= 1
            return True


def random_inputs(signature: Signature, rows: int, side: int) -> dict[str, npt.NDArray[Any]]:
    """Returns inputs that a signature takes: seeded noise in 0..255, or whole numbers of 0..1.

    Args:
        signature: The signature.
        rows: The first size, where it is open.
        side: Every other size that is open.

    Raises:
        UsageError: It takes strings or other things that cannot be made up, `rows` or `side` is
            below 1, or an input would be too large for a request.

    Example:
        >>> from cnnkit.client.metadata import TensorSpec
        >>> spec = {"images": TensorSpec("float32", (None, 8, 8, 3))}
        >>> random_inputs(Signature(spec, {}), 2, 224)["images"].shape
        (2, 8, 8, 3)
    """
    for name, value in (("rows", rows), ("side", side)):
        if value < 1:
            raise UsageError(f"An input has {name}", expected="1 or more", received=value)
    random = np.random.default_rng(0)
    inputs: dict[str, npt.NDArray[Any]] = {}
    for name, spec in signature.inputs.items():
        try:
            dtype = None if spec.dtype == "string" else np.dtype(spec.dtype)
        except TypeError:
            dtype = None
        if dtype is None or spec.shape is None:
            raise UsageError(
                f"Input {name!r} cannot be made up",
                expected="numbers of a known rank",
                received=spec,
                hint="Name a file that is an image",
            )
        shape = [
            size if size is not None else (side if place else rows)
            for place, size in enumerate(spec.shape)
        ]
        check_load_size(math.prod(shape) * dtype.itemsize)
        if dtype.kind in "fc":
            inputs[name] = random.uniform(0, 255, shape).astype(dtype)
        else:
            inputs[name] = random.integers(0, 2, shape).astype(dtype)
    return inputs


def check_load_size(size: int) -> None:
    """Raises a UsageError where so many bytes are more than one request holds.

    Example:
        >>> check_load_size(1000)
    """
    if size > LARGEST_REQUEST:
        raise UsageError(
            "So much does not go into one request",
            expected=f"{LARGEST_REQUEST} bytes at most",
            received=size,
        )
