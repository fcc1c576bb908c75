"""Requests from templates: the same bytes as without, and the same errors."""

import threading

import numpy as np
import pytest

from cnnkit.client import inputs, predict_calls
from cnnkit.client.calls import CallOptions, Calls
from cnnkit.client.channel import ChannelOptions
from cnnkit.client.encode import RequestTarget
from cnnkit.client.errors import InvalidRequest
from cnnkit.client.flow import Deadline, Gather, RpcFailure, UnaryCall
from cnnkit.client.metadata import Signature, TensorSpec
from cnnkit.client.predict_calls import predict_flow
from cnnkit.errors import UsageError
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.tensors import decode_tensor, encode_values

TARGET = RequestTarget("m", version=3)
RESPONSE = pb.PredictResponse(
    outputs={name: encode_values(np.float32([[7]])) for name in ("y", "z")}
).SerializeToString()


def signature(dtype="float32", shape=(None, 2, 3)):
    outputs = {name: TensorSpec("float32", (None, 1)) for name in ("y", "z")}
    return Signature({"x": TensorSpec(dtype, shape)}, outputs)


def options(batch_size=None):
    return CallOptions(TARGET, Deadline(10), batch_size)


class Server:
    """Answers a client's Predict calls, and remembers them."""

    def __init__(self, signature):
        self.calls = Calls(ChannelOptions("localhost:1"), 1, 1)
        self.calls.known_signatures[TARGET] = {"s": signature}
        self.requests = []

    def ask(self, array, outputs=(), rows=None, failure=None):
        """Sends an array; returns the only request that was made."""
        begun = len(self.requests)
        flow = predict_flow(self.calls, array, "s", outputs, options(rows))
        step = next(flow)
        try:
            while True:
                assert isinstance(step, UnaryCall)
                self.requests.append(pb.PredictRequest.FromString(step.request))
                step = flow.send(RESPONSE) if failure is None else flow.throw(failure)
        except StopIteration as end:
            assert end.value["y"].tolist() == [[7]]
        [request] = self.requests[begun:]
        return request


def check(request, array, outputs=()):
    assert (request.model_spec.name, request.model_spec.version.value) == ("m", 3)
    assert request.model_spec.signature_name == "s"
    assert list(request.output_filter) == list(outputs)
    assert list(request.inputs) == ["x"]
    assert request.inputs["x"].dtype
    sent = decode_tensor(request.inputs["x"])
    assert sent.shape == np.shape(array)
    np.testing.assert_array_equal(sent, array)


@pytest.mark.parametrize(
    "arguments",
    [
        {"model": ""},
        {"model": 5},
        {"model": "half \ud800"},
        {"model": "m", "version": -1},
        {"model": "m", "version": 2**63},
        {"model": "m", "version_label": ""},
    ],
)
def test_names_and_versions_that_cannot_be_sent(arguments):
    with pytest.raises(UsageError, match="`(model|version|version_label)` must be"):
        RequestTarget(**arguments)
    for version in (0, 2**63 - 1):
        assert RequestTarget("m", version=version).model_spec("s") == pb.ModelSpec(
            name="m", version={"value": version}, signature_name="s"
        )
    assert RequestTarget("m", version_label="a").model_spec().version_label == "a"


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int64", "bool", "complex64"])
def test_the_second_is_sent_as_the_first(rng, dtype):
    server = Server(signature(dtype))
    for _ in range(3):
        for outputs in ((), ("y",), ("z", "y")):
            for rows in (1, 4):
                array = rng.uniform(0, 9, (rows, 2, 3)).astype(dtype)
                check(server.ask(array, outputs), array, outputs)


