"""`cnnkit bench`: its arithmetic, its bounds, and what it reports of a server that it knows."""

import json
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from cnnkit.cli.main import main
from cnnkit.client import ServerError, Signature, TensorSpec
from cnnkit.client.load_test import LoadTestResult, random_inputs, run_load_test
from cnnkit.errors import UsageError
from tests.helpers.fake_servers import Doubling, fake_server


@pytest.fixture
def bench(capfd, tmp_path, monkeypatch):
    """Runs `cnnkit bench` in a folder of its own; returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        capfd.readouterr()
        try:
            code = main(["bench", *map(str, argv)])
        except SystemExit as stop:
            code = stop.code
        return code, *capfd.readouterr()

    return run


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
    with pytest.raises(UsageError, match=f"other {next(iter(wrong))}.* at most"):
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
        with pytest.raises(UsageError, match="'x' cannot be made up"):
            random_inputs(Signature({"x": spec}, {}), 1, 1)


def test_what_is_reported(bench):
    model = Doubling()
    with fake_server(model) as address:
        options = ["--model", "m", "--requests", "30", "--callers", "2", "--batch", "3"]
        code, out, err = bench(address, *options, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    # And a request of each caller that does not count.
    assert model.rows == [3] * 32
    assert (found["requests"], found["answered"], found["errors"]) == (30, 30, {})
    assert found["requests_per_second"] == pytest.approx(30 / found["seconds"])
    assert found["images_per_second"] == pytest.approx(90 / found["seconds"])
    latencies = [found["latency_ms"][name] for name in ("p50", "p90", "p95", "p99", "max")]
    assert latencies[0] > 0
    assert latencies == sorted(latencies)
    assert latencies[-1] <= found["seconds"] * 1e3
    assert found["client_cpu_share"] > 0


def test_a_table_for_people(bench):
    with fake_server(Doubling()) as address:
        code, out, err = bench(address, "--model", "m", "--requests", "5")
    assert (code, err) == (0, "")
    first, *others = out.splitlines()
    assert first == f"m serving_default at {address}, 1 caller, 1 image a request"
    assert others[0].startswith("requests   5 answered of 5 in ")
    assert [line.split()[0] for line in others] == ["requests", "throughput", "latency", "caller"]


def test_a_large_batch_is_one_request(bench):
    model = Doubling()
    with fake_server(model) as address:
        assert bench(address, "--model", "m", "--requests", "2", "--batch", "100")[0] == 0
    assert model.rows == [100] * 3


def test_errors_are_told_and_not_tried_again(bench):
    def every_other(number, context):
        if number % 2 == 0:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")

    model = Doubling(every_other)
    with fake_server(model) as address:
        code, out, _ = bench(address, "--model", "m", "--requests", "10")
    assert code == 1
    assert "requests   5 answered of 10" in out
    assert "errors     5 RESOURCE_EXHAUSTED" in out
    assert model.predicts == 11


def test_a_server_that_never_answers_right(bench):
    def never(number, context):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")

    with fake_server(Doubling(never)) as address:
        code, out, err = bench(address, "--model", "m")
    assert (code, out) == (1, "")
    assert "INVALID_ARGUMENT: no" in err


@pytest.mark.parametrize("server", ["example.org:8500", "10.0.0.1:8500", "dns:///models:8500"])
def test_another_machine_is_left_in_peace(bench, server):
    code, out, err = bench(server, "--model", "m")
    assert (code, out) == (2, "")
    assert f"{server} is not surely this machine" in err
    assert "Add --remote if it may." in err


def test_another_machine_that_may_be_asked(bench):
    # A name of this machine that the check does not look up.
    with fake_server(Doubling()) as address:
        name = f"dns:///{address}"
        assert bench(name, "--model", "m", "--requests", "2")[0] == 2
        assert bench(name, "--model", "m", "--requests", "2", "--remote")[0] == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--callers", "0"], "other callers"),
        (["--requests", "0"], "other requests"),
        (["--seconds", "9999"], "other seconds"),
        (["--batch", "0"], "--batch is out of range. Expected: 1 or more. Received: 0"),
        (["--timeout", "0"], "needs a deadline"),
        (["--signature", "servng_default"], "Did you mean serving_default?"),
        (["--image", "none.png"], "There is no such image file"),
        (["--image", "a.png"], "Unknown signature 'classify_bytes'"),
        (["--batch", "99999999"], "So much does not go into one request"),
    ],
)
def test_arguments_that_cannot_be(bench, options, text):
    Path("a.png").write_text("a")
    model = Doubling()
    with fake_server(model) as address:
        code, out, err = bench(address, "--model", "m", *options)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert text in err
    assert model.predicts <= 1
