"""A server whose graphs hang says so, and is replaced where something watches it."""

import contextlib
import http.client
import json
import logging
import os
import re
import select
import signal
import subprocess
import sys
import time
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2

from cnnkit.client import Client
from cnnkit.server import EmbeddedServer, ServerLimits
from cnnkit.server.watchdog import Watchdog
from cnnkit.wire import open_inference_pb2 as v2
from tests.helpers.held_server import gray_image, send
from tests.helpers.serving import GRAY, predict_gray

HUNG = "No graph has ended for 300 s, while 1 run"


def test_graphs_hang_when_one_runs_and_none_has_ended_for_the_time():
    now = 1000.0
    watchdog = Watchdog(300, clock=lambda: now)
    assert watchdog.problem() is None
    # A server without requests is not hung, and its first request starts anew.
    now += 5000
    first, second = watchdog.running(), watchdog.running()
    with first:
        assert watchdog.problem() is None
        now += 299
        assert watchdog.problem() is None
        now += 1
        assert watchdog.problem() == HUNG
        # Another thread has ended a graph: the server works.
        with second:
            assert watchdog.problem() == "No graph has ended for 300 s, while 2 run"
        assert watchdog.problem() is None
        now += 300
        assert watchdog.problem() == HUNG
        # A long graph that begins late is not the one that hangs.
        with watchdog.running():
            assert watchdog.problem() == "No graph has ended for 300 s, while 2 run"
    assert watchdog.problem() is None
    with pytest.raises(ZeroDivisionError), watchdog.running():
        raise ZeroDivisionError
    now += 999
    assert watchdog.problem() is None
    never = Watchdog(0, clock=lambda: now)
    with never.running():
        now += 10**9
        assert never.problem() is None


def ask(server, path):
    connection = http.client.HTTPConnection(server.rest_address, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def call(channel, method, request, kind):
    return kind.FromString(channel.unary_unary(method)(request.SerializeToString(), timeout=30))


def health(server, channel):
    """Returns what each probe says: live and ready by REST, and both by both protocols of gRPC."""
    service = "/inference.GRPCInferenceService"
    checked = [
        call(channel, "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(service=name),
             health_pb2.HealthCheckResponse).status == health_pb2.HealthCheckResponse.SERVING
        for name in ("", "colors")
    ]  # fmt: skip
    paths = [f"/{api}/health/{name}" for api in ("v1", "v2") for name in ("live", "ready")]
    model = v2.ModelReadyRequest(name="colors")
    return [
        *checked,
        *(ask(server, path)[0] == 200 for path in paths),
        call(channel, f"{service}/ServerLive", v2.ServerLiveRequest(), v2.ServerLiveResponse).live,
        call(channel, f"{service}/ServerReady", v2.ServerReadyRequest(), v2.ServerReadyResponse)
        .ready,
        call(channel, f"{service}/ModelReady", model, v2.ModelReadyResponse).ready,
    ]  # fmt: skip


def wait_for(condition):
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


@pytest.mark.parametrize("window", [0, 0.001])
def test_a_hung_server_is_not_live_until_a_graph_ends(model_folder, gate, caplog, window):
    pytest.importorskip("aiohttp")
    limits = ServerLimits(threads=1, stuck_seconds=1, batch_timeout_seconds=window)
    with (
        caplog.at_level(logging.WARNING, "cnnkit.server"),
        EmbeddedServer(
            {"colors": model_folder}, load=gate.load, limits=limits, rest_port=0
        ) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        held = send(channel, gray_image(40))
        assert gate.arrived.acquire(timeout=30)
        assert all(health(server, channel))
        server.ping().result(30)
        # A client that gives up does not end the graph.
        held.cancel()
        wait_for(lambda: ask(server, "/v1/health/live")[0] == 503)
        status, body = ask(server, "/v2/health/live")
        assert status == 503
        assert re.fullmatch(r"No graph has ended for \d+ s, while 1 run", body["error"])
        assert not any(health(server, channel))
        wait_for(lambda: len(caplog.records) == 1)
        waiting = server.ping()
        with pytest.raises(futures.TimeoutError):
            waiting.result(0.3)
        gate.open.set()
        wait_for(lambda: all(health(server, channel)))
        waiting.result(30)
        predict_gray(channel)
        wait_for(lambda: len(caplog.records) == 2)
    texts = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r"No graph has .* 1 run: the server is not live until one ends", texts[0])
    assert texts[1] == "A graph has ended: the server is live again"


def test_zero_switches_it_off(model_folder, gate):
    limits = ServerLimits(threads=1, stuck_seconds=0)
    with (
        EmbeddedServer({"colors": model_folder}, load=gate.load, limits=limits) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        held = send(channel, gray_image(40))
        assert gate.arrived.acquire(timeout=30)
        time.sleep(0.1)
        server.ping().result(30)
        gate.open.set()
        held.result(30)


class Blocking(tf.Module):
    """Means of the channels; a bright image waits for ever, for a queue that nobody fills."""

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32, "images")])
    def means(self, images):
        def wait():
            queue = tf.raw_ops.FIFOQueueV2(component_types=[tf.float32])
            [found] = tf.raw_ops.QueueDequeueV2(handle=queue, component_types=[tf.float32])
            return tf.ensure_shape(found, ())

        added = tf.cond(tf.reduce_max(images) > 200, wait, lambda: 0.0)
        return {"probabilities": tf.reduce_mean(images, axis=(1, 2)) + added}


@pytest.fixture(scope="module")
def blocking_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blocking") / "colors"
    model = Blocking()
    tf.saved_model.save(model, str(folder / "1"), {"serving_default": model.means})
    return folder


@contextlib.contextmanager
def serving(folder, *words):
    """Yields a process of `cnnkit serve` and its address."""
    with subprocess.Popen(
        [sys.executable, "-m", "cnnkit", "serve", folder, "--port", "0", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    ) as process:  # fmt: skip
        try:
            assert select.select([process.stdout], [], [], 120)[0]
            yield process, process.stdout.readline().split(" at ")[1].split()[0]
        finally:
            process.kill()


@pytest.mark.slow
def test_a_server_with_a_graph_that_never_ends_can_be_stopped(blocking_folder):
    with (
        serving(blocking_folder, "--embedded", "--grace", "0.5") as (process, address),
        grpc.insecure_channel(address) as channel,
    ):
        held = send(channel, GRAY + 200)
        # A second one is answered, so the first has begun.
        np.testing.assert_allclose(predict_gray(channel), [[40, 40, 40]])
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
        assert held.exception(timeout=30).details() == "The server stopped during the call"
    assert (process.returncode, log) == (0, "")


@pytest.mark.slow
def test_a_hung_worker_is_replaced(blocking_folder):
    words = ("--workers", "2", "--threads", "1", "--stuck-seconds", "2", "--no-load-trial")
    with serving(blocking_folder, *words) as (process, address):
        with Client(address) as client:
            assert client.predict(GRAY, model="colors")["probabilities"].tolist() == [[40] * 3]
        with grpc.insecure_channel(address) as channel:
            held = send(channel, GRAY + 200)
            assert held.exception(timeout=90).code() == grpc.StatusCode.UNAVAILABLE
            np.testing.assert_allclose(predict_gray(channel, wait=True), [[40, 40, 40]])
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    assert re.search(r"No graph has ended for \d+ s, while 1 run: the server is not live", log)
    assert "A worker is lost: no heartbeat for" in log
