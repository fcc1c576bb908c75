"""Which calls the client repeats, which it never repeats, and the errors it raises."""

import http.server
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from cnnkit.client import (
    Client,
    ConnectionLost,
    DeadlineExceeded,
    InvalidRequest,
    InvalidResponse,
    MessageTooLarge,
    ModelNotFound,
    NotAuthorized,
    ServerBusy,
    ServerError,
    ServerUnavailable,
    ServerUnreachable,
    flow,
)
from cnnkit.client.calls import Calls
from cnnkit.client.channel import ChannelOptions
from cnnkit.errors import UsageError
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from tests.helpers.fake_servers import Doubling, fake_server

X = np.float32([[1, 2], [3, 4]])


def refusing(code, details, times=10**9):
    """Aborts the first Predict calls."""

    def before(number, context):
        if number <= times:
            context.abort(grpc.StatusCode[code], details)

    return before


QUEUE = "The batch scheduling queue to which this task was submitted is full; currently 1 ..."


@pytest.mark.parametrize(
    ("code", "details"),
    [
        ("UNAVAILABLE", QUEUE),
        ("UNAVAILABLE", "Model labels does not init yet.stable"),
        ("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted"),
        ("RESOURCE_EXHAUSTED", "Server memory for requests is full"),
        ("UNAVAILABLE", "The server is stopping"),
        ("CANCELLED", "CANCELLED"),
    ],
)
def test_a_busy_server_is_asked_again(code, details):
    model = Doubling(refusing(code, details, times=2))
    with fake_server(model) as address, Client(address) as client:
        np.testing.assert_array_equal(client.predict(X, model="m")["y"], 2 * X)
    assert model.predicts == 3


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        ("UNAVAILABLE", "Socket closed", ConnectionLost),
        ("UNAVAILABLE", "Stream removed", ConnectionLost),
        (
            "UNAVAILABLE",
            "upstream connect error or disconnect/reset before headers",
            ConnectionLost,
        ),
        ("UNAVAILABLE", "something else", ServerUnavailable),
        ("RESOURCE_EXHAUSTED", "Received message larger than max (9 vs. 8)", MessageTooLarge),
        ("RESOURCE_EXHAUSTED", "quota", ServerError),
        ("INVALID_ARGUMENT", "input depth must be evenly divisible", InvalidRequest),
        ("INTERNAL", QUEUE, ServerError),
        ("DEADLINE_EXCEEDED", "", DeadlineExceeded),
        ("UNAUTHENTICATED", "who are you", NotAuthorized),
        ("PERMISSION_DENIED", "no", NotAuthorized),
        ("ABORTED", "x", ServerError),
    ],
)
def test_everything_else_is_sent_once(code, details, kind):
    model = Doubling(refusing(code, details))
    with (
        fake_server(model) as address,
        Client(address) as client,
        pytest.raises(ServerError) as caught,
    ):
        client.predict(X, model="m")
    assert model.predicts == 1
    assert type(caught.value) is kind
    assert not caught.value.retryable
    assert (caught.value.code, caught.value.details) == (code, details)


def test_a_server_that_stays_busy_is_left_alone_after_some_attempts():
    model = Doubling(refusing("UNAVAILABLE", QUEUE))
    with fake_server(model) as address, Client(address, max_attempts=3) as client:
        with pytest.raises(ServerBusy) as caught:
            client.predict(X, model="m")
        assert model.predicts == 3
        with Client(address, max_attempts=1) as once, pytest.raises(ServerBusy):
            once.predict(X, model="m")
        assert model.predicts == 4
    assert caught.value.retryable
    assert "Send less at once, or try again in a moment." in str(caught.value)


def test_attempts_end_with_the_deadline(monkeypatch):
    monkeypatch.setattr(flow, "time", Clock())
    waited = []
    model = Doubling(refusing("UNAVAILABLE", QUEUE))
    with fake_server(model) as address, Client(address, max_attempts=10**6, timeout=20) as client:
        do = client._do

        def wait(step):
            if isinstance(step, flow.Sleep):
                waited.append(step.seconds)
                flow.time.now += step.seconds
                return None
            return do(step)

        monkeypatch.setattr(client, "_do", wait)
        # Not "no answer in time": what stood in the way is told.
        with pytest.raises(ServerBusy):
            client.predict(X, model="m")
    assert sum(waited) < 20
    assert model.predicts == len(waited) + 1
    # Each pause is twice the one before at most, shortened by chance, and 2 s at most.
    for number, seconds in enumerate(waited):
        largest = min(0.1 * 2**number, 2.0)
        assert largest / 2 <= seconds <= largest
    assert len({seconds / min(0.1 * 2**n, 2.0) for n, seconds in enumerate(waited)}) > 5


