"""The embedded server: loads models, listens, polls the model folders, stops."""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
import threading
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent import futures
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import grpc

from cnnkit.errors import CnnkitError, UsageError
from cnnkit.server.batching import BatchScheduler
from cnnkit.server.calls import CallHandler
from cnnkit.server.client_certificate import ClientCertificates
from cnnkit.server.health import HealthServicer
from cnnkit.server.limits import ServerLimits
from cnnkit.server.listen import check_port_free, listen_error
from cnnkit.server.load_trial import LoadTrial
from cnnkit.server.metrics import NO_METRICS, NoMetrics
from cnnkit.server.model_config import ModelConfig, parse_version_policy, read_models_config
from cnnkit.server.open_inference.grpc_service import InferenceServicer
from cnnkit.server.poller import Poller
from cnnkit.server.reload import ReloadService
from cnnkit.server.repository import ModelRepository
from cnnkit.server.rest import RestServer, check_rest_installed
from cnnkit.server.servable import SavedModelServable
from cnnkit.server.service import PredictionServicer
from cnnkit.server.tracing import ServerTracing
from cnnkit.server.unpack import NO_DECOMPRESSION
from cnnkit.server.warmup import load_and_warm_up
from cnnkit.server.watchdog import GRAPH_THREADS, Watchdog

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")

# Time in which a server that stops refuses calls before it closes the connections.
_REFUSE_SECONDS = 0.1
# Time to send the status of calls that are ended when the grace period is over.
_END_SECONDS = 1.0


