"""The asyncio client: answers and errors as of the one that waits, and what only it can do."""

import asyncio
import inspect
import threading
import time

import grpc
import numpy as np
import pytest

from cnnkit.client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    ServerBusy,
    ServerError,
    ServerUnreachable,
)
from cnnkit.errors import UsageError
from tests.helpers.fake_servers import Doubling, fake_server

X = np.arange(40, dtype=np.float32).reshape(20, 2)


def run(address, use, **options):
    async def main():
        async with AsyncClient(address, **options) as client:
            return await use(client)

    return asyncio.run(main())


def public(kind):
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


def test_both_have_the_same_methods_with_the_same_arguments():
    ours, theirs = public(AsyncClient), public(Client)
    assert set(ours) == set(theirs)
    for name, method in ours.items():
        assert inspect.iscoroutinefunction(method)
        assert inspect.signature(method) == inspect.signature(theirs[name]), name
        if name != "close":
            assert method.__doc__ == f"See `Client.{name}`."


def test_calls_at_the_same_time():
    model = Doubling(lambda number, context: time.sleep(0.05))

    async def use(client):
        await client.wait_until_ready("m")
        return await asyncio.gather(*(client.predict(X + i, model="m") for i in range(5)))

    with fake_server(model) as address:
        answers = run(address, use)
    for i, answer in enumerate(answers):
        np.testing.assert_array_equal(answer["y"], 2 * (X + i))
    assert model.most_at_once > 1


def test_a_batch_in_parts_some_at_once():
    model = Doubling(lambda number, context: time.sleep(0.02))
    with fake_server(model) as address:
        answer = run(address, lambda c: c.predict(X, model="m", batch_size=3), concurrency=2)
    np.testing.assert_array_equal(answer["y"], 2 * X)
    assert sorted(model.rows) == [2, *[3] * 6]
    assert model.most_at_once == 2


def test_headers():
    model = Doubling()

    async def use(client):
        return await client.predict(X, model="m")

    with fake_server(model) as address:
        run(address, use, metadata={"x-tenant": "zoo"}, token="hush")
    assert (model.headers["x-tenant"], model.headers["authorization"]) == ("zoo", "Bearer hush")


def test_status_metadata_and_models():
    async def use(client):
        return (
            await client.status("m"),
            await client.metadata("m"),
            await client.models(["m", "n"]),
        )

    def answer(path, request, context):
        if request[-1:] == b"n":
            context.abort(grpc.StatusCode.NOT_FOUND, "Could not find any versions of model n")
        return Doubling()(path, request, context)

    with fake_server(answer) as address:
        ours = run(address, use)
        with Client(address) as client:
            theirs = client.status("m"), client.metadata("m"), client.models(["m", "n"])
    assert ours == theirs
    assert [len(found) for found in ours[2].values()] == [1, 0]


def refusing(code, details, times=10**9):
    def before(number, context):
        if number <= times:
            context.abort(grpc.StatusCode[code], details)

    return before


@pytest.mark.parametrize(
    ("code", "details", "times", "predicts"),
    [
        ("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted", 2, 3),
        ("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted", 99, 4),
        ("UNAVAILABLE", "Socket closed", 99, 1),
        ("NOT_FOUND", "Servable not found for request: Latest(m)", 99, 1),
        ("INVALID_ARGUMENT", "x", 99, 1),
    ],
)
def test_failures_are_those_of_the_other_client(code, details, times, predicts):
    told = []
    for ask in (
        lambda address: run(address, lambda client: client.predict(X, model="m")),
        lambda address: Client(address).predict(X, model="m"),
    ):
        model = Doubling(refusing(code, details, times))
        with fake_server(model, port=told[0][3] if told else 0) as address:
            try:
                np.testing.assert_array_equal(ask(address)["y"], 2 * X)
                told.append((None, "", "", int(address.rpartition(":")[2])))
            except ServerError as error:
                told.append((type(error), error.code, str(error), int(address.rpartition(":")[2])))
        assert model.predicts == predicts
    assert told[0] == told[1]
    assert (told[0][0] is None) == (times == 2)


