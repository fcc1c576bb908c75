"""The standard gRPC health service."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from cnnkit.server.repository import ModelRepository


class HealthServicer(health.aio.HealthServicer):
    """The standard health service, of the server and of each model by its name.

    A model is SERVING while one of its versions can be called; GetModelStatus tells more.

    Args:
        repository: The models.
    """

    SERVICES = ("PredictionService", "ModelService")

    def __init__(self, repository: ModelRepository) -> None:
        super().__init__()
        self._repository = repository
        self._models: set[str] = set()

    def is_ready(self) -> bool:
        """Returns True if every model has a version that can be called."""
        return all(self._repository.versions(config.name) for config in self._repository.configs)

    async def set_serving(self) -> None:
        """Sets the status of every service to SERVING, and that of each model."""
        for service in self.SERVICES:
            await self.set(service, health_pb2.HealthCheckResponse.SERVING)
        await self.update()

    async def update(self) -> None:
        """Sets the status of each model, which those who watch it are told."""
        status = health_pb2.HealthCheckResponse
        names = {config.name for config in self._repository.configs} - {*self.SERVICES, ""}
        for name in names:
            is_served = bool(self._repository.versions(name))
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
