"""`cnnkit bench`: its options and its report, against a known server."""

import argparse
import json
from pathlib import Path

import grpc
import pytest

from cnnkit.cli.commands.bench import _document, _summary
from cnnkit.cli.main import main
from cnnkit.client import load_test
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


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], (200, 10)),
        (["--requests", "1000"], (1000, 600)),
        (["--seconds", "30"], (100_000, 30)),
        (["--requests", "1000", "--seconds", "30"], (1000, 30)),
    ],
)
def test_a_limit_is_not_undercut_by_a_default(bench, monkeypatch, options, expected):
    seen = []

    def run(ask, *, callers, requests, seconds):
        seen.append((requests, seconds))
        return load_test.LoadTestResult((0.1,), {}, 1.0, 0.0)

    monkeypatch.setattr(load_test, "run_load_test", run)
    with fake_server(Doubling()) as address:
        assert bench(address, "--model", "m", *options)[0] == 0
    assert seen == [expected]


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
        (["--callers", "0"], "--callers must be a whole number of at least 1 and at most 256"),
        (["--requests", "0"], "--requests must be a whole number of at least 1 and at most 100000"),
        (["--seconds", "9999"], "--seconds must be a finite number of more than 0 and at most 600"),
        (["--batch", "0"], "--batch must be a whole number of at least 1, received 0"),
        (["--timeout", "0"], "--timeout must be a finite number of more than 0"),
        (["--signature", "servng_default"], "Did you mean serving_default?"),
        (["--image", "none.png"], "--image must be an existing file, received none.png"),
        (["--image", "a.png"], "Unknown signature 'classify_bytes'"),
        (["--batch", "99999999"], "`inputs` of a load test must fit into one request"),
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


def test_the_words_of_the_table():
    found = {
        "model": "m", "signature": "s", "server": "host:1", "callers": 2, "images_per_request": 3,
        "answered": 0, "requests": 5, "seconds": 1.234, "requests_per_second": 0.0,
        "images_per_second": 0.0, "latency_ms": {"p50": None}, "errors": {"UNAVAILABLE": 5},
        "client_cpu_share": 0.126,
    }  # fmt: skip
    assert _summary(found) == [
        "m s at host:1, 2 callers, 3 images a request",
        "requests   0 answered of 5 in 1.23 s",
        "throughput 0.0 requests/s, 0.0 images/s",
        "errors     5 UNAVAILABLE",
        "caller CPU 13% of one core",
    ]


def test_nothing_answered_has_no_latency():
    result = load_test.LoadTestResult((), {"UNAVAILABLE": 5}, 2.0, 0.5)
    args = argparse.Namespace(
        server="host:1", model="m", model_version=3, version_label=None, batch=2, callers=1
    )
    found = _document(args, "s", result)
    assert found["latency_ms"] == dict.fromkeys(("p50", "p90", "p95", "p99", "max"))
    assert (found["version"], found["client_cpu_share"], found["answered"]) == (3, 0.25, 0)
