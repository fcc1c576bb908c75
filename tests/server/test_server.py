"""The embedded server: starting, serving several models, stopping."""

import contextlib
import socket
import subprocess
import sys
import threading
from concurrent import futures

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cnnkit.client import Client, InvalidRequest
from cnnkit.errors import RunError, UsageError
from cnnkit.server import EmbeddedServer, ServerLimits
from cnnkit.server.limits import ConcurrencyLimiter
from cnnkit.server.listen import reserve_port
from cnnkit.server.metrics import NoMetrics
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from tests.helpers.held_server import error_of, gray_image, probabilities_of, send, served
from tests.helpers.polled_server import wait_for
from tests.helpers.serving import SIZE


def test_the_newest_version_alone_is_served_unless_told_otherwise(colors_folder):
    with EmbeddedServer({"colors": colors_folder}) as server, Client(server.address) as client:
        assert [status.version for status in client.status("colors")] == [2]


def test_several_models(colors_folder):
    models = {"a": colors_folder, "b": colors_folder}
    with EmbeddedServer(models) as server, Client(server.address) as client:
        image = np.zeros((SIZE, SIZE, 3))
        for name in models:
            assert client.predict(image, model=name)["probabilities"].shape == (1, 4)


def test_many_requests_at_once(colors_server, png):
    files = [png(200, 0, 0), png(0, 200, 0), png(0, 0, 200)]
    address = colors_server.address
    with Client(address, timeout=30) as client, futures.ThreadPoolExecutor(16) as pool:

        def best(index):
            return client.classify(files[index % 3], model="colors", top=1)[0][0].label

        answers = list(pool.map(best, range(60)))
    assert answers == ["red", "green", "blue"] * 20


def test_messages_may_be_larger_than_grpcs_four_megabytes(colors_folder):
    images = np.zeros((8000, SIZE, SIZE, 3), np.float32)
    with (
        EmbeddedServer(
            {"colors": colors_folder}, limits=ServerLimits(max_request_rows=8000)
        ) as server,
        Client(server.address, timeout=60) as client,
    ):
        assert client.predict(images, model="colors")["means"].shape == (8000, 3)


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        (
            {"host": "no.such.host.invalid"},
            RunError,
            "must be an address or a name of this machine",
        ),
        ({"port": 70000}, UsageError, "`port` must be in 0..65535"),
        ({"versions": "newest"}, UsageError, "latest, all"),
        ({"versions": "latest:0"}, UsageError, "latest:N"),
        ({"versions": "2,7"}, UsageError, "Version 7 of model 'colors' cannot be served"),
        ({"version_labels": {"colors": {"stable": 1}}}, UsageError, "'stable' of model 'colors'"),
        (
            {"version_labels": {"shapes": {"stable": 1}}},
            UsageError,
            "`version_labels` must name models that are served",
        ),
    ],
)
def test_invalid_options(colors_folder, options, kind, text):
    with pytest.raises(kind) as caught:
        EmbeddedServer({"colors": colors_folder}, **options)
    assert text in str(caught.value)


def own_threads():
    """Returns the threads of servers, also those of pools that servers have."""
    return {one for one in threading.enumerate() if one.name.startswith("cnnkit-")}


