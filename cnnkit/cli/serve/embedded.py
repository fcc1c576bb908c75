"""Run the embedded model server in this process, or in several."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

from cnnkit._signals import default_signals, interruptible
from cnnkit.cli.console import INTERRUPTED, print_detail, print_error, print_line, print_note
from cnnkit.cli.serve.logs import log_to_stderr
from cnnkit.cli.serve.options import ENGINES, embedded_server_options, given_options

if TYPE_CHECKING:
    from cnnkit.server import EmbeddedServer
    from cnnkit.server.repository import ModelRepository

LOCALHOST = "127.0.0.1"
DEFAULT_GRACE_SECONDS = 10.0
DEFAULT_POLL_SECONDS = 1.0
# The time that worker processes get to end, beyond the grace of their requests.
_WORKER_EXIT_SECONDS = 5.0
# The time that a thread gets to end when the server has stopped.
_THREAD_EXIT_SECONDS = 1.0
# Time between two checks for a signal or the end of a child.
_CHECK_SECONDS = 0.1


def serve_embedded(args: argparse.Namespace, stop_requested: Callable[[], bool]) -> None:
    """Serve in this process until `stop_requested` returns True.

    Raises:
        UsageError: If an option is out of range, or a folder holds no model.
        RunError: If the server cannot listen on the port, or a model cannot be loaded.
    """
    from cnnkit.server.listen import check_port_free

    options = embedded_server_options(args)
    host = args.host or LOCALHOST
    if not args.worker:
        # Before TensorFlow starts; the server itself does so too.
        check_port_free(host, args.port)
        if args.rest_port is not None:
            check_port_free(host, args.rest_port)
    _raise_open_file_limit()
    with _metrics(args, host, options) as metrics_port, _tracing(options):
        _serve(args, host, options, metrics_port, stop_requested)
    _end_despite_graphs()


@contextlib.contextmanager
def _metrics(args: argparse.Namespace, host: str, options: dict[str, Any]) -> Iterator[int | None]:
    """Add the metrics to the options of the server, and serve them but in a worker."""
    if args.metrics_port is None:
        yield None
        return
    from cnnkit.server import ServerMetrics, serve_metrics

    options["metrics"] = metrics = ServerMetrics()
    if args.worker:
        yield None
        return
    with serve_metrics(metrics.registry, host, args.metrics_port) as port:
        yield port


@contextlib.contextmanager
def _tracing(options: dict[str, Any]) -> Iterator[None]:
    """Add the tracing that the environment asks for to the options of the server."""
    from cnnkit.server import tracing_from_environment

    options["tracing"] = tracing = tracing_from_environment()
    try:
        yield
    finally:
        if tracing is not None:
            tracing.close()


def _serve(
    args: argparse.Namespace,
    host: str,
    options: dict[str, Any],
    metrics_port: int | None,
    stop_requested: Callable[[], bool],
) -> None:
    # Signals are deferred, but nothing is lost by ending before the server answers.
    try:
        with default_signals() if args.worker else interruptible():
            server = _start(args, host, options)
    except KeyboardInterrupt:
        print_error("cnnkit: interrupted")
        # Python's own exit waits for TensorFlow's threads.
        os._exit(INTERRUPTED)
    try:
        _print_port("metrics", metrics_port, host, "/metrics")
        if not args.worker and server.rest_address is not None:
            port = int(server.rest_address.rpartition(":")[2])
            _print_port("REST API", port, host, "/v1", tls=args.tls_cert is not None)
        print_line(f"{_summary(server.repository)} at {server.address} (Ctrl-C stops)")
        log_to_stderr(args.log_format)
        if args.worker:
            _serve_as_worker(server, stop_requested)
        while not stop_requested() and not args.worker:
            time.sleep(_CHECK_SECONDS)
    finally:
        server.stop(_grace(args))


def _start(args: argparse.Namespace, host: str, options: dict[str, Any]) -> EmbeddedServer:
    """Import TensorFlow, load the models and start the server."""
    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.server import EmbeddedServer

    engine = args.engine or ENGINES[0]
    if not args.no_load_trial:
        from cnnkit.server.load_trial import LoadTrial

        options["trial"] = LoadTrial(engine)
    if engine == "openvino":
        from cnnkit.server.openvino import load_openvino

        # The log names the signatures that OpenVINO runs and how its outputs differ.
        log_to_stderr(args.log_format)
        options["load"] = load_openvino
    server = EmbeddedServer(
        **options,
        host=host,
        port=args.port,
        poll_seconds=DEFAULT_POLL_SECONDS if args.poll_seconds is None else args.poll_seconds,
        rest_port=args.rest_port,
        reuse_port=args.worker,
    )
    server.start()
    return server


def _end_despite_graphs() -> None:
    """End this process if a graph still runs: Python's own exit would wait for its thread."""
    from cnnkit.server.watchdog import GRAPH_THREADS

    for thread in threading.enumerate():
        if thread.name.startswith(GRAPH_THREADS):
            thread.join(_THREAD_EXIT_SECONDS)
            if thread.is_alive():
                print_detail("A graph has not ended")
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)


