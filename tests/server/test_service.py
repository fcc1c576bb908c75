"""Random bytes, clients that stall or vanish, and many clients: the server keeps answering.

In most tests a second client predicts all the while, and each of its answers is compared.
"""

import contextlib
import gc
import gzip
import random
import resource
import socket
import struct
import sys
import time
from types import SimpleNamespace, TracebackType

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit.client import Client, ServerError
from cnnkit.server import EmbeddedServer
from cnnkit.server.calls import MAX_SMALL_REQUEST_BYTES, parse_small
from cnnkit.server.memory_budget import MemoryBudget
from cnnkit.server.predict import PreparedCall
from cnnkit.server.service import _serialize
from cnnkit.server.status_error import StatusError
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from tests.helpers.busy_server import IMAGE, check_answer, code_of, predict_request, send, served
from tests.helpers.serving import (
    SIZE,
    error_of_call,
)

ALL_METHODS = [
    methods.PREDICT,
    methods.GET_MODEL_METADATA,
    methods.CLASSIFY,
    methods.REGRESS,
    methods.MULTI_INFERENCE,
    methods.GET_MODEL_STATUS,
    methods.RELOAD_CONFIG,
]


# Codes of invalid requests. INTERNAL: the message cannot be parsed.
CLIENTS_FAULT = {
    "INTERNAL",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "FAILED_PRECONDITION",
    "RESOURCE_EXHAUSTED",
}


@pytest.mark.parametrize("window", [0, 0.002])
def test_random_bytes(colors_folder, window):
    chance = random.Random(0)
    with served(colors_folder, batch_timeout_seconds=window) as (_, channel):
        for method in ALL_METHODS:
            calls = [
                send(channel, chance.randbytes(chance.randrange(300)), method) for _ in range(60)
            ]
            assert {code_of(call) for call in calls} <= CLIENTS_FAULT


def test_truncated_messages(colors_folder, png):
    with served(colors_folder) as (_, channel):
        for request in (predict_request(), predict_request([png(1, 2, 3)], "serving_bytes")):
            raw = request.SerializeToString(deterministic=True)
            calls = [send(channel, raw[:length]) for length in range(0, len(raw), 5)]
            codes = [code_of(call) for call in calls]
            # A message cut within a field cannot be parsed; cut between two, it lacks an input.
            assert set(codes) <= {"INTERNAL", "INVALID_ARGUMENT"}
            assert "INTERNAL" in codes
            assert code_of(send(channel, raw)) == "OK"


NAMES = st.one_of(
    st.sampled_from(["images", "image_bytes", "a", "b", "colors", "serving_bytes", "two_inputs"]),
    st.text(max_size=12),
)


@st.composite
def tensors(draw):
    tensor = pb.TensorProto(dtype=draw(st.one_of(st.sampled_from([1, 7, 9]), st.integers(0, 130))))
    sizes = st.one_of(st.integers(-3, 9), st.integers(-(2**63), 2**63 - 1))
    for size in draw(st.lists(sizes, max_size=6)):
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_shape.unknown_rank = draw(st.booleans())
    tensor.tensor_content = draw(st.binary(max_size=200))
    tensor.float_val.extend(draw(st.lists(st.floats(width=32), max_size=5)))
    tensor.int64_val.extend(draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3)))
    tensor.half_val.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3)))
    tensor.string_val.extend(draw(st.lists(st.binary(max_size=20), max_size=3)))
    return tensor


@st.composite
def requests(draw):
    request = pb.PredictRequest()
    spec = request.model_spec
    spec.name = draw(st.one_of(st.just("colors"), NAMES))
    spec.signature_name = draw(st.one_of(st.just(""), NAMES))
    chosen = draw(st.sampled_from(["", "version", "label"]))
    if chosen == "version":
        spec.version.value = draw(st.one_of(st.just(2), st.integers(-(2**63), 2**63 - 1)))
    elif chosen == "label":
        spec.version_label = draw(NAMES)
    for name, tensor in draw(st.dictionaries(NAMES, tensors(), max_size=3)).items():
        request.inputs[name].CopyFrom(tensor)
    request.output_filter.extend(draw(st.lists(NAMES, max_size=2)))
    return request


