"""TensorFlow Serving's own program, run by `cnnkit serve`."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path

from cnnkit.client import Client, ServerError
from cnnkit.errors import RunError
from cnnkit.server import ModelServerProcess
from cnnkit.server.version_folders import version_folders

# Between two looks for a signal or the end of the child, in seconds.
_POLL = 0.1
_START_TIMEOUT = 300.0


def serve_with_tf_serving(
    binary: Path, folder: Path, name: str, port: int, stopped: Callable[[], bool]
) -> None:
    """Runs it until the end is asked for.

    Args:
        binary: The program.
        folder: NAME/ with its integer versions.
        name: The name to serve under.
        port: The port; 0 picks a free one.
        stopped: Whether the end was asked for.

    Raises:
        UsageError: The folder holds no model.
        RunError: The program ended, or was not ready in time.
    """
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
            server.check_running()
            time.sleep(_POLL)


def _ready_version(
    server: ModelServerProcess, address: str, name: str, stopped: Callable[[], bool]
) -> int | None:
    """Returns the version that can be used, None where the end was asked for before that."""
    end = time.monotonic() + _START_TIMEOUT
    with Client(address, timeout=1.0) as client:
        while not stopped():
            server.check_running()
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
