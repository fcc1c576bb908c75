"""The health service, of the server and of each model."""

import asyncio
from types import SimpleNamespace

import grpc
from grpc_health.v1 import health_pb2

from cnnkit.server.health import HealthServicer


def test_health_of_a_model_follows_its_versions():
    """Those who watch a model are told; a model that is no longer served is unknown."""
    status = health_pb2.HealthCheckResponse
    models = {"a": [1], "b": []}
    repository = SimpleNamespace(versions=lambda name: models.get(name, []))
    servicer = HealthServicer(repository)

    def configure():
        repository.configs = [SimpleNamespace(name=name) for name in models]

    async def check(name):
        context = SimpleNamespace(set_code=codes.append, set_details=lambda text: None)
        answer = await servicer.Check(health_pb2.HealthCheckRequest(service=name), context)
        return None if answer is None else answer.status

    async def follow():
        await servicer.update()
        assert not servicer.is_ready()
        assert [await check(name) for name in "abc"] == [status.SERVING, status.NOT_SERVING, None]
        watched = asyncio.Queue()
        context = SimpleNamespace(write=watched.put)
        request = health_pb2.HealthCheckRequest(service="b")
        task = asyncio.create_task(servicer.Watch(request, context))
        seen = [(await watched.get()).status]
        models["b"] = [4]
        assert servicer.is_ready()
        await servicer.update()
        seen.append((await watched.get()).status)
        del models["b"]
        configure()
        assert await check("b") is None
        seen.append((await watched.get()).status)
        task.cancel()
        await servicer.enter_graceful_shutdown()
        assert await check("a") == status.NOT_SERVING
        return seen

    codes = []
    configure()
    seen = asyncio.run(follow())
    assert seen == [status.NOT_SERVING, status.SERVING, status.SERVICE_UNKNOWN]
    assert codes == [grpc.StatusCode.NOT_FOUND] * 2
