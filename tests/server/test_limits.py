"""Requests above the limits are refused, and the others are answered."""

import asyncio

import numpy as np
import pytest

from cnnkit.client import Client
from cnnkit.errors import UsageError
from cnnkit.server import ServerLimits, predict
from cnnkit.server.limits import ConcurrencyLimiter
from cnnkit.server.status_error import StatusError
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from tests.helpers.held_server import error_of, gray_image, probabilities_of, request, send, served
from tests.helpers.serving import expected_probabilities


def test_too_many_requests_are_refused_and_the_others_answered(colors_folder, gate):
    with served(colors_folder, gate, threads=1, max_concurrent_requests=3) as (_, channel):
        taken = [send(channel, gray_image(1))]
        assert gate.arrived.acquire(timeout=30)
        taken += [send(channel, gray_image(value)) for value in (2, 3)]
        gate.wait_until_scheduled(3)
        for _ in range(20):
            assert error_of(send(channel, gray_image(4))) == (
                "RESOURCE_EXHAUSTED",
                "Server Threadpool Exhausted",
            )
        gate.open.set()
        for value, call in zip((1, 2, 3), taken, strict=True):
            np.testing.assert_allclose(
                probabilities_of(call), expected_probabilities(gray_image(value), 64), atol=1e-6
            )
        assert probabilities_of(send(channel, gray_image(4))).shape == (1, 4)


def test_a_request_that_is_too_large_is_refused(colors_folder):
    with served(colors_folder, max_request_bytes=10_000) as (_, channel):
        code, text = error_of(send(channel, gray_image(0, rows=20)))
        assert code == "RESOURCE_EXHAUSTED"
        assert "larger than max" in text
        # A short message of a large tensor.
        message = pb.PredictRequest.FromString(request(gray_image(0)))
        tensor = message.inputs["images"]
        tensor.ClearField("tensor_content")
        tensor.float_val.append(1)
        tensor.tensor_shape.dim[0].size = 20
        call = channel.unary_unary(methods.PREDICT).future(message.SerializeToString(), timeout=30)
        code, text = error_of(call)
        assert code == "INVALID_ARGUMENT"
        assert text.splitlines()[0] == "tensor parsing error: images"
        assert probabilities_of(send(channel, gray_image(0, rows=5))).shape == (5, 4)


def test_a_batch_that_is_too_large_is_refused(colors_folder):
    text = "Task size 9 is larger than maximum input batch size 8"
    for window in (0, 0.01):
        with served(colors_folder, max_request_rows=8, batch_timeout_seconds=window) as (
            _,
            channel,
        ):
            assert error_of(send(channel, gray_image(0, rows=9))) == ("INVALID_ARGUMENT", text)
            assert probabilities_of(send(channel, gray_image(0, rows=8))).shape == (8, 4)


def test_requests_that_exceed_the_memory_are_refused_until_others_end(colors_folder, gate):
    images = gray_image(1, rows=100)
    limits = {"max_request_bytes": 100_000, "max_memory_bytes": 200_000}
    assert 2 * images.nbytes < limits["max_memory_bytes"] < 3 * images.nbytes
    with served(colors_folder, gate, threads=1, **limits) as (_, channel):
        running = send(channel, images)
        assert gate.arrived.acquire(timeout=30)
        for _ in range(3):
            assert error_of(send(channel, images)) == (
                "RESOURCE_EXHAUSTED",
                "Server memory for requests is full",
            )
        gate.open.set()
        assert probabilities_of(running).shape == (100, 4)
        assert probabilities_of(send(channel, images)).shape == (100, 4)


def test_tensors_for_a_model_that_does_not_exist_are_not_decoded(colors_folder, monkeypatch):
    def fail(*args, **options):
        raise AssertionError("decoded")

    monkeypatch.setattr(predict, "decode_tensor_bytes", fail)
    message = pb.PredictRequest.FromString(request(gray_image(0)))
    message.model_spec.name = "nope"
    with served(colors_folder) as (_, channel):
        call = channel.unary_unary(methods.PREDICT).future(message.SerializeToString(), timeout=30)
        assert error_of(call) == ("NOT_FOUND", "Servable not found for request: Latest(nope)")