def test_only_the_first_is_validated(rng, monkeypatch):
    server = Server(signature())
    server.ask(np.zeros((2, 2, 3), np.float32))
    monkeypatch.setattr("cnnkit.client.predict_calls.bind_inputs", None)
    array = rng.uniform(size=(2, 2, 3)).astype(np.float32)
    check(server.ask(array), array)
    with pytest.raises(TypeError):
        server.ask(np.zeros((3, 2, 3), np.float32))


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((0, 2, 3), np.float32),
        np.zeros((2, 3, 2), np.float32),
        np.zeros((2, 2, 3, 1), np.float32),
        np.zeros((2, 2, 3), np.complex64),
        np.full((2, 2, 3), b"a", object),
        {"w": np.zeros((2, 2, 3), np.float32)},
    ],
    ids=str,
)
def test_what_is_wrong_is_refused_after_what_was_right(wrong):
    server = Server(signature())
    for _ in range(2):
        server.ask(np.zeros((2, 2, 3), np.float32))
    known = server.calls.known_signatures[TARGET]
    for _ in range(2):
        flow = predict_flow(server.calls, wrong, "s", (), options())
        # It asks for the metadata again: the model may have changed.
        assert next(flow).method.endswith("GetModelMetadata")
        server.calls.known_signatures[TARGET] = known
    with pytest.raises(UsageError):
        list(predict_calls._bind(server.calls, wrong, "s", (), options()))


def test_arrays_that_are_not_sent_as_they_lie_in_memory(rng):
    server = Server(signature())
    array = rng.uniform(size=(2, 2, 3)).astype(np.float32)
    for given in (array, np.asfortranarray(array), array[::-1], array.astype(">f4"), array):
        check(server.ask(given), given)
    for given in (array.astype("f8"), array.astype("f8"), (9 * array).astype("u1")) * 2:
        request = server.ask(given)
        assert request.inputs["x"].dtype == pb.DT_FLOAT
        check(request, given.astype(np.float32))
    single = array[0]
    for _ in range(2):
        check(server.ask(single), single[np.newaxis])


def test_strings_have_lengths_of_their_own():
    server = Server(signature("string", (None,)))
    for values in ([b"a", b""], [b"\0" * 300, b"b"], ["\u00e9", "x"]):
        given = np.array(values, object)
        request = server.ask(given)
        assert list(request.inputs["x"].string_val) == [
            value.encode() if isinstance(value, str) else value for value in values
        ]


def test_so_many_strings_are_one_request_or_several_by_their_lengths(monkeypatch):
    monkeypatch.setattr(inputs, "MAX_REQUEST_BYTES", 1600)
    server = Server(signature("string", (None,)))
    for length, rows in ((10, None), (790, None), (810, None), (10, 2)):
        given = np.array([b"a" * length] * 2, object)
        if length == 810:
            flow = predict_flow(server.calls, given, "s", (), options(rows))
            assert isinstance(next(flow), Gather)
        else:
            check(server.ask(given, rows=rows), given)
    given = np.array([b"a"] * 65, object)
    for _ in range(2):
        check(server.ask(given, rows=100), given)


def test_a_template_is_for_one_batch_size():
    server = Server(signature())
    array = np.zeros((3, 2, 3), np.float32)
    for rows in (None, 3, None):
        check(server.ask(array, rows=rows), array)
    flow = predict_flow(server.calls, array, "s", (), options(2))
    assert not isinstance(next(flow), UnaryCall), "two requests"


def test_another_version_of_the_model_is_checked_against():
    server = Server(signature())
    array = np.zeros((2, 2, 3), np.float32)
    server.ask(array)
    server.calls.known_signatures[TARGET] = {"s": signature(shape=(None, 2, 4))}
    with pytest.raises(UsageError, match="wrong shape"):
        list(predict_calls._bind(server.calls, array, "s", (), options()))
    flow = predict_flow(server.calls, array, "s", (), options())
    assert next(flow).method.endswith("GetModelMetadata")


def test_after_a_refusal_the_model_is_asked_for_anew():
    server = Server(signature())
    array = np.zeros((2, 2, 3), np.float32)
    server.ask(array)
    with pytest.raises(InvalidRequest):
        server.ask(array, failure=RpcFailure("INVALID_ARGUMENT", "no"))
    assert TARGET not in server.calls.known_signatures


def test_the_number_of_templates_is_limited():
    server = Server(signature(shape=(None, None, 3)))
    for size in range(1, 200):
        server.ask(np.zeros((1, size, 3), np.float32))
        assert len(server.calls.templates._templates) == (size - 1) % 64 + 1


def test_threads_share_them(rng):
    server = Server(signature(shape=(None, None, 3)))
    arrays = [rng.uniform(size=(1, size, 3)).astype(np.float32) for size in range(1, 100)]
    failures = []

    def work(order):
        try:
            own = Server(signature())
            own.calls = server.calls
            for place in order:
                check(own.ask(arrays[place]), arrays[place])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[rng.permutation(99)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
