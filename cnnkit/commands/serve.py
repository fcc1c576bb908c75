"""Serve an exported model over gRPC until it is stopped.

DIR is a model's folder, such as models/digits, with the versions in models/digits/1, 2, ...; the
newest one is served. TensorFlow Serving's tensorflow_model_server runs where it is on the PATH,
else a server of the same API inside this process.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnnkit.server import ModelServerProcess

# Between two looks for a signal or the end of the child, in seconds.
_POLL = 0.1
_START_TIMEOUT = 300.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `cnnkit serve`."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="the model's folder, NAME/")
    parser.add_argument("--port", type=int, default=8500, help="0 picks a free one (default 8500)")
    parser.add_argument(
        "--host", help="the interface to listen on (default 127.0.0.1: this machine only)"
    )
    parser.add_argument("--name", help="the name to serve under (default: the folder's name)")
    parser.add_argument(
        "--embedded",
        action="store_true",
        help="use the server inside cnnkit even where tensorflow_model_server is installed",
    )


def run(args: argparse.Namespace) -> int:
    """Serves until SIGINT or SIGTERM; returns 0."""
    from cnnkit.errors import UsageError
    from cnnkit.server import find_model_server

    name = args.name or args.folder.resolve().name
    if not 0 <= args.port < 65536:
        raise UsageError("This is not a port", expected="0 to 65535", received=args.port)
    binary = None if args.embedded else find_model_server()
    with _stop_signals() as stopped:
        if binary is None:
            _embedded(args.folder, name, args.host or "127.0.0.1", args.port, stopped)
        elif args.host not in (None, "0.0.0.0"):
            raise UsageError(
                "tensorflow_model_server listens on every interface",
                received=f"--host {args.host}",
                hint="Add --embedded for the server that can listen on one, or leave --host out",
            )
        else:
            _real(binary, args.folder, name, args.port, stopped)
    return 0


def _embedded(folder: Path, name: str, host: str, port: int, stopped: Callable[[], bool]) -> None:
    from cnnkit.commands._tensorflow import import_tensorflow
    from cnnkit.server.folders import version_folders

    version_folders(folder)
    import_tensorflow()
    from cnnkit.server import EmbeddedServer

    with EmbeddedServer({name: folder}, host=host, port=port) as server:
        version = server.repository.loaded(name)[0]
        print(f"serving {name} version {version} at {server.address} (Ctrl-C stops)", flush=True)
        while not stopped():
            time.sleep(_POLL)


def _real(binary: Path, folder: Path, name: str, port: int, stopped: Callable[[], bool]) -> None:
    from cnnkit.server import ModelServerProcess
    from cnnkit.server.folders import version_folders

    version_folders(folder)
    port = port or _free_port()
    with ModelServerProcess(binary, name, folder, port) as server:
        version = _ready_version(server, f"localhost:{port}", name, stopped)
        if version is not None:
            print(
                f"serving {name} version {version} at 0.0.0.0:{port} with {binary}, which listens "
                "on every network interface (Ctrl-C stops)",
                flush=True,
            )
        while not stopped():
            server.check()
            time.sleep(_POLL)


def _ready_version(
    server: ModelServerProcess, address: str, name: str, stopped: Callable[[], bool]
) -> int | None:
    """Returns the version that can be used, None where the end was asked for before that."""
    from cnnkit.client import Client, ServerError
    from cnnkit.errors import RunError

    end = time.monotonic() + _START_TIMEOUT
    with Client(address, timeout=1.0) as client:
        while not stopped():
            server.check()
            with contextlib.suppress(ServerError):
                for status in client.status(name):
                    if status.state == "AVAILABLE":
                        return status.version
            if time.monotonic() > end:
                raise RunError(
                    f"tensorflow_model_server was not ready within {_START_TIMEOUT:g} s",
                    hint="Its log above says why",
                )
            time.sleep(_POLL)
    return None


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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