def test_messages_of_any_content(colors_folder):
    with served(colors_folder, batch_timeout_seconds=0.001) as (_, channel):

        @settings(max_examples=400)
        @given(requests())
        def refused_or_answered(request):
            call = send(channel, request.SerializeToString())
            if code_of(call) == "OK":
                assert pb.PredictResponse.FromString(call.result()).model_spec.name == "colors"
            else:
                assert code_of(call) in CLIENTS_FAULT
                assert "server's log" not in call.details()

        refused_or_answered()


def test_refused_requests_leave_no_errors_for_the_garbage_collector(colors_folder):
    """Tracebacks keep requests alive, and with TensorFlow loaded gc runs rarely."""
    raw = predict_request(IMAGE[..., :2]).SerializeToString()
    with served(colors_folder) as (_, channel):
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(20):
                assert code_of(send(channel, raw)) == "INVALID_ARGUMENT"
            gc.collect()
            left = [one for one in gc.garbage if isinstance(one, (BaseException, TracebackType))]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert not left


def holders(message):
    """Returns the kinds of the objects that hold an equal message."""
    # Those of the imports are looked at too.
    gc.unfreeze()
    objects = gc.get_objects()
    gc.freeze()

    def is_equal(held):
        return type(held) is bytes and held == message and held is not message

    # In one call for all of them: there are millions.
    if not any(type(held) is bytes and is_equal(held) for held in gc.get_referents(*objects)):
        return []
    return [type(one).__name__ for one in objects if any(map(is_equal, gc.get_referents(one)))]


def test_the_message_of_an_ended_call_is_not_kept(colors_folder):
    """The iterator of gRPC keeps it in a cycle: 5 requests of 180 MB took 3.2 GB for good."""
    request = predict_request(np.zeros((100, SIZE, SIZE, 3), np.float32))
    with served(colors_folder) as (_, channel):
        gc.collect()
        gc.disable()
        try:
            for name, code in (("colors", "OK"), ("nope", "NOT_FOUND")):
                request.model_spec.name = name
                raw = request.SerializeToString()
                assert code_of(send(channel, raw)) == code
                # The server ends the call after it has answered.
                end = time.monotonic() + 10
                while holders(raw) and time.monotonic() < end:
                    time.sleep(0.05)
                assert not holders(raw)
        finally:
            gc.enable()


@pytest.mark.parametrize("window", [0, 0.002])
def test_batches_of_very_many(colors_folder, window):
    with served(colors_folder, batch_timeout_seconds=window) as (_, channel):
        many = np.zeros((50_000, SIZE, SIZE, 3), np.float32)
        for request in (
            predict_request(many),
            predict_request([b""] * 60_000, "serving_bytes"),
        ):
            call = send(channel, request.SerializeToString())
            assert code_of(call) == "INVALID_ARGUMENT"
            assert "is larger than maximum input batch size 256" in call.details()


