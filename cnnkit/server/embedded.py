"""Starting and stopping the embedded server."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from concurrent import futures
from pathlib import Path
from types import TracebackType

import grpc
from grpc_health.v1 import health_pb2_grpc

from cnnkit.errors import RunError, UsageError
from cnnkit.server.repository import Repository
from cnnkit.server.service import Health, handlers
from cnnkit.wire import methods


class EmbeddedServer:
    """A model server inside this process.

    Args:
        models: The folders NAME/ with their integer versions, by the name to serve them under.
        host: The network interface to listen on; by default other machines cannot reach it.
        port: The port to listen on; 0 picks a free one.
        versions: "latest" serves the newest version of each model, "all" every one.
        labels: For each model, version numbers by label.
        threads: Requests handled at once; by default two for each core.

    Raises:
        UsageError: A folder holds no model, a label names no served version, or host or port
            cannot be.
        RunError: The port is in use, or a model cannot be loaded.

    Example:
        >>> with EmbeddedServer({"digits": Path("models/digits")}) as server:  # doctest: +SKIP
        ...     server.address
        '127.0.0.1:40001'
    """

    def __init__(
        self,
        models: Mapping[str, Path],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        versions: str = "latest",
        labels: Mapping[str, Mapping[str, int]] | None = None,
        threads: int | None = None,
    ) -> None:
        if not 0 <= port < 65536:
            raise UsageError("This is not a port", expected="0 to 65535", received=port)
        _check_free(host, port)
        self.repository = Repository(models, versions=versions, labels=labels)
        self._health = Health()
        self._server = grpc.server(
            futures.ThreadPoolExecutor(
                threads or 2 * (os.cpu_count() or 1), thread_name_prefix="cnnkit-server"
            ),
            # Else a second server could take the same port, and the requests go to either.
            options=[("grpc.so_reuseport", 0), *methods.UNLIMITED_MESSAGES],
        )
        self._server.add_generic_rpc_handlers(handlers(self.repository))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        name = f"[{host}]" if ":" in host else host
        try:
            bound = self._server.add_insecure_port(f"{name}:{port}")
        except RuntimeError as error:
            raise _cannot_listen(host, port, "no reason given") from error
        self.address = f"{name}:{bound}"

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begins to answer."""
        self._server.start()

    def stop(self, grace: float = 2.0) -> None:
        """Takes no new requests, and waits for those in flight.

        Args:
            grace: Seconds that they may still take.
        """
        self._health.enter_graceful_shutdown()
        self._server.stop(grace).wait()


def _check_free(host: str, port: int) -> None:
    """Tries the port before models are loaded, and to learn why it cannot be had."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # The connections of a server that has just ended do not keep its port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen()
    except OSError as error:
        raise _cannot_listen(host, port, error.strerror or str(error)) from error


def _cannot_listen(host: str, port: int, reason: str) -> RunError:
    return RunError(
        f"The server cannot listen on port {port} of {host}",
        received=reason,
        hint="Stop what uses the port, or choose another one; port 0 picks a free one",
    )
