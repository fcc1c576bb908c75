"""Run TensorFlow Serving's model server."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path

from cnnkit.cli.console import print_line
from cnnkit.client import Client, ServerError
from cnnkit.errors import RunError
from cnnkit.server import ModelServerProcess
from cnnkit.server.version_folders import version_folders

# Time between two checks for a signal or the end of the child.
_CHECK_SECONDS = 0.1
_START_TIMEOUT_SECONDS = 300.0


def serve_with_tf_serving(
    binary: Path, folder: Path, name: str, port: int, stop_requested: Callable[[], bool]
) -> None:
    """Run `tensorflow_model_server` until `stop_requested` returns True.

    Args:
        binary: The program.
        folder: The model's folder, NAME/ with its integer versions.
        name: The name to serve the model under.
        port: The port; 0 picks a free one.
        stop_requested: A function that returns whether to stop.

    Raises:
        UsageError: If the folder holds no model.
        RunError: If the program ended, or was not ready in time.
    """
    version_folders(folder)
    port = port or _free_port()
    with ModelServerProcess(binary, name, folder, port) as server:
        version = _ready_version(server, f"localhost:{port}", name, stop_requested)
        if version is not None:
            print_line(
                f"serving {name} version {version} at 0.0.0.0:{port} with {binary}, which listens "
                "on every network interface (Ctrl-C stops)"
            )
        while not stop_requested():
            server.check_running()
            time.sleep(_CHECK_SECONDS)


def _ready_version(
    server: ModelServerProcess, address: str, name: str, stop_requested: Callable[[], bool]
) -> int | None:
    """Wait for a version that can be used and return it; None if a stop was requested first."""
    end = time.monotonic() + _START_TIMEOUT_SECONDS
    with Client(address, timeout=1.0) as client:
        while not stop_requested():
            server.check_running()
            with contextlib.suppress(ServerError):
                for status in client.status(name):
                    if status.state == "AVAILABLE":
                        return status.version
            if time.monotonic() > end:
                raise RunError(
                    f"tensorflow_model_server was not ready within {_START_TIMEOUT_SECONDS:g} s",
                    hint="Its log above says why",
                )
            time.sleep(_CHECK_SECONDS)
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
