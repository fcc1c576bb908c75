"""The standard health service, with the answers of a model server."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health, health_pb2

SERVICES = ("PredictionService", "ModelService")


class Health(health.aio.HealthServicer):
    """Says that the server is up; whether a model is, GetModelStatus says."""

    async def begin(self) -> None:
        """Says so from now on."""
        for service in SERVICES:
            await self.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def Check(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthCheckResponse | None:
        """Answers whether a service is up; NOT_FOUND for one that there is not."""
        if request.service not in ("", *SERVICES):
            # Not `abort`, which leaves a cycle of objects behind: see cnnkit.server.service.
            context.set_code(grpc.StatusCode.NOT_FOUND)
            context.set_details("service name unknown")
            return None
        return await super().Check(request, context)