class EmbeddedServer:
    """A model server inside this process.

    Args:
        models: Model folders, NAME/ with their integer versions, by the names to serve them under;
            or TensorFlow Serving's `models.config`, which is read again when it changes.
        host: The network interface to listen on; by default other machines cannot connect.
        port: The port to listen on; 0 for any free one.
        versions: "latest", "latest:N", "all", or numbers such as "1,3"; ignored with a
            `models.config`, which has policies of its own.
        version_labels: For each model, version numbers by label.
        limits: Limits of requests and threads.
        poll_seconds: Seconds between two polls of the folders for versions that have been added or
            removed; 0 for no polls.
        credentials: TLS credentials from `server_credentials`; None listens without TLS.
        client_names: Names of which a client's certificate must hold one, as common name or subject
            alternative name; None for any client that `credentials` accept.
        reuse_port: Let other processes of this user listen on the same port. Each process loads the
            models itself.
        allow_reload: Accept HandleReloadConfigRequest, which changes the served models, from this
            machine and from clients with a certificate. Not with `reuse_port`, because a request
            reaches only one of the processes.
        load: Loads a servable from (name, version, folder).
        trial: Tries to load each later version in a process of its own before this process does;
            None for no trials.
        metrics: Counts requests, batches and versions: `cnnkit.server.ServerMetrics`.
        access_log: Log one line of level INFO for each request, by the logger named
            "cnnkit.server.access"; the attribute `request` of a record holds the fields.
        tracing: Makes a span for each request: `cnnkit.server.ServerTracing`; None for none.
        rest_port: The port of the REST API; 0 for any free one, None for no REST API. It needs the
            package aiohttp.
        rest_tls: TLS settings of the REST API from `server_tls_context`; required with
            `credentials`.

    Attributes:
        address: Host and port of gRPC.
        rest_address: Host and port of the REST API; None without it.

    Raises:
        UsageError: If a folder holds no model, a label names no served version, a port is not
            in 0..65535, both ports are the same, `allow_reload` and `reuse_port` are given, the
            REST API would be served without the TLS of gRPC, or aiohttp is not installed.
        RunError: If the server cannot listen, or a model cannot be loaded.

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
        version_labels: Mapping[str, Mapping[str, int]] | None = None,
        limits: ServerLimits | None = None,
        poll_seconds: float = 1.0,
        credentials: grpc.ServerCredentials | None = None,
        client_names: Collection[str] | None = None,
        reuse_port: bool = False,
        allow_reload: bool = False,
        load: Callable[[str, int, Path], SavedModelServable] = load_and_warm_up,
        trial: LoadTrial | None = None,
        metrics: NoMetrics = NO_METRICS,
        access_log: bool = False,
        tracing: ServerTracing | None = None,
        rest_port: int | None = None,
        rest_tls: ssl.SSLContext | None = None,
    ) -> None:
        _check_ports(port, rest_port)
        if rest_port is not None:
            check_rest_installed()
            if credentials is not None and rest_tls is None:
                raise UsageError(
                    "`rest_tls` must be given with `credentials` and `rest_port`: the REST API "
                    "would be served without TLS"
                )
        if allow_reload and reuse_port:
            raise UsageError(
                "`allow_reload` must be False with `reuse_port`: a reload request reaches only one "
                "of the processes",
                hint="Change their models.config, which all of them read again",
            )
        if not reuse_port:
            check_port_free(host, port)
            if rest_port is not None:
                check_port_free(host, rest_port)
        self._limits = limits or ServerLimits()
        self._clients = ClientCertificates(client_names)
        self._config_file = models if isinstance(models, Path) else None
        self._config_time = _modification_time(self._config_file)
        configs = _model_configs(models, versions, version_labels or {})
        self._metrics = metrics
        self._access_log = access_log
        self._tracing = tracing
        self.repository = ModelRepository(configs, load, trial, metrics)
        self._count_versions()
        # Folders that HandleReloadConfigRequest may name.
        folders = [] if self._config_file is None else [self._config_file.parent]
        folders += [config.folder for config in configs]
        self._reload = ReloadService(
            self.repository,
            folders,
            allowed=allow_reload,
            max_models=self._limits.max_models,
        )
        self._poller = Poller(self._poll, poll_seconds) if poll_seconds else None
        self._graph_threads = futures.ThreadPoolExecutor(self._limits.threads, GRAPH_THREADS)
        self._message_threads = futures.ThreadPoolExecutor(4, "cnnkit-messages")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="cnnkit-server", daemon=True
        )
        self._thread.start()
        self._rest: RestServer | None = None
        try:
            self.address = self._wait(self._listen(host, port, credentials, reuse_port))
            self.rest_address: str | None = None
            if rest_port is not None:
                listening = self._listen_rest(host, rest_port, rest_tls, reuse_port)
                self.rest_address = self._wait(listening)
        except BaseException:
            self._shut_down()
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
        """Starts to accept requests and to poll the model folders."""
        self._wait(self._health.start())
        self._wait(self._server.start())
        if self._rest is not None:
            self._wait(self._rest.start())
        if self._poller is not None:
            self._poller.start()

    def ping(self) -> futures.Future[None]:
        """Returns a future that ends when this server can answer a call.

        It passes through the event loop and the threads that read messages, and waits for no graph
        unless the graphs hang.
        """

        async def pass_through() -> None:
            await self._health.wait_until_live()
            await self._loop.run_in_executor(self._message_threads, lambda: None)

        return asyncio.run_coroutine_threadsafe(pass_through(), self._loop)

    def stop(self, grace: float = 10.0) -> None:
        """Refuses new requests, waits for the running ones, and frees the port.

        Args:
            grace: Seconds until running requests are canceled.
        """
        if self._loop.is_closed():
            return
        if self._poller is not None:
            self._poller.stop()
        self._wait(self._close(grace))
        self._shut_down()

    async def _listen(
        self,
        host: str,
        port: int,
        credentials: grpc.ServerCredentials | None,
        reuse_port: bool,
    ) -> str:
        limits = self._limits
        self._server = grpc.aio.server(
            options=[
                # By default gRPC lets a second server listen on the same port.
                ("grpc.so_reuseport", int(reuse_port)),
                ("grpc.max_receive_message_length", limits.max_request_bytes),
                ("grpc.max_send_message_length", -1),
                NO_DECOMPRESSION,
            ],
        )
        watchdog = Watchdog(limits.stuck_seconds)
        scheduler = BatchScheduler(
            self._graph_threads,
            limits.threads,
            timeout=limits.batch_timeout_seconds,
            max_rows=min(limits.max_batch_rows, limits.max_request_rows),
            max_batches=limits.max_enqueued_batches,
            metrics=self._metrics,
            watchdog=watchdog,
        )
        self._calls = CallHandler(
            limits,
            self._message_threads,
            self._clients,
            self._metrics,
            access_log=self._access_log,
            tracing=self._tracing,
        )
        self._service = PredictionServicer(
            self._calls, self.repository, limits, scheduler, self._reload
        )
        self._server.add_generic_rpc_handlers(self._service.handlers())
        self._is_closing = False
        self._health = HealthServicer(self.repository, watchdog)
        await self._health.update()
        inference = InferenceServicer(self._calls, self._service, self._health, self.repository)
        self._server.add_generic_rpc_handlers(
            [self._service.health_handler(self._health), inference.handler()]
        )
        address = _address(host, port)
        try:
            if credentials is None:
                bound = self._server.add_insecure_port(address)
            else:
                bound = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise listen_error(host, port, "gRPC gives no reason") from error
        return _address(host, bound)

    async def _listen_rest(
        self, host: str, port: int, tls: ssl.SSLContext | None, reuse_port: bool
    ) -> str:
        self._rest = RestServer(
            self._calls, self._service, self._health, self.repository, self._limits
        )
        return _address(host, await self._rest.listen(host, port, tls, shared=reuse_port))

    async def _close(self, grace: float) -> None:
        self._is_closing = True
        await self._health.enter_graceful_shutdown()
        # gRPC cancels the calls that it has accepted and not yet passed on when it stops. So they
        # are passed on and refused first, with a status that clients repeat.
        limiter = self._calls.limiter
        limiter.refuse_new()
        if self._rest is not None:
            self._rest.refuse_new()
        await asyncio.sleep(min(grace, _REFUSE_SECONDS))
        # Sends GOAWAY at once: clients connect to other servers while the running calls end.
        stopped = asyncio.ensure_future(self._server.stop(grace + _END_SECONDS))
        await limiter.wait_until_idle(grace)
        limiter.end()
        if self._rest is not None:
            await self._rest.close()
        await stopped

    def _poll(self) -> None:
        """Reads a changed models.config, then refreshes the models from their folders."""
        if self._config_file is not None:
            changed = _modification_time(self._config_file)
            if changed not in (None, self._config_time):
                self._config_time = changed
                try:
                    self.repository.replace(read_models_config(self._config_file))
                except CnnkitError as error:
                    _LOG.warning("The served models do not change: %s", error)
                gc.collect()
        self.repository.refresh()
        self._count_versions()
        if not self._is_closing:
            asyncio.run_coroutine_threadsafe(self._health.update(), self._loop)

    def _count_versions(self) -> None:
        models = self.repository
        self._metrics.set_versions(
            {config.name: len(models.versions(config.name)) for config in models.configs}
        )

    def _wait(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _shut_down(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._graph_threads.shutdown(wait=False, cancel_futures=True)
        self._message_threads.shutdown(wait=False, cancel_futures=True)
        self._reload.shut_down()


def _model_configs(
    models: Mapping[str, Path] | Path,
    versions: str,
    version_labels: Mapping[str, Mapping[str, int]],
) -> list[ModelConfig]:
    if isinstance(models, Path):
        return read_models_config(models)
    policy = parse_version_policy(versions)
    for name in version_labels:
        if name not in models:
            raise UsageError(
                "`version_labels` must name models that are served",
                expected=f"one of {', '.join(models)}",
                received=name,
            )
    return [
        ModelConfig(name, Path(folder), policy, dict(version_labels.get(name, {})))
        for name, folder in models.items()
    ]


def _check_ports(port: int, rest_port: int | None) -> None:
    for name, one in (("port", port), ("rest_port", rest_port)):
        if one is not None and not 0 <= one < 65536:
            raise UsageError(f"`{name}` must be in 0..65535", received=one)
    if port == rest_port != 0:
        raise UsageError("`rest_port` must be another port than `port`", received=rest_port)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _modification_time(file: Path | None) -> int | None:
    try:
        return None if file is None else file.stat().st_mtime_ns
    except OSError:
        # The file is removed or being replaced: the served models do not change.
        return None