class Clock:
    """A clock that only moves when it is moved."""

    now = 0.0

    def monotonic(self):
        return self.now


@pytest.mark.parametrize(
    ("seconds", "timeout"), [(60, 2.0), (2.5, 2.0), (1.5, 1.5), (0.1, 0.1), (0.05, 0.1)]
)
def test_waiting_for_a_model_asks_with_a_short_timeout(monkeypatch, seconds, timeout):
    """A call to a server that hangs ends soon; one that fails is made again after 0.1 s."""
    monkeypatch.setattr(flow, "time", Clock())
    calls = Calls(ChannelOptions("localhost:1"), 3, 1)
    told = []
    waiting = calls.wait_until_ready(calls.options("m", timeout=seconds), told.append)
    step = next(waiting)
    assert (step.method, step.timeout) == (methods.GET_MODEL_STATUS, timeout)
    if seconds < 0.1:
        with pytest.raises(DeadlineExceeded):
            waiting.throw(flow.RpcFailure("DEADLINE_EXCEEDED", ""))
        return
    for _ in range(3):
        assert waiting.throw(flow.RpcFailure("UNAVAILABLE", QUEUE)) == flow.Sleep(0.1)
        assert waiting.send(None).timeout == timeout
    # A change is told once.
    assert told == ["localhost:1 is busy"]


def test_a_server_that_is_not_there_is_looked_for_again(monkeypatch):
    calls = []
    with Client("localhost:1", timeout=5) as client:
        method = client._transport.method
        monkeypatch.setattr(
            client._transport, "method", lambda path: (calls.append(path), method(path))[1]
        )
        with pytest.raises(ServerUnreachable):
            client.predict(X, model="m")
    assert len(calls) == 4


# Dies of every Predict call, after writing down that it came.
KILLED = """
    import os, sys, time
    sys.path[:0] = {path!r}
    from tests.helpers.fake_servers import Doubling, fake_server
    def before(number, context):
        os.write(1, b"predict\\n")
        os._exit(9)
    with fake_server(Doubling(before)) as address:
        os.write(1, address.encode() + b"\\n")
        time.sleep(60)
"""


@pytest.fixture
def mortal_servers():
    """Starts servers that die of any Predict call; returns them, with their addresses."""
    started = []
    path = [str(Path(__file__).resolve().parents[2])]

    def start(count):
        program = textwrap.dedent(KILLED.format(path=path))
        for _ in range(count):
            command = [sys.executable, "-c", program]
            started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started, [process.stdout.readline().strip() for process in started]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_request_that_kills_a_server_kills_no_other(mortal_servers):
    processes, addresses = mortal_servers(3)
    with (
        Client(f"ipv4:{','.join(addresses)}", round_robin=True, timeout=10) as client,
        pytest.raises(ConnectionLost) as caught,
    ):
        client.predict(X, model="m")
    text = str(caught.value)
    assert caught.value.code == "UNAVAILABLE"
    assert "broke during a call" in text
    assert "This input may have crashed the server: read its log" in text
    time.sleep(0.3)
    assert sorted(str(process.poll()) for process in processes) == ["9", "None", "None"]


def test_one_part_of_a_batch_that_kills_a_server_ends_all(mortal_servers):
    [process], [address] = mortal_servers(1)
    x = np.zeros((64, 2), np.float32)
    with Client(address, timeout=10) as client, pytest.raises(ConnectionLost):
        client.predict(x, model="m", batch_size=1)
    process.wait(10)
    # Four were in flight when the first was read.
    assert 1 <= process.stdout.read().count("predict") <= 4


def test_idempotent_calls_are_repeated_when_the_connection_breaks():
    failures = iter([True, True])
    model = Doubling()

    def answer(path, request, context):
        if next(failures, False):
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        return model(path, request, context)

    with fake_server(answer) as address, Client(address) as client:
        assert client.status("m")[0].state == "AVAILABLE"


def test_a_batch_above_the_servers_limit_says_which():
    details = "Task size 9 is larger than maximum input batch size 8"
    model = Doubling(refusing("INVALID_ARGUMENT", details))
    with (
        fake_server(model) as address,
        Client(address) as client,
        pytest.raises(InvalidRequest, match="Send at most 8 at once: batch_size=8"),
    ):
        client.predict(np.zeros((9, 2)), model="m")


