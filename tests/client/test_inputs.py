"""Large batches in parts: how they are cut, how many at once, what one failure does."""

import threading
import time

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnkit.client import Client, DeadlineExceeded, InvalidRequest, Signature, TensorSpec
from cnnkit.client.inputs import concat_batches, split_batch
from cnnkit.errors import UsageError
from tests.helpers.fake_servers import Doubling, fake_server

OPEN = TensorSpec("float32", (None, 3))


@given(rows=st.integers(1, 40), size=st.integers(1, 45), inputs=st.integers(1, 3))
def test_parts_make_the_whole(rows, size, inputs):
    names = "abc"[:inputs]
    whole = {name: np.arange(3.0 * rows).reshape(rows, 3) + i for i, name in enumerate(names)}
    signature = Signature(dict.fromkeys(names, OPEN), {"y": OPEN})
    parts = split_batch(whole, signature, size)
    assert all(1 <= len(array) <= size for part in parts for array in part.values())
    assert len(parts) == -(-rows // size)
    for name, array in concat_batches(parts).items():
        np.testing.assert_array_equal(array, whole[name])


def test_what_cannot_be_parted_is_sent_whole():
    fixed, scalar = TensorSpec("float32", (3,)), TensorSpec("float32", ())
    x = np.zeros((100, 3), np.float32)
    for signature, inputs in (
        (Signature({"a": OPEN}, {"y": scalar}), {"a": x}),
        (Signature({"a": OPEN}, {"y": fixed}), {"a": x}),
        (Signature({"a": OPEN}, {"y": TensorSpec("float32", None)}), {"a": x}),
        (Signature({"a": OPEN, "b": scalar}, {"y": OPEN}), {"a": x, "b": np.float32(1)}),
        (Signature({"a": OPEN, "b": OPEN}, {"y": OPEN}), {"a": x, "b": x[:50]}),
    ):
        assert split_batch(inputs, signature, None) == [inputs]
        with pytest.raises(UsageError, match="cannot be sent in parts"):
            split_batch(inputs, signature, 10)


def test_a_request_stays_below_the_limit_of_messages(monkeypatch):
    monkeypatch.setattr("cnnkit.client.inputs.LARGEST_REQUEST", 100)
    parts = split_batch({"a": np.zeros((20, 3), np.float32)}, Signature({"a": OPEN}, {}), None)
    assert [len(part["a"]) for part in parts] == [8, 8, 4]
    strings = np.array([b"x" * 30] * 7, object)
    spec = TensorSpec("string", (None,))
    parts = split_batch({"a": strings}, Signature({"a": spec}, {}), None)
    assert [len(part["a"]) for part in parts] == [3, 3, 1]
    # A row that is too large by itself is left to the server.
    parts = split_batch({"a": np.array([b"x" * 300] * 2, object)}, Signature({"a": spec}, {}), None)
    assert [len(part["a"]) for part in parts] == [1, 1]


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
        assert sorted(model.rows) == [39, 64]
        with pytest.raises(UsageError, match="batch_size >= 1"):
            client.predict(x, model="m", batch_size=0)
    for name in ("attempts", "concurrency"):
        with pytest.raises(UsageError, match=f"{name} is too small"):
            Client("localhost:1", **{name: 0})


def test_parts_of_a_busy_server_are_sent_again(rng):
    x = rng.normal(size=(12, 2)).astype(np.float32)

    def before(number, context):
        if number % 3 == 0:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")

    model = Doubling(before)
    with fake_server(model) as address, Client(address, attempts=9) as client:
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