class Http2:
    """An HTTP/2 client that can stop anywhere; it sends one call on its first stream."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        # SETTINGS, and the acknowledgment of the server's, which permit 4 MiB a stream.
        settings = self._frame(4, 0, 0, b"") + self._frame(4, 1, 0, b"")
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)

    @staticmethod
    def _frame(kind, flags, stream, payload):
        return (
            struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload
        )

    def begin(self, path, length):
        """Sends the headers of a call, and the header of a message of `length` bytes."""
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
        # Literals without Huffman codes or a table.
        block = b"".join(
            b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
            for name, value in fields
        )
        self.socket.sendall(self._frame(1, 4, 1, block))
        self.go_on(struct.pack(">BI", 0, length))

    def go_on(self, data):
        self.socket.sendall(self._frame(0, 0, 1, data))

    def until(self, text):
        """Reads until a text arrives; returns False if the connection ends before."""
        seen = b""
        while text not in seen:
            more = self.socket.recv(65536)
            if not more:
                return False
            seen += more
        return True

    def close(self):
        self.socket.close()


@pytest.fixture
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    if wanted < 3000:
        pytest.skip(f"this system allows {wanted} open files; 3000 are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_connections(colors_folder, many_files):
    with served(colors_folder) as (address, channel), contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(contextlib.closing(Http2(address))) for _ in range(1000)]
        # The server has accepted each connection: it has sent its SETTINGS.
        for one in crowd:
            assert len(one.socket.recv(9)) == 9
        check_answer(send(channel, predict_request().SerializeToString()).result())
        raw = predict_request().SerializeToString()
        for one in crowd[::20]:
            one.begin(methods.PREDICT, len(raw))
            one.go_on(raw)
            assert one.until(b"probabilities")


def test_connections_that_speak_no_grpc(colors_folder):
    with served(colors_folder) as (address, channel), contextlib.ExitStack() as stack:
        host, _, port = address.rpartition(":")
        chance = random.Random(0)
        for number in range(60):
            one = stack.enter_context(socket.create_connection((host, int(port)), timeout=30))
            with contextlib.suppress(ConnectionError):
                one.sendall(
                    [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", chance.randbytes(500)][number % 3]
                )
        check_answer(send(channel, predict_request().SerializeToString()).result())


def test_slow_clients_time_out_and_take_no_slot(colors_folder):
    """There are more slow clients than slots; a request takes a slot when it has arrived."""
    raw = predict_request().SerializeToString()
    with (
        served(colors_folder, max_concurrent_requests=4, receive_timeout_seconds=2) as (
            address,
            channel,
        ),
        contextlib.ExitStack() as stack,
    ):
        slow = [stack.enter_context(contextlib.closing(Http2(address))) for _ in range(40)]
        for one in slow:
            one.begin(methods.PREDICT, len(raw))
        for byte in raw[:10]:
            for one in slow:
                one.go_on(bytes([byte]))
        check_answer(send(channel, raw).result())
        for one in slow:
            assert one.until(b"did not arrive within 2 seconds")
        # A slow client within the timeout is answered.
        late = stack.enter_context(contextlib.closing(Http2(address)))
        late.begin(methods.PREDICT, len(raw))
        for start in range(0, len(raw), 100):
            late.go_on(raw[start : start + 100])
            time.sleep(0.02)
        assert late.until(b"probabilities")


@pytest.mark.skipif(sys.platform != "linux", reason="messages in reception are counted on Linux")
def test_messages_that_stall_take_no_more_than_the_memory(colors_folder):
    """The largest one is refused as soon as they exceed the memory; the server answers on."""
    megabyte = 2**20
    with (
        served(colors_folder, max_request_bytes=megabyte, max_memory_bytes=2 * megabyte) as (
            address,
            channel,
        ),
        contextlib.ExitStack() as stack,
    ):
        stalled = [stack.enter_context(contextlib.closing(Http2(address))) for _ in range(3)]
        # Each byte counts twice: when the memory is full, the last one has sent at least 11 / 16.
        for one, frames in zip(stalled, (10, 10, 60), strict=True):
            one.begin(methods.PREDICT, megabyte - 1)
            for _ in range(frames):
                one.go_on(bytes(2**14))
        assert stalled[2].until(b"Server memory for requests is full")
        check_answer(send(channel, predict_request().SerializeToString()).result())


def test_messages_of_many_fields_are_refused(colors_folder):
    """Two bytes of a message are a hundred in memory."""
    packed = gzip.compress(b"\x12\0" * 2**24, 1)
    with served(colors_folder) as (_, channel):
        for method in ALL_METHODS:
            for raw in (b"\x0a\0" * 2**20, b"\x12\0" * 2**20, packed):
                call = send(channel, raw, method)
                assert code_of(call) in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")


@pytest.mark.parametrize("window", [0, 0.01])
def test_clients_that_disconnect_during_a_call(colors_folder, window):
    raw = predict_request().SerializeToString()
    # If one of them kept its slot, no slot would be left after the first few.
    with served(
        colors_folder, max_concurrent_requests=4, max_open_requests=8, batch_timeout_seconds=window
    ) as (address, channel):
        for number in range(60):
            one = Http2(address)
            one.begin(methods.PREDICT, len(raw))
            # During the message, or while the graph runs.
            one.go_on(raw[:50] if number % 2 else raw)
            one.close()
            if number % 4 == 3:
                time.sleep(0.1)
        for _ in range(40):
            call = channel.unary_unary(methods.PREDICT).future(raw, timeout=30)
            call.cancel()
            time.sleep(0.01)
        check_answer(send(channel, raw).result())


@pytest.mark.parametrize("method", [methods.CLASSIFY, methods.REGRESS, methods.MULTI_INFERENCE])
def test_example_calls_are_refused(call_server, method):
    spec = pb.ModelSpec(name="colors")
    if method == methods.MULTI_INFERENCE:
        request = pb.MultiInferenceRequest(tasks=[pb.InferenceTask(model_spec=spec)])
    else:
        request = pb.ClassificationRequest(model_spec=spec)
    code, text = error_of_call(call_server, method, request)
    assert code == "INVALID_ARGUMENT"
    assert " inputs found in SignatureDef" in text
    assert "serving_default_images:0" in text
    spec.name = "nope"
    if method == methods.MULTI_INFERENCE:
        request.tasks[0].model_spec.name = "nope"
    else:
        request.model_spec.name = "nope"
    assert error_of_call(call_server, method, request)[0] == "NOT_FOUND"


def test_an_internal_error_has_a_status(colors_folder, monkeypatch, caplog):
    with EmbeddedServer({"colors": colors_folder}) as server, Client(server.address) as client:
        client.metadata("colors")
        find = server.repository.find

        def broken(spec):
            raise KeyError("oops")

        monkeypatch.setattr(server.repository, "find", broken)
        with pytest.raises(ServerError) as caught:
            client.metadata("colors")
        assert caught.value.code == "INTERNAL"
        text, _, number = caught.value.details.rpartition(" ")
        assert text == "KeyError; see the server's log of request"
        monkeypatch.setattr(server.repository, "find", find)
        assert client.metadata("colors")
    assert f"An error of the server in request {number}" in caplog.text


def test_health(colors_server):
    with grpc.insecure_channel(colors_server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "PredictionService", "ModelService", "colors"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="color"), timeout=10)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_small_requests_are_small_also_unpacked():
    """2**20 bytes, before and after: a configuration of many models has fewer."""
    most = MAX_SMALL_REQUEST_BYTES
    assert most == 2**20
    name = b"\x0a" + bytes(
        [*[0x80 | (most - 8) >> shift & 0x7F for shift in (0, 7)], most - 8 >> 14]
    )
    spec = name + b"m" * (most - 8)
    raw = b"\x0a" + bytes([0x80 | len(spec) & 0x7F, 0x80 | len(spec) >> 7 & 0x7F, len(spec) >> 14])
    raw += spec
    assert len(raw) == most
    with MemoryBudget(2**22).open() as memory:
        for sent in (raw, gzip.compress(raw)):
            parsed = parse_small(pb.GetModelStatusRequest, sent, memory)
            assert parsed.model_spec.name == "m" * (most - 8)
        text = f"^The request has {most + 1} bytes, and may have {most}$"
        with pytest.raises(StatusError, match=text) as caught:
            parse_small(pb.GetModelStatusRequest, bytes(most + 1), memory)
        assert caught.value.code.name == "INVALID_ARGUMENT"
        with pytest.raises(StatusError, match="larger than max"):
            parse_small(pb.GetModelStatusRequest, gzip.compress(bytes(most + 1)), memory)


def test_the_memory_of_a_response():
    """The values in the message, and its bytes."""
    called = PreparedCall(SimpleNamespace(name="m", version=3), "s", {}, ("y",), 1)
    outputs = {"y": np.float32([1, 2]), "z": np.zeros(3)}
    with MemoryBudget(2 * (8 + 24)).open() as memory:
        response = pb.PredictResponse.FromString(_serialize(called, outputs, memory))
    assert list(response.outputs["y"].float_val) == [1, 2]
    with (
        MemoryBudget(2 * (8 + 24) - 1).open() as memory,
        pytest.raises(StatusError, match="Server memory for requests is full"),
    ):
        _serialize(called, outputs, memory)