def test_status_is_answered_while_graphs_run(colors_folder, gate):
    with (
        served(colors_folder, gate, threads=1) as (server, channel),
        Client(server.address, timeout=10) as client,
    ):
        running = send(channel, gray_image(1))
        assert gate.arrived.acquire(timeout=30)
        assert client.status("colors")[0].state == "AVAILABLE"
        assert not running.done()
        gate.open.set()
        running.result()


def test_a_server_that_stops_refuses_calls_with_a_status_that_clients_repeat():
    async def read():
        return b"request"

    async def admit():
        limiter = ConcurrencyLimiter(ServerLimits())
        async with limiter.admit("peer", read) as request:
            assert request.take() == b"request"
            limiter.refuse_new()
            async with limiter.admit("peer", read):
                pass

    with pytest.raises(StatusError, match="The server is stopping") as caught:
        asyncio.run(admit())
    assert caught.value.code.name == "UNAVAILABLE"


def test_each_limit_is_kept_to_the_last_request():
    """One request runs, one is being received: a third one is refused, and then a second one."""

    async def read():
        return b"request"

    async def never():
        await asyncio.Event().wait()

    async def admit(limiter, read=read):
        async with limiter.admit("peer", read) as request:
            return request.size

    async def run():
        limiter = ConcurrencyLimiter(ServerLimits(max_open_requests=2, max_concurrent_requests=1))
        received = asyncio.create_task(admit(limiter, never))
        await asyncio.sleep(0)
        assert await admit(limiter) == 7
        async with limiter.admit("peer", read):
            for _ in range(2):
                with pytest.raises(StatusError, match="^Server Threadpool Exhausted$"):
                    await admit(limiter)
            waits = asyncio.create_task(limiter.wait_until_idle(30))
            await limiter.wait_until_idle(0.001)
        assert not waits.done() and not limiter.ended
        limiter.end()
        with pytest.raises(asyncio.CancelledError):
            await received
        await waits
        assert limiter.ended and not limiter.stopping
        assert await admit(limiter) == 7

    asyncio.run(run())


def test_the_documented_limits():
    """Those of docs/guide, the help and the reference."""
    assert vars(ServerLimits(threads=3)) == {
        "threads": 3,
        "max_concurrent_requests": 128,
        "max_open_requests": 2000,
        "max_request_bytes": 256 * 2**20,
        "max_memory_bytes": 1024 * 2**20,
        "receive_timeout_seconds": 60,
        "max_request_rows": 256,
        "max_request_pixels": 10**9,
        "batch_timeout_seconds": 0,
        "max_batch_rows": 32,
        "max_enqueued_batches": 16,
        "max_models": 32,
        "stuck_seconds": 300,
    }
    largest = {"max_memory_bytes": 2**63 - 1, "max_request_pixels": 2**63 - 1}
    assert vars(ServerLimits(**largest)) | largest == vars(ServerLimits(**largest))
    assert ServerLimits(max_request_bytes=100, max_memory_bytes=200).max_memory_bytes == 200
    assert ServerLimits(max_request_bytes=2**31 - 1, max_memory_bytes=2**32).max_request_rows == 256


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"threads": 0}, "`threads` must be in 1..2147483647. Expected: >= 1. Received: 0."),
        ({"batch_timeout_seconds": -1}, "Expected: >= 0."),
        ({"batch_timeout_seconds": float("nan")}, "Expected: >= 0."),
        ({"max_request_bytes": 2**31}, "max_request_bytes"),
        ({"max_open_requests": 0}, "`max_open_requests` must be in 1..2147483647."),
        ({"max_memory_bytes": 2**63}, f"`max_memory_bytes` must be in 1..{2**63 - 1}."),
        ({"max_request_pixels": 2**63}, f"`max_request_pixels` must be in 1..{2**63 - 1}."),
        (
            {"max_request_bytes": 100, "max_memory_bytes": 199},
            "Expected: >= 200, twice `max_request_bytes`. Received: 199.",
        ),
        ({"max_memory_bytes": 2**28}, "`max_memory_bytes` must hold the message and the tensor"),
    ],
)
def test_invalid_limits(limits, text):
    with pytest.raises(UsageError) as caught:
        ServerLimits(**limits)
    assert text in str(caught.value)