def test_an_answer_that_cannot_be_decoded():
    """A tensor whose bytes do not fill its shape."""

    broken = bytes.fromhex(
        "0a17 0a0179 1212 0801 1208 12020801 12020802 2204 00000000".replace(" ", "")
    )

    def short(path, request, context):
        return broken if path.endswith("/Predict") else Doubling()(path, request, context)

    with (
        fake_server(short) as address,
        Client(address) as client,
        pytest.raises(InvalidResponse, match="must fill the shape"),
    ):
        client.predict(X, model="m")


def test_a_port_that_speaks_http_says_so():
    class Web(http.server.BaseHTTPRequestHandler):
        def log_message(self, *words):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with (
            Client(f"127.0.0.1:{server.server_port}", timeout=5) as client,
            pytest.raises(ServerError) as caught,
        ):
            client.status("m")
        assert "Use the port of the server's gRPC interface" in str(caught.value)
    finally:
        server.shutdown()
        server.server_close()


def test_a_client_that_is_closed_during_a_call():
    inside, release = threading.Event(), threading.Event()

    def before(number, context):
        inside.set()
        release.wait(20)

    errors = []

    def ask(client):
        try:
            client.predict(X, model="m")
        except ServerError as error:
            errors.append(error)

    with fake_server(Doubling(before)) as address:
        client = Client(address)
        thread = threading.Thread(target=ask, args=[client])
        thread.start()
        assert inside.wait(10)
        client.close()
        thread.join(10)
        release.set()
    assert [error.code for error in errors] == ["CANCELLED"]
    assert "closed during the call" in str(errors[0])


def test_random_answers_end_in_one_of_our_errors(rng):
    for _ in range(100):
        raw = rng.bytes(rng.integers(0, 60))
        with fake_server(lambda *call, raw=raw: raw) as address, Client(address) as client:
            try:
                client.metadata("m")
                client.predict(X, model="m")
            except (ServerError, UsageError):
                pass


def test_no_secret_and_no_trace_of_one_is_printed():
    with Client("localhost:1", token="hush", metadata={"x-key": "secret"}) as client:
        assert "hush" not in repr(client._calls._channel_options)
        assert "secret" not in repr(client._calls._channel_options)
        with pytest.raises(ServerUnreachable) as caught:
            client.status("m")
        assert "hush" not in str(caught.value)


def made_calls(**options):
    return Calls(ChannelOptions("localhost:1", timeout=30), **{"max_attempts": 3, **options})


def statuses(*states):
    """Returns the response of GetModelStatus: (version, state, code) of each version."""
    response = pb.GetModelStatusResponse()
    for version, state, code in states:
        status = response.model_version_status.add(version=version, state=state)
        status.status.error_code = code
        status.status.error_message = "text"
    return response.SerializeToString()


AVAILABLE, LOADING, END = (
    pb.ModelVersionStatus.AVAILABLE,
    pb.ModelVersionStatus.LOADING,
    pb.ModelVersionStatus.END,
)
NOT_FOUND = flow.RpcFailure("NOT_FOUND", "no such thing", "r-7")


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (
            statuses(*[(number, AVAILABLE, 0) for number in (3, *range(30, 8, -1))], (99, END, 0)),
            f"Versions of 'm' that are available: {', '.join(map(str, range(11, 31)))}",
        ),
        (statuses((4, AVAILABLE, 0)), "Versions of 'm' that are available: 4"),
        (
            statuses((1, LOADING, 0)),
            "No version of 'm' is available yet: wait, or read the server's log",
        ),
        (NOT_FOUND, "Use the name of a served model; the server has no 'm'"),
        (flow.RpcFailure("UNAVAILABLE", QUEUE), "Use the name of a served model; the server has"),
    ],
)
def test_an_unknown_version_lists_those_that_there_are(answer, hint):
    """The newest twenty. The error is that of the call, also where the question fails too."""
    calls = made_calls(concurrency=1)
    asked = calls.metadata(calls.options("m", version=7))
    assert next(asked).method == methods.GET_MODEL_METADATA
    step = asked.throw(NOT_FOUND)
    assert (step.method, step.timeout) == (methods.GET_MODEL_STATUS, pytest.approx(2, abs=0.5))
    assert pb.GetModelStatusRequest.FromString(step.request).model_spec == pb.ModelSpec(name="m")
    with pytest.raises(ModelNotFound) as caught:
        asked.throw(answer) if isinstance(answer, Exception) else asked.send(answer)
    error = caught.value
    assert (error.code, error.details, error.request_id) == ("NOT_FOUND", "no such thing", "r-7")
    assert error.problem == "localhost:1 has no such model, version or label of 'm'"
    assert error.hint.startswith(hint)