def test_wrong_inputs_are_refused_before_they_are_sent():
    model = Doubling()
    with fake_server(model) as address, pytest.raises(UsageError, match="wrong shape"):
        run(address, lambda client: client.predict(np.zeros((1, 3)), model="m"))
    assert model.predicts == 0


def test_nobody_there_and_closed():
    with pytest.raises(ServerUnreachable, match="Start one with"):
        run("localhost:1", lambda client: client.status("m"))

    async def use(client):
        await client.close()
        await client.status("m")

    with pytest.raises(UsageError, match="This client of localhost:1 is closed"):
        run("localhost:1", use)


def test_a_call_without_an_answer():
    release = threading.Event()
    model = Doubling(lambda number, context: release.wait(10))
    with fake_server(model) as address, pytest.raises(DeadlineExceeded, match=r"within 0.3 s"):
        run(address, lambda client: client.predict(X, model="m", timeout=0.3))
    release.set()


def test_a_canceled_task_cancels_its_calls():
    gone, release = threading.Event(), threading.Event()

    def before(number, context):
        context.add_callback(gone.set)
        release.wait(10)

    model = Doubling(before)

    async def use(client):
        task = asyncio.create_task(client.predict(X, model="m", timeout=30))
        while not model.predicts:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await asyncio.to_thread(gone.wait, 10)

    with fake_server(model) as address:
        assert run(address, use)
        release.set()


def test_a_client_that_is_closed_during_a_call():
    release = threading.Event()
    model = Doubling(lambda number, context: release.wait(10))

    async def use(client):
        task = asyncio.create_task(client.predict(X, model="m", timeout=30))
        while not model.predicts:
            await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(ServerError, match="closed during the call") as caught:
            await task
        return caught.value.code

    with fake_server(model) as address:
        assert run(address, use) == "CANCELLED"
        release.set()


def test_one_failed_part_ends_the_others():
    release, four, canceled = threading.Event(), threading.Event(), []

    def before(number, context):
        if number == 4:
            four.set()
        if number == 3:
            four.wait(10)
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this one")
        context.add_callback(lambda: canceled.append(number))
        release.wait(20)

    model = Doubling(before)
    with fake_server(model) as address:
        with pytest.raises(InvalidRequest, match="this one"):
            run(address, lambda client: client.predict(X, model="m", batch_size=1))
        for _ in range(100):
            if len(canceled) == 3:
                break
            time.sleep(0.05)
        release.set()
    assert len(canceled) == 3
    assert model.predicts == 4


def test_two_failures_at_once_are_told_as_one():
    def before(number, context):
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")

    with fake_server(Doubling(before)) as address, pytest.raises(ServerBusy):
        run(address, lambda c: c.predict(X, model="m", batch_size=1), max_attempts=1)


def test_unknown_models_list_what_there_is():
    model = Doubling(refusing("NOT_FOUND", "Servable not found for request: Specific(m, 7)"))
    with fake_server(model) as address, pytest.raises(ModelNotFound, match="are available: 1"):
        run(address, lambda client: client.predict(X, model="m", version=7))


def test_a_batch_is_split_by_the_limit_that_the_server_names():
    def before(number, context):
        if (rows := model.rows[number - 1]) > 8:
            details = f"Task size {rows} is larger than maximum input batch size 8"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, details)

    model = Doubling(before)
    x = np.arange(64, dtype=np.float32).reshape(32, 2)

    async def use(client):
        return [await client.predict(x, model="m", batch_size=16) for _ in range(2)]

    with fake_server(model) as address:
        for answer in run(address, use):
            np.testing.assert_array_equal(answer["y"], 2 * x)
    assert model.rows.count(8) == 8
