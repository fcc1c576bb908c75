"""Serve exported models over gRPC until stopped.

MODELS is a model's folder, such as models/digits, with the versions in models/digits/1, 2, ...; the
newest one is served, and newer ones as they appear. Or it is TensorFlow Serving's models.config.
TensorFlow Serving's tensorflow_model_server runs where it is on the PATH, MODELS is a folder and no
option of the embedded server is given; else a server of the same API inside this process.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import math
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grpc

    from cnnkit.server import ServerLimits
    from cnnkit.server.repository import ModelRepository

# Between two looks for a signal or the end of a child, in seconds.
_POLL = 0.1

# The options of the embedded server: what to call the value, its type, the help.
_OPTIONS: dict[str, tuple[str, type, str]] = {
    "--versions": ("CHOICE", str, "latest, latest:N, all, or numbers such as 1,3 (default latest)"),
    "--labels": ("LABEL=VERSION,...", str, "names for versions, such as stable=1,canary=2"),
    "--poll-seconds": ("S", float, "between two looks for new versions, 0 for none (default 1)"),
    "--threads": ("N", int, "graphs that run at once (default: one for each core)"),
    "--batch-window-ms": ("MS", float, "let requests wait so long for others to run with"),
    "--max-batch": ("N", int, "images in a request (default 256)"),
    "--max-calls": ("N", int, "requests taken at once; more are refused (default 128)"),
    "--max-request-mb": ("MB", int, "size of a request in MiB (default 256)"),
    "--grace": ("S", float, "what runs may take so long when the server stops (default 10)"),
    "--engine": ("NAME", str, "what runs the graphs: tensorflow (default) or openvino"),
    "--tls-cert": ("FILE", Path, "the server's certificate, PEM"),
    "--tls-key": ("FILE", Path, "its private key, PEM"),
    "--tls-client-ca": ("FILE", Path, "let in only clients with a certificate of this authority"),
}
_ENGINES = ("tensorflow", "openvino")
# Options that set a field of `ServerLimits`, and the factor of their unit.
_LIMITS: dict[str, tuple[str, float]] = {
    "threads": ("threads", 1),
    "batch_window_ms": ("batch_timeout_seconds", 1e-3),
    "max_batch": ("max_request_rows", 1),
    "max_calls": ("max_concurrent_requests", 1),
    "max_request_mb": ("max_request_bytes", 2**20),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `cnnkit serve`."""
    parser.add_argument(
        "models", metavar="MODELS", type=Path, help="a model's folder, NAME/, or a models.config"
    )
    parser.add_argument("--port", type=int, default=8500, help="0 picks a free one (default 8500)")
    parser.add_argument(
        "--host", help="the interface to listen on (default 127.0.0.1: this machine only)"
    )
    parser.add_argument("--name", help="the name to serve under (default: the folder's name)")
    group = parser.add_argument_group("the embedded server")
    group.add_argument(
        "--embedded",
        action="store_true",
        help="use it even where tensorflow_model_server is installed",
    )
    group.add_argument(
        "--workers", metavar="N", type=int, help="processes that share the port (default 1)"
    )
    for flag, (value, kind, text) in _OPTIONS.items():
        group.add_argument(flag, metavar=value, type=kind, help=text)
    # A worker: shares its port, and ends when its standard input does.
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Serves until SIGINT or SIGTERM; returns 0."""
    from cnnkit.errors import UsageError
    from cnnkit.server import find_model_server

    if not 0 <= args.port < 65536:
        raise UsageError("This is not a port", expected="0 to 65535", received=args.port)
    embedded = args.embedded or args.models.is_file() or bool(_given(args))
    binary = None if embedded or args.workers is not None else find_model_server()
    with _stop_signals() as stopped:
        if binary is not None:
            if args.host not in (None, "0.0.0.0"):
                raise UsageError(
                    "tensorflow_model_server listens on every interface",
                    received=f"--host {args.host}",
                    hint="Add --embedded for the server that can listen on one, or leave --host "
                    "out",
                )
            from cnnkit.cli.serve_tf_serving import serve_with_tf_serving

            serve_with_tf_serving(binary, args.models, _name(args), args.port, stopped)
        elif args.workers is not None and args.workers != 1:
            _with_workers(args, stopped)
        else:
            _embedded(args, stopped)
    return 0


def _checked(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the embedded server's options; what can be found wrong without TensorFlow is."""
    from cnnkit.errors import UsageError, unknown_name
    from cnnkit.server.model_config import parse_version_policy, read_models_config
    from cnnkit.server.version_folders import version_folders

    for option in ("poll_seconds", "grace"):
        seconds = getattr(args, option)
        if seconds is not None and not 0 <= seconds < math.inf:
            flag = option.replace("_", "-")
            raise UsageError(f"--{flag} cannot be", expected="0 or more seconds", received=seconds)
    if args.engine not in (None, *_ENGINES):
        raise unknown_name("engine", args.engine, _ENGINES)
    if args.engine == "openvino" and importlib.util.find_spec("openvino") is None:
        raise UsageError(
            "The engine openvino is not installed",
            hint="Install it: pip install 'cnnkit[openvino]'",
        )
    options: dict[str, Any] = {"limits": _limits(args), "credentials": _credentials(args)}
    if args.models.is_file():
        read_models_config(args.models)
        _check_models_config(args)
        return {**options, "models": args.models}
    versions = args.versions or "latest"
    version_folders(args.models)
    parse_version_policy(versions)
    name = _name(args)
    labels = {name: _labels(args.labels)}
    return {
        **options,
        "models": {name: args.models},
        "versions": versions,
        "version_labels": labels,
    }


