"""The load test: its arithmetic and its limits."""

import threading
import time

import numpy as np
import pytest

from cnnkit.client import ServerError, Signature, TensorSpec
from cnnkit.client.load_test import LoadTestResult, random_inputs, run_load_test
from cnnkit.errors import UsageError


def test_percentiles_are_latencies_that_were_measured():
    latencies = tuple(float(n) for n in range(1, 101))
    result = LoadTestResult(latencies, {"UNAVAILABLE": 3}, 4.0, 1.0)
    # The nearest rank: the smallest latency that so many percent do not exceed.
    assert [result.percentile(percent) for percent in (50, 90, 99, 100)] == [50, 90, 99, 100]
    assert LoadTestResult(latencies[:3], {}, 1, 0).percentile(50) == 2
    assert result.requests == 103
    assert result.answers_per_second == 25
    assert LoadTestResult((), {"UNAVAILABLE": 1}, 1, 0).percentile(50) is None


def test_callers_ask_at_once_and_no_more_often_than_they_may():
    lock, inside, most, count = threading.Lock(), 0, 0, 0
    all_there = threading.Barrier(3)

    def ask():
        nonlocal inside, most, count
        with lock:
            count += 1
            inside += 1
            most = max(most, inside)
        if 3 < count <= 6:
            # Comes on only when three ask at the same time.
            all_there.wait(30)
        with lock:
            inside -= 1

    result = run_load_test(ask, callers=3, requests=20, seconds=30)
    assert (most, count) == (3, 20 + 3)
    assert len(result.latencies) == result.requests == 20
    assert list(result.latencies) == sorted(result.latencies)


def test_time_ends_a_load():
    asked = []

    def ask():
        asked.append(time.perf_counter())
        time.sleep(0.02)

    result = run_load_test(ask, callers=1, requests=100_000, seconds=0.2, warm_up=0)
    assert result.requests == len(asked) < 100
    # No request begins after the time.
    assert asked[-1] - asked[0] <= 0.2
    assert min(result.latencies) >= 0.02
    assert sum(result.latencies) <= result.seconds


def test_errors_are_counted_and_are_no_latencies():
    numbers = iter(range(100))

    def ask():
        if next(numbers) % 3 == 1:
            raise ServerError("no", code="RESOURCE_EXHAUSTED", details="")

    result = run_load_test(ask, callers=1, requests=9, seconds=30, warm_up=0)
    assert dict(result.errors) == {"RESOURCE_EXHAUSTED": 3}
    assert len(result.latencies) == 6


def test_a_mistake_of_the_callers_ends_a_load():
    def ask():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_load_test(ask, callers=2, requests=10, seconds=30, warm_up=0)


@pytest.mark.parametrize(
    "wrong",
    [{"callers": 0}, {"callers": 257}, {"requests": 100_001}, {"seconds": 601}, {"seconds": 0}],
)
def test_a_load_is_bounded(wrong):
    with pytest.raises(UsageError, match=f"`{next(iter(wrong))}` must be above 0 and at most"):
        run_load_test(list, **{"callers": 1, "requests": 1, "seconds": 1, **wrong})


def test_inputs_that_are_made_up():
    specs = {
        "images": TensorSpec("float32", (None, None, None, 3)),
        "count": TensorSpec("int64", (None,)),
        "scale": TensorSpec("float64", ()),
    }
    inputs = random_inputs(Signature(specs, {}), 4, 9)
    assert {name: array.shape for name, array in inputs.items()} == {
        "images": (4, 9, 9, 3),
        "count": (4,),
        "scale": (),
    }
    assert {name: str(array.dtype) for name, array in inputs.items()} == {
        name: spec.dtype for name, spec in specs.items()
    }
    assert 0 <= inputs["images"].min() < 50
    assert 200 < inputs["images"].max() <= 255
    np.testing.assert_array_equal(
        inputs["images"], random_inputs(Signature(specs, {}), 4, 9)["images"]
    )
    for spec in (TensorSpec("string", (None,)), TensorSpec("float32", None)):
        with pytest.raises(UsageError, match="'x' must take numbers of a known rank"):
            random_inputs(Signature({"x": spec}, {}), 1, 1)


def test_inputs_that_a_server_declares_are_small_together():
    """A server decides how many inputs there are, and how large."""
    spec = TensorSpec("uint8", (None, 2**20))
    many = {str(number): spec for number in range(257)}
    with pytest.raises(UsageError, match="must fit into one request"):
        random_inputs(Signature(many, {}), 1, 1)
    with pytest.raises(UsageError, match="must take numbers of a known rank"):
        random_inputs(Signature({"x": TensorSpec("float32", (1,) * 65)}, {}), 1, 1)


def test_random_inputs_are_drawn_in_parts(monkeypatch):
    specs = {
        "x": TensorSpec("float32", (2, 5)),
        "n": TensorSpec("int64", (7,)),
        "c": TensorSpec("complex64", (3,)),
    }
    whole = random_inputs(Signature(specs, {}), 1, 1)
    monkeypatch.setattr("cnnkit.client.load_test._DRAWN_AT_ONCE", 3)
    parts = random_inputs(Signature(specs, {}), 1, 1)
    for name in specs:
        np.testing.assert_array_equal(parts[name], whole[name])
    drawn = np.random.default_rng(0).uniform(0, 255, (2, 5)).astype(np.float32)
    np.testing.assert_array_equal(whole["x"], drawn)


def test_the_largest_load_and_its_inputs(monkeypatch):
    """256 callers, 100,000 requests, 600 s; each asks once before the others are counted."""
    asked = []
    result = run_load_test(lambda: asked.append(1), callers=256, requests=256, seconds=600)
    assert (len(asked), result.requests) == (512, 256)
    assert result.client_cpu_seconds >= 0 and result.seconds < 60
    for wrong, text in (("rows", "`rows` must be positive"), ("side", "`side` must be positive")):
        with pytest.raises(UsageError, match=f"{text}.*1 or more.*0"):
            random_inputs(Signature({}, {}), **{"rows": 1, "side": 1, wrong: 0})
    monkeypatch.setattr("cnnkit.client.load_test.MAX_REQUEST_BYTES", 24)
    specs = {"x": TensorSpec("float32", (None, 2)), "n": TensorSpec("int64", (1,))}
    assert random_inputs(Signature(specs, {}), 2, 1)["x"].nbytes == 16
    with pytest.raises(UsageError, match="Expected: 24 bytes at most. Received: 32"):
        random_inputs(Signature(specs, {}), 3, 1)
    # 64 axes, as NumPy has.
    deep = TensorSpec("float32", (1,) * 64)
    assert random_inputs(Signature({"x": deep}, {}), 1, 1)["x"].ndim == 64
    assert set(random_inputs(Signature({"n": TensorSpec("int8", (20,))}, {}), 1, 1)["n"]) == {0, 1}
    with pytest.raises(UsageError, match="must take numbers of a known rank"):
        random_inputs(Signature({"x": TensorSpec("data type 20", ())}, {}), 1, 1)