def test_a_server_leaves_no_thread_behind(colors_folder, monkeypatch):
    """Neither one that has stopped, nor one that could not listen."""
    before = own_threads()
    with (
        EmbeddedServer({"colors": colors_folder}, allow_reload=True) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        probabilities_of(send(channel, gray_image(1)))
        raw = pb.ReloadConfigRequest().SerializeToString()
        assert channel.unary_unary(methods.RELOAD_CONFIG).future(raw, timeout=30).exception()
        kinds = {one.name.partition("_")[0] for one in own_threads() - before}
        assert kinds == {
            "cnnkit-server",
            "cnnkit-poller",
            "cnnkit-graph",
            "cnnkit-messages",
            "cnnkit-reload",
        }
        # A program that forgets its server ends all the same.
        named = {one.name: one.daemon for one in own_threads() - before}
        assert named["cnnkit-server"] and named["cnnkit-poller"]
        # No call is open: there is nothing to wait for.
        server.stop(grace=1000)
        # A poll that had begun.
        server._poll()
    wait_for(lambda: own_threads() <= before)
    with EmbeddedServer({"colors": colors_folder}, poll_seconds=0):
        assert "cnnkit-poller" not in {one.name for one in own_threads() - before}
    monkeypatch.setattr("cnnkit.server.server.check_port_free", lambda *place: None)
    with reserve_port("127.0.0.1", 0) as held, pytest.raises(RunError):
        held.listen()
        EmbeddedServer({"colors": colors_folder}, port=held.getsockname()[1])
    wait_for(lambda: own_threads() <= before)


def test_ports_that_are_none(colors_folder):
    for name in ("port", "rest_port"):
        for number in (-1, 65536):
            with pytest.raises(UsageError) as caught:
                EmbeddedServer({"colors": colors_folder}, **{name: number})
            assert str(caught.value) == f"`{name}` must be in 0..65535. Received: {number}."


def test_a_poll_tells_those_who_watch_and_count(colors_folder, monkeypatch):
    counts = []
    metrics = NoMetrics()
    monkeypatch.setattr(metrics, "set_versions", counts.append)
    serving = health_pb2.HealthCheckResponse
    with (
        EmbeddedServer({"colors": colors_folder}, poll_seconds=0, metrics=metrics) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        request = health_pb2.HealthCheckRequest(service="colors")
        watch = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=30)
        assert next(watch).status == serving.SERVING
        assert counts == [{"colors": 1}]
        monkeypatch.setattr(server.repository, "versions", lambda name: [])
        server._poll()
        assert next(watch).status == serving.NOT_SERVING
        assert counts[1:] == [{"colors": 0}]
        watch.cancel()


def test_a_port_in_use_is_found_before_a_model_is_loaded(colors_folder):
    def load(*given):
        pytest.fail("a model is loaded")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        for name in ("port", "rest_port"):
            with pytest.raises(RunError, match="Address already in use"):
                EmbeddedServer(
                    {"colors": colors_folder}, load=load, **{name: taken.getsockname()[1]}
                )


def test_an_address_of_ipv6(colors_folder):
    with (
        EmbeddedServer({"colors": colors_folder}, host="::1") as server,
        Client(server.address) as client,
    ):
        assert server.address.startswith("[::1]:")
        assert client.status("colors")[0].version == 2


def test_stopping_lets_a_request_finish(colors_folder, monkeypatch):
    begun, release = threading.Event(), threading.Event()
    with EmbeddedServer({"colors": colors_folder}) as server, Client(server.address) as client:
        find = server.repository.find

        def slow(spec):
            begun.set()
            release.wait(10)
            return find(spec)

        monkeypatch.setattr(server.repository, "find", slow)
        with futures.ThreadPoolExecutor(2) as pool:
            answer = pool.submit(client.metadata, "colors")
            assert begun.wait(10)
            stopped = pool.submit(server.stop, 10)
            with pytest.raises(futures.TimeoutError):
                stopped.result(0.2)
            release.set()
            assert "serving_default" in answer.result(10)
            stopped.result(10)


def test_a_stop_waits_for_running_requests_and_refuses_new_ones(colors_folder, gate, monkeypatch):
    refusing, refuse = threading.Event(), ConcurrencyLimiter.refuse_new

    def refuse_and_tell(limiter):
        refuse(limiter)
        refusing.set()

    monkeypatch.setattr(ConcurrencyLimiter, "refuse_new", refuse_and_tell)
    with served(colors_folder, gate, threads=1, batch_timeout_seconds=1e-3) as (server, channel):
        calls = [send(channel, gray_image(1)), send(channel, gray_image(2))]
        assert gate.arrived.acquire(timeout=30)
        with futures.ThreadPoolExecutor(1) as pool:
            stopped = pool.submit(server.stop, 30)
            assert refusing.wait(30)
            with grpc.insecure_channel(server.address) as late:
                assert error_of(send(late, gray_image(3)))[0] == "UNAVAILABLE"
            assert not stopped.done()
            gate.open.set()
            for call in calls:
                assert probabilities_of(call).shape == (1, 4)
            stopped.result(30)


def test_a_stop_waits_no_longer_than_the_grace_period(colors_folder, gate):
    with served(colors_folder, gate, threads=1) as (server, channel):
        call = send(channel, gray_image(1))
        assert gate.arrived.acquire(timeout=30)
        server.stop(0.2)
        assert not gate.open.is_set()
        # It runs on, and the stop has not waited for it.
        assert any(one.name.startswith("cnnkit-graph") for one in own_threads())
        # Not CANCELLED, which says that the call never began.
        assert error_of(call) == ("UNAVAILABLE", "The server stopped during the call")


def test_clients_notice_no_stop_of_one_of_two_servers(colors_folder):
    """Eight callers, two servers on one port, each of which is stopped and replaced in turn."""
    with contextlib.ExitStack() as stack:
        held = stack.enter_context(reserve_port("127.0.0.1", 0))
        port = held.getsockname()[1]

        def start():
            server = EmbeddedServer({"colors": colors_folder}, port=port, reuse_port=True)
            server.start()
            stack.callback(server.stop, 1)
            return server

        servers = [start(), start()]
        done, answered = threading.Event(), []

        def ask():
            with Client(servers[0].address, timeout=60) as client:
                while not done.is_set():
                    client.predict(gray_image(1), model="colors")
                    answered.append(1)

        with futures.ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(ask) for _ in range(8)]
            try:
                for number in range(4):
                    before = len(answered)
                    while len(answered) < before + 40 and not any(one.done() for one in calls):
                        done.wait(0.01)
                    servers[number % 2].stop(30)
                    servers[number % 2] = start()
            finally:
                done.set()
            for one in calls:
                one.result(60)


WITHOUT_KERAS = """
import sys
sys.modules["keras"] = None
sys.modules["tf_keras"] = None
import numpy as np
from pathlib import Path
from cnnkit.client import Client
from cnnkit.server import EmbeddedServer, ServerLimits, server
with EmbeddedServer({"m": Path(sys.argv[1])}) as server, Client(server.address) as client:
    print(client.predict(np.zeros((1, 8, 8, 3)), model="m")["probabilities"].tolist())
"""


def test_the_server_needs_no_keras(colors_folder):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_KERAS, str(colors_folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "[[0.25, 0.25, 0.25, 0.25]]\n", done.stderr


def test_a_broken_image_does_not_stop_the_server(colors_server, png):
    with Client(colors_server.address) as client:
        with pytest.raises(InvalidRequest) as caught:
            client.classify([png(9, 9, 9), b"GIF89a"], model="colors", top=1)
        assert "Graph execution error" not in caught.value.details
        assert client.classify(png(9, 0, 0), model="colors", top=1)[0][0].label == "red"