def test_states_that_end_the_wait_and_those_that_do_not():
    calls = made_calls(concurrency=1)
    told = []
    waiting = calls.wait_until_ready(calls.options("m", timeout=60), told.append)
    next(waiting)
    # A version that was unloaded is no failure; neither is a server that is not there yet.
    for answer in (statuses((1, END, 0)), statuses((1, END, 0)), statuses((2, LOADING, 0))):
        assert waiting.send(answer) == flow.Sleep(0.1)
        assert waiting.send(None).method == methods.GET_MODEL_STATUS
    for code in ("UNAVAILABLE", "NOT_FOUND", "DEADLINE_EXCEEDED"):
        assert waiting.throw(flow.RpcFailure(code, "")) == flow.Sleep(0.1)
        waiting.send(None)
    with pytest.raises(StopIteration):
        waiting.send(statuses((2, AVAILABLE, 0), (1, END, 5)))
    assert told == [
        "version 1 END",
        "version 2 LOADING",
        "localhost:1 is unavailable",
        "localhost:1 has no such model, version or label of 'm'",
        "localhost:1 did not answer within 2 s",
        "version 2 AVAILABLE, version 1 END",
    ]
    waiting = calls.wait_until_ready(calls.options("m"), None)
    next(waiting)
    with pytest.raises(ServerError) as caught:
        waiting.send(statuses((2, LOADING, 0), (1, END, pb.NOT_FOUND)))
    assert (caught.value.problem, caught.value.code, caught.value.details) == (
        "Version 1 of 'm' cannot be loaded",
        "NOT_FOUND",
        "text",
    )
    waiting = calls.wait_until_ready(calls.options("m"), None)
    next(waiting)
    with pytest.raises(NotAuthorized):
        waiting.throw(flow.RpcFailure("PERMISSION_DENIED", ""))


def test_a_wait_that_is_over_says_what_it_saw(monkeypatch):
    monkeypatch.setattr(flow, "time", Clock())
    calls = made_calls(concurrency=1)
    waiting = calls.wait_until_ready(calls.options("m", timeout=2.5), None)
    next(waiting)
    flow.time.now += 2.41
    with pytest.raises(DeadlineExceeded) as caught:
        waiting.send(statuses((2, LOADING, 0)))
    assert str(caught.value) == (
        "No version of 'm' became available within 2.5 s. Received: DEADLINE_EXCEEDED: version 2 "
        "LOADING. Wait longer, or read the server's log."
    )


def test_signatures_are_asked_for_once_and_again_by_metadata():
    calls = made_calls(concurrency=1)
    definitions = pb.SignatureDefMap()
    definitions.signature_def["s"].SetInParent()
    response = pb.GetModelMetadataResponse()
    response.metadata["signature_def"].value = definitions.SerializeToString()
    for ask, asks in ((calls.signatures, True), (calls.signatures, False), (calls.metadata, True)):
        found = ask(calls.options("m"))
        if asks:
            request = pb.GetModelMetadataRequest.FromString(next(found).request)
            assert list(request.metadata_field) == ["signature_def"]
            with pytest.raises(StopIteration) as end:
                found.send(response.SerializeToString())
        else:
            with pytest.raises(StopIteration) as end:
                next(found)
        assert list(end.value.value) == ["s"]
    # What the caller gets is his own.
    end.value.value.clear()
    assert list(calls.known_signatures.values()) != [{}]


def test_several_models_are_asked_at_the_same_time():
    calls = made_calls(concurrency=3)
    asked = calls.models(iter(["a", "b"]), calls.deadline(5))
    step = next(asked)
    assert step.limit == 3
    first, second = step.flows
    assert pb.GetModelStatusRequest.FromString(next(first).request).model_spec.name == "a"
    with pytest.raises(StopIteration) as end:
        first.send(statuses((2, LOADING, 0)))
    states = end.value.value
    assert next(second).timeout <= 5
    second.throw(NOT_FOUND)
    with pytest.raises(StopIteration) as end:
        second.throw(NOT_FOUND)
    assert end.value.value == []
    with pytest.raises(StopIteration) as end:
        asked.send([states, []])
    assert end.value.value == {"a": states, "b": []}
    with pytest.raises(UsageError, match="`concurrency` must be positive. Expected: >= 1"):
        made_calls(concurrency=0)
    assert made_calls(concurrency=1).deadline(None).seconds == 30
