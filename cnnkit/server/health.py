"""The standard gRPC health service."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from cnnkit.server.repository import ModelRepository
from cnnkit.server.watchdog import Watchdog

_LOG = logging.getLogger(__name__)
# Seconds between two looks at the watchdog.
_LOOK_SECONDS = 1.0


class HealthServicer(health.aio.HealthServicer):
    """The standard health service, of the server and of each model by its name.

    A model is SERVING while one of its versions can be called; GetModelStatus tells more. While the
    graphs hang, nothing is.

    Args:
        repository: The models.
        watchdog: Tells that graphs hang; None for a server that does not ask.
    """

    SERVICES = ("PredictionService", "ModelService")

    def __init__(self, repository: ModelRepository, watchdog: Watchdog | None = None) -> None:
        super().__init__()
        self._repository = repository
        self._watchdog = watchdog or Watchdog(0)
        self._models: set[str] = set()
        self._following: asyncio.Task[None] | None = None

    def problem(self) -> str | None:
        """Returns why the server must be restarted, as text; None if it need not."""
        return self._watchdog.problem()

    def is_live(self) -> bool:
        """Returns True if the server need not be restarted."""
        return self.problem() is None

    def is_ready(self) -> bool:
        """Returns True if the server is live, and every model has a version that can be called."""
        return self.is_live() and all(
            self._repository.versions(config.name) for config in self._repository.configs
        )

    async def start(self) -> None:
        """Begins to log when the graphs hang, and to tell those who watch."""
        self._following = asyncio.create_task(self._follow())

    async def enter_graceful_shutdown(self) -> None:
        """Sets the status of every service to NOT_SERVING for good."""
        if self._following is not None:
            self._following.cancel()
        await super().enter_graceful_shutdown()

    async def _follow(self) -> None:
        logged = False
        while True:
            problem = self.problem()
            if (problem is not None) != logged:
                logged = not logged
                if problem is not None:
                    _LOG.error("%s: the server is not live until one ends", problem)
                else:
                    _LOG.warning("A graph has ended: the server is live again")
                await self.update()
            await asyncio.sleep(_LOOK_SECONDS)

    async def wait_until_live(self) -> None:
        """Waits until the server need not be restarted."""
        while not self.is_live():
            await asyncio.sleep(_LOOK_SECONDS)

    async def update(self) -> None:
        """Sets the status of each service and model, which those who watch it are told."""
        status, is_live = health_pb2.HealthCheckResponse, self.is_live()
        names = {config.name for config in self._repository.configs} - {*self.SERVICES, ""}
        served = dict.fromkeys(("", *self.SERVICES), is_live)
        served |= {name: is_live and bool(self._repository.versions(name)) for name in names}
        for name, is_served in served.items():
            await self.set(name, status.SERVING if is_served else status.NOT_SERVING)
        for name in self._models - names:
            await self.set(name, status.SERVICE_UNKNOWN)
        self._models = names

    async def Check(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse | None:
        """Returns the status of a service or of a model; NOT_FOUND for an unknown one."""
        await self.update()
        if request.service not in {"", *self.SERVICES, *self._models}:
            # Not `abort`: see CallHandler.
            context.set_code(grpc.StatusCode.NOT_FOUND)
            context.set_details("service name unknown")
            return None
        return await super().Check(request, context)
