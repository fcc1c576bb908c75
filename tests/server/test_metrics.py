"""What Prometheus reads: requests, batches, versions; of one process, and of several."""

import importlib.util
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import psutil
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from cnnkit.client import Client, DeadlineExceeded, ModelNotFound
from cnnkit.errors import RunError, UsageError
from cnnkit.server import EmbeddedServer, ServerLimits, ServerMetrics, serve_metrics
from cnnkit.server.metrics import SHARED_FOLDER, shared_metrics
from tests.helpers.serving import SIZE

DEFAULT = "serving_default"
IMAGES = np.full((3, SIZE, SIZE, 3), 40, np.float32)
PROCESS = """
import sys
from cnnkit.server.metrics import ServerMetrics
metrics = ServerMetrics()
metrics.finish_request("Predict", "digits", "1", "serving_default", "OK", 0.02)
metrics.set_versions({"digits": 1})
print(flush=True)
sys.stdin.read()
"""


def samples(port):
    """Returns the samples of a page by their name and their labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def key(name, **labels):
    return (f"cnnkit_{name}", *sorted(labels.items()))


def calls(
    name, code=None, method="Predict", model="colors", version="1", signature=DEFAULT, **more
):
    labels = {"method": method, "model": model, "version": version, "signature": signature}
    return key(name, **labels, **more, **({} if code is None else {"code": code}))


@pytest.fixture
def metrics():
    return ServerMetrics()


@pytest.fixture
def server(metrics, model_folder):
    limits = ServerLimits(max_request_rows=8)
    with EmbeddedServer({"colors": model_folder}, limits=limits, metrics=metrics) as started:
        yield started


@pytest.fixture
def page(metrics):
    with serve_metrics(metrics.registry, "127.0.0.1", 0) as opened:
        yield opened


def test_requests_are_counted_by_what_they_called_and_how_they_ended(server, page):
    """A client cannot make the list of samples grow by names that it makes up."""
    with Client(server.address) as client:
        client.predict(IMAGES, model="colors")
        # Refused, then sent in two parts.
        client.predict(IMAGES[[0] * 9], model="colors")
        for number in range(5):
            with pytest.raises(ModelNotFound):
                client.predict(IMAGES, model=f"unknown{number}")
        client.status("colors")
    found = samples(page)
    assert found[calls("requests_total", "OK")] == 3
    assert found[calls("requests_total", "INVALID_ARGUMENT", signature="")] == 1
    nobody = {"model": "", "version": "", "signature": ""}
    assert found[calls("requests_total", "OK", "GetModelStatus", **nobody)] == 1
    assert found[calls("requests_total", "NOT_FOUND", "GetModelMetadata", **nobody)] == 5
    assert found[calls("request_seconds_count")] == 3
    assert 0 < found[calls("request_seconds_sum")] < 60
    assert "unknown" not in str(found)
    assert found[key("batch_rows_count", model="colors")] == 3
    assert found[key("batch_rows_sum", model="colors")] == 12
    assert found[key("open_requests")] == found[key("waiting_batches")] == 0
    assert found[key("loaded_versions", model="colors")] == 1
    assert found[key("version_loads_total", model="colors", result="loaded")] == 1
    assert found[key("resident_memory_bytes")] > 2**26


def test_merged_requests_are_one_run(metrics, model_folder):
    limits = ServerLimits(batch_timeout_seconds=5, max_batch_rows=4, threads=1)
    with (
        EmbeddedServer({"colors": model_folder}, limits=limits, metrics=metrics) as server,
        Client(server.address, concurrency=4) as client,
    ):
        client.predict(IMAGES[[0] * 4], model="colors", batch_size=1)
    value = metrics.registry.get_sample_value
    assert value("cnnkit_batch_rows_count", {"model": "colors"}) == 1
    assert value("cnnkit_batch_rows_sum", {"model": "colors"}) == 4
    assert value("cnnkit_waiting_batches") == 0


def test_a_version_that_cannot_be_loaded_is_counted(metrics, model_folder):
    (model_folder / "1" / "saved_model.pb").write_bytes(b"broken")
    with pytest.raises(RunError):
        EmbeddedServer({"colors": model_folder}, metrics=metrics)
    labels = {"model": "colors", "result": "failed"}
    assert metrics.registry.get_sample_value("cnnkit_version_loads_total", labels) == 1


def test_a_call_that_the_client_gives_up_is_canceled(metrics, model_folder, gate):
    with EmbeddedServer({"colors": model_folder}, load=gate.load, metrics=metrics) as server:
        with Client(server.address) as client:
            client.metadata("colors")
            with pytest.raises(DeadlineExceeded):
                client.predict(IMAGES, model="colors", timeout=0.5)
            assert gate.canceled.acquire(timeout=30)
        gate.open.set()
    name, *labels = calls("requests_total", "CANCELLED")
    assert metrics.registry.get_sample_value(name, dict(labels)) == 1


def test_metrics_of_models_that_are_no_longer_served_are_zero(metrics):
    metrics.set_versions({"a": 2, "b": 1})
    metrics.set_versions({"a": 1})
    value = metrics.registry.get_sample_value
    found = [value("cnnkit_loaded_versions", {"model": name}) for name in "ab"]
    assert found == [1, 0]


def test_processes_of_one_server_are_summed():
    """What a lost process has counted stays; what it held is gone."""
    with shared_metrics("127.0.0.1", 0) as (page, end):
        command = [sys.executable, "-c", PROCESS]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
        try:
            for process in processes:
                process.stdout.readline()
            found = samples(page)
            assert found[calls("requests_total", "OK", model="digits")] == 2
            assert found[calls("request_seconds_bucket", model="digits", le="0.025")] == 2
            assert found[key("loaded_versions", model="digits")] == 2
        finally:
            for process in processes:
                process.kill()
                process.communicate()
        end(processes[0].pid)
        found = samples(page)
        assert found[calls("requests_total", "OK", model="digits")] == 2
        assert found[key("loaded_versions", model="digits")] == 1


def test_faults_are_told_in_one_line(monkeypatch, metrics, page):
    with pytest.raises(RunError, match="metrics cannot be served at 127.0.0.1:.*Choose another"):
        serve_metrics(metrics.registry, "127.0.0.1", page).__enter__()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install prometheus-client"):
        ServerMetrics()


# Documented in docs/guide/server.md.
def test_bounds_of_the_histograms(metrics, page):
    metrics.finish_request("Predict", "m", "1", "s", "OK", 0.003)
    metrics.run_batch("m", 3)
    found = {name: [] for name in ("request_seconds", "batch_rows")}
    for name, *labels in samples(page):
        for kind, bounds in found.items():
            if name == f"cnnkit_{kind}_bucket":
                bounds.append(float(dict(labels)["le"]))
    assert sorted(found["request_seconds"]) == [
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, np.inf
    ]  # fmt: skip
    assert sorted(found["batch_rows"]) == [1, 2, 4, 8, 16, 32, 64, 128, 256, np.inf]


def test_the_memory_of_the_process(metrics):
    metrics.set_versions({})
    found = metrics.registry.get_sample_value("cnnkit_resident_memory_bytes")
    assert found == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)


def test_a_registry_of_the_caller():
    registry = CollectorRegistry()
    metrics = ServerMetrics(registry)
    metrics.run_batch("m", 2)
    assert metrics.registry is registry
    assert registry.get_sample_value("cnnkit_batch_rows_sum", {"model": "m"}) == 2


@pytest.mark.parametrize("before", [None, "before"])
def test_metrics_end_with_their_block(monkeypatch, before):
    """The port is free, and the environment as it was."""
    if before is None:
        monkeypatch.delenv(SHARED_FOLDER, raising=False)
    else:
        monkeypatch.setenv(SHARED_FOLDER, before)
    with shared_metrics("127.0.0.1", 0) as (port, _):
        folder = Path(os.environ[SHARED_FOLDER])
        assert folder.is_dir()
        assert samples(port) == {}
    assert os.environ.get(SHARED_FOLDER) == before
    assert not folder.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)
