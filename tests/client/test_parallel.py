"""Large batches in several requests: how many at once, and the effect of one failure."""

import threading
import time

import grpc
import numpy as np
import pytest

from cnnkit.client import Client, DeadlineExceeded, InvalidRequest
from cnnkit.client.flow import Gather, Sleep
from cnnkit.client.parallel import run_parallel
from cnnkit.errors import UsageError
from tests.helpers.fake_servers import Doubling, fake_server


def test_a_batch_in_parts_some_at_once(rng):
    x = rng.normal(size=(103, 2)).astype(np.float32)
    model = Doubling(lambda number, context: time.sleep(0.02))
    with fake_server(model) as address, Client(address, concurrency=3) as client:
        answered = client.predict(x, model="m", batch_size=10)["y"]
        np.testing.assert_array_equal(answered, 2 * x)
        assert sorted(model.rows) == [3, *[10] * 10]
        assert model.most_at_once == 3
        model.rows.clear()
        np.testing.assert_array_equal(client.predict(x, model="m")["y"], 2 * x)
        assert sorted(model.rows) == [7, 32, 32, 32]
        with pytest.raises(UsageError, match="batch_size >= 1"):
            client.predict(x, model="m", batch_size=0)
    for name in ("max_attempts", "concurrency"):
        with pytest.raises(UsageError, match=f"`{name}` must be positive"):
            Client("localhost:1", **{name: 0})


def test_parts_of_a_busy_server_are_sent_again(rng):
    x = rng.normal(size=(12, 2)).astype(np.float32)

    def before(number, context):
        if number % 3 == 0:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")

    model = Doubling(before)
    with fake_server(model) as address, Client(address, max_attempts=9) as client:
        np.testing.assert_array_equal(client.predict(x, model="m", batch_size=1)["y"], 2 * x)
    assert model.predicts > 12


def test_one_failed_part_ends_the_others():
    release, canceled, four = threading.Event(), [], threading.Event()

    def before(number, context):
        if number == 4:
            four.set()
        if number == 3:
            four.wait(10)
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this one")
        context.add_callback(lambda: canceled.append(number))
        release.wait(20)

    model = Doubling(before)
    with fake_server(model) as address, Client(address, timeout=20) as client:
        begun = time.monotonic()
        with pytest.raises(InvalidRequest, match="this one"):
            client.predict(np.zeros((50, 2)), model="m", batch_size=1)
        assert time.monotonic() - begun < 15
        # The other three that were in flight are canceled, the rest was never sent.
        for _ in range(100):
            if len(canceled) == 3:
                break
            time.sleep(0.05)
        release.set()
        assert len(canceled) == 3
        assert model.predicts == 4


def test_all_parts_share_one_deadline():
    model = Doubling(lambda number, context: time.sleep(0.15))
    with fake_server(model) as address, Client(address, concurrency=1) as client:
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"did not answer within 0.5 s"):
            client.predict(np.zeros((100, 2)), model="m", batch_size=1, timeout=0.5)
        assert time.monotonic() - begun < 10
        assert model.predicts < 10


def test_one_answer_is_not_made_of_two_versions():
    """While a batch is on its way, the newest version changes from 1 to 2."""
    model = Doubling()

    def answer(path, request, context):
        model.version = 2 if model.predicts >= 3 else 1
        return model(path, request, context)

    x = np.arange(16, dtype=np.float32).reshape(8, 2)
    with fake_server(answer) as address, Client(address, concurrency=1) as client:
        np.testing.assert_array_equal(client.predict(x, model="m", batch_size=1)["y"], 2 * x)
    # The first three were asked of version 2 again.
    assert model.predicts == 8 + 3


def test_sleeping_flows_keep_their_order_and_do_not_nest():
    def wait(seconds):
        begun = time.monotonic()
        yield Sleep(seconds)
        assert time.monotonic() - begun >= seconds
        return seconds

    delays = [0.03, 0.01, 0.02, 0.0]
    assert run_parallel(Gather(map(wait, delays), 2), None, None) == delays

    def nested():
        yield Gather([], 1)

    with pytest.raises(TypeError, match="nested flows are not supported"):
        run_parallel(Gather([nested()], 1), None, None)