def _serve_as_worker(server: EmbeddedServer, stop_requested: Callable[[], bool]) -> None:
    """Print a heartbeat while the server answers; end also when standard input does.

    The parent process closes standard input, for whatever reason it ends.
    """
    from cnnkit.server.worker_pool import HEARTBEAT, HEARTBEAT_SECONDS

    answer = server.ping()
    due = time.monotonic()
    while not (stop_requested() or _at_end(sys.stdin)):
        if answer.done() and time.monotonic() >= due:
            with contextlib.suppress(BrokenPipeError):
                print_line(HEARTBEAT)
            answer, due = server.ping(), time.monotonic() + HEARTBEAT_SECONDS
        time.sleep(_CHECK_SECONDS)


def serve_with_workers(args: argparse.Namespace, stop_requested: Callable[[], bool]) -> None:
    """Serve in `--workers` processes that share a port until `stop_requested` returns True.

    Raises:
        UsageError: If an option is out of range, or a folder holds no model.
        RunError: If the port is in use, or the workers end again and again.
        KeyboardInterrupt: If `stop_requested` returns True before the workers are ready.
    """
    from cnnkit.server.listen import reserve_port
    from cnnkit.server.metrics import shared_metrics
    from cnnkit.server.worker_pool import WorkerPool

    # Here, so that a wrong option makes one error and not one for each worker.
    embedded_server_options(args)
    log_to_stderr(args.log_format)
    host = args.host or LOCALHOST
    with contextlib.ExitStack() as stack:
        held = stack.enter_context(reserve_port(host, args.port))
        if args.rest_port is not None:
            rest = stack.enter_context(reserve_port(host, args.rest_port))
            args.rest_port = rest.getsockname()[1]
        words = [str(args.models), "--worker", "--host", host]
        words += ["--port", str(held.getsockname()[1]), *given_options(args)]
        if args.name:
            words += ["--name", args.name]
        command = [sys.executable, "-m", "cnnkit", "serve", *words]
        pool: dict[str, Any] = {}
        metrics_port = None
        if args.metrics_port is not None:
            shared = shared_metrics(host, args.metrics_port)
            metrics_port, pool["on_end"] = stack.enter_context(shared)
        workers = stack.enter_context(WorkerPool(command, args.workers, **pool))
        line = workers.start(stop_requested)
        if line is None:
            raise KeyboardInterrupt
        _print_port("metrics", metrics_port, host, "/metrics")
        _print_port("REST API", args.rest_port, host, "/v1", tls=args.tls_cert is not None)
        print_line(line.replace(" (", f" in {args.workers} processes ("))
        while not stop_requested():
            workers.replace_lost()
            time.sleep(_CHECK_SECONDS)
        workers.stop(_WORKER_EXIT_SECONDS + _grace(args))


def _print_port(what: str, port: int | None, host: str, path: str, *, tls: bool = False) -> None:
    if port is not None:
        shown = f"[{host}]" if ":" in host else host
        print_note(f"{what} at http{'s' if tls else ''}://{shown}:{port}{path}")


def _grace(args: argparse.Namespace) -> float:
    return DEFAULT_GRACE_SECONDS if args.grace is None else args.grace


def _summary(repository: ModelRepository) -> str:
    """Return the served models and versions as text."""
    served = []
    for config in repository.configs:
        numbers = repository.versions(config.name)
        plural = "s" if len(numbers) > 1 else ""
        served.append(f"{config.name} version{plural} {', '.join(map(str, numbers))}")
    return f"serving {'; '.join(served)}"


def _raise_open_file_limit() -> None:
    """Allow this process as many connections as the system lets it have."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _at_end(stream: TextIO) -> bool:
    return bool(select.select([stream], [], [], 0)[0]) and not stream.read(1)
