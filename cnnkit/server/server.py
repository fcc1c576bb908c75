"""Starting and stopping the embedded server."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent import futures
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health_pb2_grpc

from cnnkit.errors import CnnkitError, UsageError
from cnnkit.server.batching import BatchScheduler
from cnnkit.server.limits import ServerLimits
from cnnkit.server.listen import check_port_free, listen_error
from cnnkit.server.model_config import ModelConfig, parse_version_policy, read_models_config
from cnnkit.server.reload import apply_reload, reject_reload
from cnnkit.server.repository import ModelRepository
from cnnkit.server.servable import SavedModelServable
from cnnkit.server.service import HealthServicer, PredictionServicer
from cnnkit.server.warmup import load_and_warm_up


class Poller:
    """Calls a function every so many seconds, whatever happens in it.

    Args:
        look: The function.
        seconds: Between two calls.

    Example:
        >>> watcher = Poller(repository.refresh, 1.0)  # doctest: +SKIP
        >>> watcher.start()  # doctest: +SKIP
    """

    def __init__(self, look: Callable[[], None], seconds: float) -> None:
        self._look = look
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cnnkit-watcher", daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Looks no more; a look that is going on is not waited for."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            try:
                self._look()
            except Exception:
                # The next look may find everything well again.
                _LOG.exception("The model folders could not be looked at")


_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")


class EmbeddedServer:
    """A model server inside this process.

    Args:
        models: The folders NAME/ with their integer versions, by the name to serve them under; or
            TensorFlow Serving's `models.config`, which is read again when it changes.
        host: The network interface to listen on; by default other machines cannot reach it.
        port: The port to listen on; 0 picks a free one.
        versions: "latest", "latest:N", "all", or numbers such as "1,3"; a `models.config` says it
            itself.
        labels: For each model, version numbers by label.
        limits: How much is taken on at once.
        poll_seconds: Between two looks at the folders for versions that have come or gone; 0
            never looks again.
        credentials: TLS, from `server_credentials`; None listens without.
        reuse_port: Let other processes of this user listen on the same port. Each has models of
            its own, so that HandleReloadConfigRequest, which reaches one of them, is refused.
        load: Makes a servable of (name, version, folder).

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
        models: Mapping[str, Path] | Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        versions: str = "latest",
        labels: Mapping[str, Mapping[str, int]] | None = None,
        limits: ServerLimits | None = None,
        poll_seconds: float = 1.0,
        credentials: grpc.ServerCredentials | None = None,
        reuse_port: bool = False,
        load: Callable[[str, int, Path], SavedModelServable] = load_and_warm_up,
    ) -> None:
        if not 0 <= port < 65536:
            raise UsageError("This is not a port", expected="0 to 65535", received=port)
        if not reuse_port:
            check_port_free(host, port)
        self._limits = limits or ServerLimits()
        self._file = models if isinstance(models, Path) else None
        self._file_time = _changed(self._file)
        configs = _configs(models, versions, labels or {})
        self.repository = ModelRepository(configs, load)
        # What HandleReloadConfigRequest may name: the folders given, and what lies beside the file.
        self._folders = [] if self._file is None else [self._file.parent]
        self._folders += [config.folder for config in configs]
        self._watcher = Poller(self._look, poll_seconds) if poll_seconds else None
        self._graphs = futures.ThreadPoolExecutor(self._limits.threads, "cnnkit-graph")
        self._aside = futures.ThreadPoolExecutor(4, "cnnkit-messages")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="cnnkit-server", daemon=True
        )
        self._thread.start()
        try:
            self.address = self._await(self._open(host, port, credentials, reuse_port))
        except BaseException:
            self._end()
            raise

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
        """Begins to answer, and to look for new versions."""
        self._await(self._server.start())
        if self._watcher is not None:
            self._watcher.start()

    def stop(self, grace: float = 10.0) -> None:
        """Takes no new requests, waits for those in flight, and frees the port.

        Args:
            grace: Seconds that they may still take.
        """
        if self._loop.is_closed():
            return
        if self._watcher is not None:
            self._watcher.stop()
        self._await(self._close(grace))
        self._end()

    async def _open(
        self,
        host: str,
        port: int,
        credentials: grpc.ServerCredentials | None,
        reuse_port: bool,
    ) -> str:
        limits = self._limits
        self._server = grpc.aio.server(
            options=[
                # Else a second server could take the same port, and the requests go to either.
                ("grpc.so_reuseport", int(reuse_port)),
                ("grpc.max_receive_message_length", limits.request_bytes),
                ("grpc.max_send_message_length", -1),
            ],
        )
        runner = BatchScheduler(
            self._graphs,
            limits.threads,
            window=limits.window_seconds,
            size=min(limits.joined_rows, limits.batch_rows),
            queue=limits.queued_batches,
        )
        answer = partial(apply_reload, repository=self.repository, folders=self._folders)
        if reuse_port:
            answer = reject_reload
        service = PredictionServicer(self.repository, limits, runner, self._aside, answer)
        self._server.add_generic_rpc_handlers(service.handlers())
        self._health = HealthServicer()
        await self._health.begin()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        name = f"[{host}]" if ":" in host else host
        try:
            if credentials is None:
                bound = self._server.add_insecure_port(f"{name}:{port}")
            else:
                bound = self._server.add_secure_port(f"{name}:{port}", credentials)
        except RuntimeError as error:
            raise listen_error(host, port, "no reason given") from error
        return f"{name}:{bound}"

    async def _close(self, grace: float) -> None:
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)

    def _look(self) -> None:
        """Looks once at the file of models and at the folders."""
        if self._file is not None and _changed(self._file) not in (None, self._file_time):
            self._file_time = _changed(self._file)
            try:
                self.repository.replace(read_models_config(self._file))
            except CnnkitError as error:
                _LOG.warning("The models stay as they are: %s", error)
        self.repository.refresh()

    def _await(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._graphs.shutdown(wait=False, cancel_futures=True)
        self._aside.shutdown(wait=False, cancel_futures=True)


def _configs(
    models: Mapping[str, Path] | Path, versions: str, labels: Mapping[str, Mapping[str, int]]
) -> list[ModelConfig]:
    if isinstance(models, Path):
        return read_models_config(models)
    policy = parse_version_policy(versions)
    for name in labels:
        if name not in models:
            raise UsageError(
                "A label is for a model that is not served",
                expected=f"one of {', '.join(models)}",
                received=name,
            )
    return [
        ModelConfig(name, Path(folder), policy, dict(labels.get(name, {})))
        for name, folder in models.items()
    ]


def _changed(file: Path | None) -> int | None:
    try:
        return None if file is None else file.stat().st_mtime_ns
    except OSError:
        # Gone, or on its way: what is served stays.
        return None
