"""A closed-loop load test: each caller sends its next request after a response."""

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
from cnnkit.client.inputs import MAX_REQUEST_BYTES
from cnnkit.client.metadata import Signature
from cnnkit.errors import UsageError

# Limits of a test: one Python process cannot produce more load without being the bottleneck.
MAX_REQUESTS = 100_000
MAX_SECONDS = 600.0
MAX_CALLERS = 256
# Random numbers are drawn with 8 bytes each, so not all at once.
_DRAWN_AT_ONCE = 2**20
# Axes of an array of NumPy, at most.
_MAX_AXES = 64


@dataclass(frozen=True)
class LoadTestResult:
    """The result of a load test.

    Attributes:
        latencies: Seconds of each successful request, ascending.
        errors: Number of failed requests by gRPC code.
        seconds: Time from the start of the first request to the end of the last one.
        client_cpu_seconds: CPU time of this process during the test. If it is near `seconds`, the
            callers were the bottleneck, not the server.
    """

    latencies: tuple[float, ...]
    errors: Mapping[str, int]
    seconds: float
    client_cpu_seconds: float

    @property
    def requests(self) -> int:
        """The number of requests, failed ones included."""
        return len(self.latencies) + sum(self.errors.values())

    @property
    def answers_per_second(self) -> float:
        """The number of successful requests per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: float) -> float | None:
        """Return a percentile of the latencies in seconds, or None if no request succeeded.

        Args:
            percent: Above 0, 100 at most.

        Example:
            >>> LoadTestResult((1.0, 2.0, 3.0, 9.0), {}, 1.0, 0.0).percentile(75)
            3.0
        """
        if not self.latencies:
            return None
        # The nearest-rank method: the result is a latency that was measured.
        return float(np.percentile(self.latencies, percent, method="inverted_cdf"))


def run_load_test(
    ask: Callable[[], object], *, callers: int, requests: int, seconds: float, warm_up: int = 1
) -> LoadTestResult:
    """Run a closed-loop load test: each caller sends a request after its last response.

    A closed loop never sends faster than the server responds. Under overload, latencies grow with
    the number of callers.

    Args:
        ask: Makes one request. Called from several threads.
        callers: Number of concurrent callers, 1..256.
        requests: Maximum number of requests of all callers, 1..100,000.
        seconds: Time after which no request starts, up to 600.
        warm_up: Number of requests per caller before the test. They are not counted, and an error
            ends the test.

    Raises:
        UsageError: A number is out of its range.
        ServerError: A request of the warm-up failed.

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
                f"`{name}` must be above 0 and at most {most:g}",
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
    """The counters that the callers share."""

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
                # Not a failure of the server, so it ends the test.
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
    """Return random inputs for a signature: seeded noise in 0..255, or integers 0 and 1.

    Args:
        signature: The signature.
        rows: First size, if it is free.
        side: Every other free size.

    Raises:
        UsageError: An input takes strings or has an unknown rank, `rows` or `side` is below 1, or
            an input would be too large for a request.

    Example:
        >>> from cnnkit.client.metadata import TensorSpec
        >>> spec = {"images": TensorSpec("float32", (None, 8, 8, 3))}
        >>> random_inputs(Signature(spec, {}), 2, 224)["images"].shape
        (2, 8, 8, 3)
    """
    for name, value in (("rows", rows), ("side", side)):
        if value < 1:
            raise UsageError(f"`{name}` must be positive", expected="1 or more", received=value)
    random = np.random.default_rng(0)
    inputs: dict[str, npt.NDArray[Any]] = {}
    total = 0
    for name, spec in signature.inputs.items():
        try:
            dtype = None if spec.dtype == "string" else np.dtype(spec.dtype)
        except TypeError:
            dtype = None
        if dtype is None or spec.shape is None or len(spec.shape) > _MAX_AXES:
            raise UsageError(
                f"Input {name!r} must take numbers of a known rank to be filled at random",
                received=spec,
                hint="Name an image file",
            )
        shape = [
            size if size is not None else (side if axis else rows)
            for axis, size in enumerate(spec.shape)
        ]
        # All inputs together: the server decides how many there are, and how large.
        total += math.prod(shape) * dtype.itemsize
        check_load_size(total)
        values = inputs[name] = np.empty(shape, dtype)
        flat = values.reshape(-1)
        for begin in range(0, flat.size, _DRAWN_AT_ONCE):
            part = flat[begin : begin + _DRAWN_AT_ONCE]
            part[:] = (
                random.uniform(0, 255, part.size)
                if dtype.kind in "fc"
                else random.integers(0, 2, part.size)
            )
    return inputs


def check_load_size(size: int) -> None:
    """Raise a `UsageError` if an input of `size` bytes is too large for one request.

    Example:
        >>> check_load_size(1000)
    """
    if size > MAX_REQUEST_BYTES:
        raise UsageError(
            "The `inputs` of a load test must fit into one request",
            expected=f"{MAX_REQUEST_BYTES} bytes at most",
            received=size,
        )
