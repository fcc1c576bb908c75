"""What a server counts for Prometheus: requests, their time, batches, versions, memory.

`ServerMetrics` needs the package prometheus-client (the extra `metrics`); `NO_METRICS` counts
nothing and needs nothing.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cnnkit.errors import RunError, check_installed

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

# Upper bounds of the time of a call in seconds: a small network in a millisecond, a queue of a
# large one in half a minute.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
# Of the rows of a graph's run.
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# The folder through which the processes of one server share their numbers: prometheus-client reads
# it when it is imported.
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class NoMetrics:
    """Counts nothing. `ServerMetrics` has the same methods."""

    @contextlib.contextmanager
    def open_request(self) -> Iterator[None]:
        """Counts a request as open during the block."""
        yield

    def finish_request(
        self, method: str, model: str, version: str, signature: str, code: str, seconds: float
    ) -> None:
        """Counts a request that has ended.

        Args:
            method: Name of the gRPC method.
            model: Name of the served model; empty if the request names none.
            version: Number of the version that answered; empty likewise.
            signature: Name of the signature; empty likewise.
            code: Name of the gRPC status code.
            seconds: Time from its first byte to its answer.
        """

    def run_batch(self, model: str, rows: int) -> None:
        """Counts one run of a graph and its rows."""

    def set_waiting(self, batches: int) -> None:
        """Sets the number of batches that wait for a thread."""

    def load_version(self, model: str, *, loaded: bool) -> None:
        """Counts a version that was loaded, or could not be."""

    def set_versions(self, counts: Mapping[str, int]) -> None:
        """Sets the number of loaded versions of every served model, and the memory in use."""


NO_METRICS = NoMetrics()


class ServerMetrics(NoMetrics):
    """Counters, gauges and histograms of one server process.

    No value of a label comes from a request unless a served model has it, so that a client cannot
    make the list grow.

    Args:
        registry: Registry of prometheus-client; None for one of its own.

    Raises:
        UsageError: If prometheus-client is not installed.

    Example:
        >>> metrics = ServerMetrics()
        >>> metrics.run_batch("digits", 8)
        >>> metrics.registry.get_sample_value("cnnkit_batch_rows_sum", {"model": "digits"})
        8.0
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        check_metrics_installed()
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = registry = registry or CollectorRegistry()
        call = ("method", "model", "version", "signature")
        self._requests = Counter(
            "cnnkit_requests", "Requests that have ended.", (*call, "code"), registry=registry
        )
        self._seconds = Histogram(
            "cnnkit_request_seconds",
            "Time of a request on the server.",
            call,
            buckets=SECONDS,
            registry=registry,
        )
        self._rows = Histogram(
            "cnnkit_batch_rows",
            "Rows of a run of a graph: of one request, or of merged ones.",
            ("model",),
            buckets=ROWS,
            registry=registry,
        )
        self._loads = Counter(
            "cnnkit_version_loads",
            "Versions that were loaded, or could not be.",
            ("model", "result"),
            registry=registry,
        )

        def gauge(name: str, text: str, labels: Iterable[str] = ()) -> Gauge:
            # Of several processes, the sum of those that run.
            return Gauge(name, text, tuple(labels), registry=registry, multiprocess_mode="livesum")

        self._open = gauge("cnnkit_open_requests", "Requests that are being received or answered.")
        self._waiting = gauge("cnnkit_waiting_batches", "Batches that wait for a thread.")
        self._versions = gauge("cnnkit_loaded_versions", "Loaded versions of a model.", ["model"])
        self._memory = gauge("cnnkit_resident_memory_bytes", "Memory of the server's processes.")
        self._names: set[str] = set()

    @contextlib.contextmanager
    def open_request(self) -> Iterator[None]:
        """See `NoMetrics`."""
        with self._open.track_inprogress():
            yield

    def finish_request(
        self, method: str, model: str, version: str, signature: str, code: str, seconds: float
    ) -> None:
        """See `NoMetrics`."""
        self._requests.labels(method, model, version, signature, code).inc()
        self._seconds.labels(method, model, version, signature).observe(seconds)

    def run_batch(self, model: str, rows: int) -> None:
        """See `NoMetrics`."""
        self._rows.labels(model).observe(rows)

    def set_waiting(self, batches: int) -> None:
        """See `NoMetrics`."""
        self._waiting.set(batches)

    def load_version(self, model: str, *, loaded: bool) -> None:
        """See `NoMetrics`."""
        self._loads.labels(model, "loaded" if loaded else "failed").inc()

    def set_versions(self, counts: Mapping[str, int]) -> None:
        """See `NoMetrics`."""
        for name, count in {**dict.fromkeys(self._names, 0), **counts}.items():
            self._versions.labels(name).set(count)
        self._names |= set(counts)
        self._memory.set(_resident_bytes())


@contextlib.contextmanager
def serve_metrics(
    registry: CollectorRegistry | None, host: str, port: int, folder: Path | None = None
) -> Iterator[int]:
    """Answers `GET /metrics` with the numbers of a registry, in a thread, during the block.

    Args:
        registry: The registry; None for that of the processes that share `folder`.
        host: The network interface to listen on.
        port: The port; 0 for any free one.
        folder: The folder that the processes share, see `SHARED_FOLDER`.

    Yields:
        The port.

    Raises:
        RunError: If the port cannot be listened on.
    """
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.multiprocess import MultiProcessCollector

    if registry is None:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise RunError(
            f"The metrics cannot be served at {host}:{port}",
            received=error.strerror or error,
            hint="Choose another port for them",
        ) from error
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def shared_metrics(host: str, port: int) -> Iterator[tuple[int, Callable[[int], None]]]:
    """Serves the sum of the metrics of processes that are started in the block.

    Args:
        host: The network interface to listen on.
        port: The port; 0 for any free one.

    Yields:
        The port, and a function to call with the number of a process that was lost.

    Raises:
        RunError: If the port cannot be listened on.
    """
    check_metrics_installed()
    from prometheus_client.multiprocess import mark_process_dead

    with tempfile.TemporaryDirectory(prefix="cnnkit-metrics-") as folder:

        def end(process: int) -> None:
            mark_process_dead(process, folder)  # type: ignore[no-untyped-call]

        with serve_metrics(None, host, port, Path(folder)) as found:
            before = os.environ.get(SHARED_FOLDER)
            os.environ[SHARED_FOLDER] = folder
            try:
                yield found, end
            finally:
                os.environ.pop(SHARED_FOLDER)
                if before is not None:
                    os.environ[SHARED_FOLDER] = before


def check_metrics_installed() -> None:
    """Checks that prometheus-client is installed, without importing it.

    Raises:
        UsageError: If it is not.
    """
    check_installed("prometheus_client", package="prometheus-client", needed_by="ServerMetrics")


def _resident_bytes() -> float:
    """Returns the resident memory of this process; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0.0
    return float(pages * os.sysconf("SC_PAGE_SIZE"))