def _embedded(args: argparse.Namespace, stopped: Callable[[], bool]) -> None:
    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    options = _checked(args)
    _more_files()
    import_tensorflow()
    from cnnkit.server import EmbeddedServer

    if args.engine == "openvino":
        from cnnkit.server.openvino import load_openvino

        # Which signatures it runs, and how its answers differ, is said as the models are loaded.
        _log_changes()
        options["load"] = load_openvino
    server = EmbeddedServer(
        **options,
        host=args.host or "127.0.0.1",
        port=args.port,
        poll_seconds=1.0 if args.poll_seconds is None else args.poll_seconds,
        reuse_port=args.worker,
    )
    server.start()
    try:
        print(f"{_served(server.repository)} at {server.address} (Ctrl-C stops)", flush=True)
        _log_changes()
        while not (stopped() or args.worker and _ended(sys.stdin)):
            time.sleep(_POLL)
    finally:
        server.stop(10.0 if args.grace is None else args.grace)


def _with_workers(args: argparse.Namespace, stopped: Callable[[], bool]) -> None:
    from cnnkit.errors import UsageError
    from cnnkit.server.listen import reserve_port
    from cnnkit.server.worker_pool import WorkerPool

    if args.workers < 1:
        raise UsageError("There must be a worker", expected="1 or more", received=args.workers)
    # Said once, and not by each worker.
    _checked(args)
    host = args.host or "127.0.0.1"
    with reserve_port(host, args.port) as held:
        words = [str(args.models), "--worker", "--host", host]
        words += ["--port", str(held.getsockname()[1]), *_given(args)]
        if args.name:
            words += ["--name", args.name]
        with WorkerPool([sys.executable, "-m", "cnnkit", "serve", *words], args.workers) as workers:
            line = workers.start(stopped)
            if line is not None:
                print(line.replace(" (", f" in {args.workers} processes ("), flush=True)
            while not stopped():
                workers.replace_exited()
                time.sleep(_POLL)
            workers.stop(5.0 + (10.0 if args.grace is None else args.grace))


def _given(args: argparse.Namespace) -> list[str]:
    """Returns the embedded server's options as they were given."""
    words: list[str] = []
    for flag in _OPTIONS:
        value = getattr(args, flag.removeprefix("--").replace("-", "_"))
        if value is not None:
            words += [flag, str(value)]
    return words


def _name(args: argparse.Namespace) -> str:
    return args.name or args.models.resolve().name


def _limits(args: argparse.Namespace) -> ServerLimits:
    from cnnkit.server import ServerLimits

    given = {
        field: getattr(args, option) * factor
        for option, (field, factor) in _LIMITS.items()
        if getattr(args, option) is not None
    }
    return ServerLimits(**given)


def _credentials(args: argparse.Namespace) -> grpc.ServerCredentials | None:
    from cnnkit.errors import UsageError

    files = (args.tls_cert, args.tls_key)
    if files == (None, None) and args.tls_client_ca is None:
        return None
    if None in files:
        raise UsageError("TLS needs a certificate and its key", expected="--tls-cert and --tls-key")
    from cnnkit.server.listen import server_credentials

    return server_credentials(args.tls_cert, args.tls_key, args.tls_client_ca)


def _labels(text: str | None) -> dict[str, int]:
    from cnnkit.errors import UsageError

    labels = {}
    for pair in text.split(",") if text else []:
        label, _, version = pair.partition("=")
        if not label or not version.isdecimal():
            raise UsageError("This is no label", expected="LABEL=VERSION", received=pair)
        labels[label] = int(version)
    return labels


def _check_models_config(args: argparse.Namespace) -> None:
    from cnnkit.errors import UsageError

    for option in ("name", "versions", "labels"):
        if getattr(args, option) is not None:
            raise UsageError(
                "The file of models says this itself", received=f"--{option} and {args.models}"
            )


def _served(repository: ModelRepository) -> str:
    served = []
    for config in repository.configs:
        numbers = repository.versions(config.name)
        many = "s" if len(numbers) > 1 else ""
        served.append(f"{config.name} version{many} {', '.join(map(str, numbers))}")
    return f"serving {'; '.join(served)}"


def _log_changes() -> None:
    """Says on standard error which versions come and go from now on."""
    import logging

    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("cnnkit.server").setLevel(logging.INFO)


def _more_files() -> None:
    """Lets this process have as many connections as it may."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _ended(stream: Any) -> bool:
    return bool(select.select([stream], [], [], 0)[0]) and not stream.read(1)


@contextlib.contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Makes SIGINT and SIGTERM ask for the end instead of ending this process at once."""
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
