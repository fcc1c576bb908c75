"""Responses of hostile servers: bounded by what was asked and declared, before they grow."""

import asyncio
import contextlib
import threading
from concurrent import futures

import grpc
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit.client import AsyncClient, Client, InvalidResponse, MessageTooLarge, ServerError
from cnnkit.client.calls import CallOptions, Calls
from cnnkit.client.channel import ChannelOptions
from cnnkit.client.decode import LayoutCache, decode_predict_response
from cnnkit.client.encode import RequestTarget
from cnnkit.client.expected import ExpectedOutputs, OutputMismatch, check_rows
from cnnkit.client.flow import Deadline, UnaryCall
from cnnkit.client.image_calls import classify_flow, explain_flow, features_flow
from cnnkit.client.metadata import Signature, TensorSpec
from cnnkit.errors import CnnkitError
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.dtypes import TensorError, wire_type
from cnnkit.wire.protobuf import encode_tag
from tests.helpers.fake_servers import Brightness, fake_server
from tests.helpers.wire_bytes import mutated

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Hostile(Brightness):
    """A server that answers Predict, and other calls by path, with bytes of its own.

    Attributes:
        answers: The bytes by path of the method; other calls are answered honestly.
    """

    def __init__(self) -> None:
        super().__init__()
        self.answers = {}

    def __call__(self, path, request, context):
        answer = self.answers.get(path)
        if callable(answer):
            return answer(context)
        return super().__call__(path, request, context) if answer is None else answer


@pytest.fixture(scope="module")
def served():
    model = Hostile()
    with fake_server(model, options=UNLIMITED) as address:
        yield model, address


@pytest.fixture
def hostile(served):
    model, address = served
    model.answers = {}
    with Client(address, timeout=20) as client:
        yield model, client


def tensor(dtype, *shape, **values):
    proto = pb.TensorProto(dtype=dtype, **values)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


def response(**outputs):
    answer = pb.PredictResponse()
    for name, proto in outputs.items():
        answer.outputs[name].CopyFrom(proto)
    return answer.SerializeToString()


def entry(name, raw):
    """A response with one output, whose tensor is given as bytes."""
    content = encode_tag(1, len(name)) + name.encode() + encode_tag(2, len(raw)) + raw
    return encode_tag(1, len(content)) + content


LABELS = tensor(pb.DT_STRING, 1, 2, string_val=[b"day", b"night"])
SCORES = tensor(pb.DT_FLOAT, 1, 2, float_val=[0.75, 0.25])
# What a server answers to one image, and a part of the error.
WRONG = {
    "repeated": (
        response(labels=LABELS, scores=SCORES, more=tensor(pb.DT_FLOAT, 1 << 22)),
        "must be those of the signature. Expected: labels, scores. Received: more",
    ),
    "no outputs": (response(), "must hold all that were asked for"),
    "endless rows": (
        response(labels=tensor(pb.DT_STRING, 1 << 40, 0), scores=SCORES),
        r"'labels' must be as the signature declares it. Expected: string \(n, 2\)",
    ),
    "labels of numbers": (response(labels=SCORES, scores=SCORES), "Received: float32"),
    "scores of texts": (response(labels=LABELS, scores=LABELS), "'scores' must be as the sig"),
    "two rows": (
        response(labels=tensor(pb.DT_STRING, 2, 2), scores=tensor(pb.DT_FLOAT, 2, 2)),
        "must have a row for each image. Expected: 1 rows",
    ),
    "no row": (
        response(labels=tensor(pb.DT_STRING, 0, 2), scores=tensor(pb.DT_FLOAT, 0, 2)),
        "must have a row for each image",
    ),
    "a label of lines": (
        response(labels=tensor(pb.DT_STRING, 1, 2, string_val=[b"\n" * 5000]), scores=SCORES),
        "`labels` must hold short texts. Expected: 4,096 bytes at most. Received: 5,000 bytes",
    ),
    "fields": (b"\x18\x00" * 600_000, "must not have more than 4,096 fields"),
    "empty outputs": (b"\x0a\x00" * 600_000, "must not have more than 4,096 fields"),
    "a group": (bytes(2**20) + b"\x0b", "must be a plain message"),
    "sizes": (
        entry("labels", b"\x08\x07" + encode_tag(2, 2**21) + b"\x12\x00" * 2**20),
        "so many fields besides its values",
    ),
    "strings": (
        entry("labels", LABELS.SerializeToString() + b"\x42\x00" * 600_000),
        "`string_val` must not be longer than its shape. Expected: 2 values at most",
    ),
    "small integers": (
        entry("labels", tensor(9, 1, 2).SerializeToString() + encode_tag(10, 2**21) + bytes(2**21)),
        "`int64_val` must not be longer than its shape. Expected: 2 values",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_one_clear_error_for_both_clients(hostile, name):
    model, client = hostile
    raw, text = WRONG[name]
    model.answers[methods.PREDICT] = raw
    with pytest.raises(InvalidResponse, match=text):
        client.classify(b"B", model="m")

    async def ask():
        async with AsyncClient(client.address, timeout=20) as other:
            await other.classify(b"B", model="m")

    with pytest.raises(InvalidResponse, match=text):
        asyncio.run(ask())


def test_outputs_that_were_not_asked_for_are_not_decoded(hostile):
    model, client = hostile
    # Servers that ignore the filter send all outputs.
    model.answers[methods.PREDICT] = response(labels=tensor(pb.DT_STRING, -1), scores=SCORES)
    found = client.predict(np.array([b"B"], object), model="m", signature="classify_bytes",
                           outputs="scores")  # fmt: skip
    assert {name: array.tolist() for name, array in found.items()} == {"scores": [[0.75, 0.25]]}


def test_all_outputs_together_have_a_limit():
    raw = response(y=tensor(pb.DT_FLOAT, 6), z=tensor(pb.DT_STRING, 2))
    assert set(decode_predict_response(raw, max_bytes=6 * 4 + 2 * 8)[1]) == {"y", "z"}
    for decode in (decode_predict_response, LayoutCache().decode):
        with pytest.raises(TensorError, match="must not be larger than the limit of a message"):
            decode(raw, max_bytes=6 * 4 + 2 * 8 - 1)


@pytest.mark.parametrize(
    ("method", "path", "raw"),
    [
        ("metadata", methods.GET_MODEL_METADATA, b"\x12\x00" * 600_000),
        ("status", methods.GET_MODEL_STATUS, b"\x0a\x00" * 600_000),
    ],
)
def test_signatures_and_states_are_bounded(hostile, method, path, raw):
    model, client = hostile
    model.answers[path] = raw
    with pytest.raises(MessageTooLarge, match="larger than max"):
        getattr(client, method)("m")
    # Within the bytes, too many of them.
    model.answers[path] = raw[:30_000] if method == "status" else signatures(10_001)
    with pytest.raises(InvalidResponse, match="must not list so many"):
        getattr(client, method)("m")


def signatures(count):
    answer = pb.GetModelMetadataResponse()
    names = pb.SignatureDefMap(signature_def={str(n): pb.SignatureDef() for n in range(count)})
    answer.metadata["signature_def"].value = names.SerializeToString()
    return answer.SerializeToString()


def test_a_large_response_and_one_that_unfolds_are_refused(served):
    model, address = served

    def unfold(context):
        context.set_compression(grpc.Compression.Gzip)
        return bytes(2**22)

    with Client(address, max_response_bytes=2**20, timeout=20) as client:
        for answer in (bytes(2**21), unfold):
            model.answers = {methods.PREDICT: answer}
            with pytest.raises(MessageTooLarge, match="max_response_bytes"):
                client.classify(b"B", model="m")


@pytest.mark.parametrize(
    "text",
    [
        f"images[{'9' * 4500}]: no",
        f"input batch size larger than maximum input batch size {'9' * 5000}",
        "9" * 7000,
    ],
)
def test_numbers_in_texts_of_servers_are_read_only_if_they_are_short(hostile, text):
    model, client = hostile
    model.answers[methods.PREDICT] = lambda context: context.abort(
        grpc.StatusCode.INVALID_ARGUMENT, text
    )
    with pytest.raises(ServerError) as raised:
        client.predict(np.zeros((1, 2, 2, 3), np.float32), model="m")
    assert len(str(raised.value)) < 5000


def test_deep_messages_are_refused(hostile):
    model, client = hostile
    # Groups of an unknown field in each other: they begin with 0x7b and end with 0x7c.
    raw = b"\x7b" * 50_000 + b"\x7c" * 50_000
    for path, call in (
        (methods.GET_MODEL_METADATA, client.metadata),
        (methods.GET_MODEL_STATUS, client.status),
        (methods.PREDICT, lambda model: client.classify(b"B", model=model)),
    ):
        model.answers = {path: raw}
        with pytest.raises(InvalidResponse, match="is invalid"):
            call("m")


def test_a_new_version_with_other_outputs_is_read_by_its_own_signature(hostile):
    model, client = hostile
    three = tensor(pb.DT_FLOAT, 1, 3, float_val=[0, 0, 1])
    changed = pb.GetModelMetadataResponse.FromString(
        Brightness()(methods.GET_MODEL_METADATA, b"", None)
    )
    definitions = pb.SignatureDefMap.FromString(changed.metadata["signature_def"].value)
    outputs = definitions.signature_def["serving_default"].outputs
    outputs["probabilities"].tensor_shape.dim[1].size = 3
    changed.metadata["signature_def"].value = definitions.SerializeToString()
    pixels = np.zeros((1, 2, 2, 3), np.float32)
    for _ in range(2):
        assert client.predict(pixels, model="m")["probabilities"].shape == (1, 2)
    model.answers = {
        methods.PREDICT: response(probabilities=three),
        methods.GET_MODEL_METADATA: changed.SerializeToString(),
    }
    for _ in range(2):
        assert client.predict(pixels, model="m")["probabilities"].tolist() == [[0, 0, 1]]


def test_declared_outputs():
    expected = ExpectedOutputs(
        {"y": TensorSpec("float32", (None, 2)), "z": TensorSpec("int64", None)}
    )
    assert expected.is_asked("y") and not ExpectedOutputs(expected.declared, ("z",)).is_asked("y")
    expected.check("y", wire_type(pb.DT_FLOAT), (7, 2))
    expected.check("z", wire_type(pb.DT_INT64), (1, 2, 3))
    for kind, shape in ((pb.DT_DOUBLE, (7, 2)), (pb.DT_FLOAT, (7, 3)), (pb.DT_FLOAT, (7,))):
        with pytest.raises(OutputMismatch, match="'y' must be as the signature declares it"):
            expected.check("y", wire_type(kind), shape)
    expected.check_names({"y", "z"})
    with pytest.raises(OutputMismatch, match="Received: y"):
        expected.check_names(["y"])


def test_what_an_error_of_outputs_says():
    expected = ExpectedOutputs({"y": TensorSpec("float32", (None, 2)), "z": TensorSpec("int8", ())})
    for names, asked, text in (
        ([], (), "Expected: y, z. Received: none."),
        (["z"], ("z", "y"), "Expected: z, y. Received: z."),
    ):
        with pytest.raises(OutputMismatch) as caught:
            ExpectedOutputs(expected.declared, asked).check_names(names)
        assert str(caught.value) == (
            f"`outputs` of the response must hold all that were asked for. {text}"
        )
    ExpectedOutputs(expected.declared, ("z",)).check_names(["z"])
    with pytest.raises(OutputMismatch) as caught:
        expected.is_asked("w")
    assert str(caught.value) == (
        "`outputs` of the response must be those of the signature. Expected: y, z. Received: w."
    )
    with pytest.raises(OutputMismatch) as caught:
        expected.check("y", wire_type(pb.DT_HALF), (3, 2))
    assert str(caught.value) == (
        "Output 'y' must be as the signature declares it. Expected: float32 (n, 2). "
        "Received: float16 (3, 2)."
    )


def test_rows_of_images():
    # Without a number of axes, any but none; numbers may be flags and those of bfloat16.
    check_rows({"y": np.zeros(2), "x": np.zeros((2, 1, 1))}, 2)
    for kind in (bool, np.uint8, ml_dtypes.bfloat16):
        check_rows({"y": np.zeros(2, kind), "t": np.array(["a", "b"])}, 2, numbers=["y"])
    with pytest.raises(TensorError, match="Expected: 2 rows, 1 axes. Received: shape .."):
        check_rows({"y": np.zeros(())}, 2)
    check_rows({"y": np.zeros((2, 3))}, 2, axes={"y": 2}, numbers=["y"])
    for array in (np.zeros((3, 3)), np.zeros(2), np.zeros((2, 0)), np.zeros(())):
        with pytest.raises(TensorError, match="must have a row for each image"):
            check_rows({"y": array}, 2, axes={"y": 2})
    with pytest.raises(TensorError, match="must hold real numbers"):
        check_rows({"y": np.zeros((2, 3), complex)}, 2, numbers=["y"])


OUTPUTS = {
    "labels": (TensorSpec("string", (None, 2)), LABELS),
    "scores": (TensorSpec("float32", (None, 2)), SCORES),
    "projection": (TensorSpec("float32", (None, 2, 2, 3)), tensor(pb.DT_FLOAT, 1, 2, 2, 3)),
    "features": (TensorSpec("float32", (None, None)), tensor(pb.DT_FLOAT, 1, 2)),
    "probabilities": (TensorSpec("float32", None), SCORES),
}
ENCODED = {"image_bytes": TensorSpec("string", (None,))}
TARGET = RequestTarget("m")
FLOWS = {
    "classify_bytes": lambda calls, options: classify_flow(calls, b"B", None, options),
    "explain_bytes": lambda calls, options: explain_flow(calls, b"B", None, options),
    "features_bytes": lambda calls, options: features_flow(calls, b"B", options),
}


@st.composite
def answers(draw):
    """A response with some of the outputs, each honest or another's tensor; bytes are changed."""
    given = draw(st.dictionaries(st.sampled_from([*OUTPUTS, "other"]), st.sampled_from([*OUTPUTS])))
    return response(**{name: OUTPUTS[of][1] for name, of in given.items()})


def take(flow, raw):
    """Run a flow whose calls are all answered with the same bytes."""
    step = next(flow)
    try:
        while True:
            assert isinstance(step, UnaryCall)
            step = flow.send(raw)
    except StopIteration as end:
        return end.value


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([*FLOWS]),
    st.sets(st.sampled_from([*OUTPUTS]), min_size=1),
    mutated(answers()),
)
def test_any_response_is_a_result_or_one_clear_error(name, declared, raw):
    declared |= {"features"} if name == "features_bytes" else set()
    calls = Calls(ChannelOptions("localhost:1"), 1, 1)
    outputs = {of: OUTPUTS[of][0] for of in declared}
    calls.known_signatures[TARGET] = {name: Signature(ENCODED, outputs)}
    try:
        found = take(FLOWS[name](calls, CallOptions(TARGET, Deadline(10))), raw)
    except CnnkitError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert len(found) == 1


@settings(max_examples=60, deadline=None)
@given(mutated(st.sampled_from([signatures(2), response(labels=LABELS), b"\x0a\x02\x08\x01"])))
def test_any_metadata_is_a_result_or_one_clear_error(raw):
    calls = Calls(ChannelOptions("localhost:1"), 1, 1)
    for flow in (calls.metadata, calls.status):
        with contextlib.suppress(CnnkitError):
            take(flow(CallOptions(TARGET, Deadline(10))), raw)


def test_an_endless_stream_ends_with_the_deadline():
    """A server that answers one request with message after message."""
    stopped = threading.Event()

    class Endless(grpc.GenericRpcHandler):
        def service(self, details):
            def answer(request, context):
                context.add_callback(stopped.set)
                while not stopped.is_set():
                    yield bytes(2**16)

            return grpc.unary_stream_rpc_method_handler(answer)

    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([Endless()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"127.0.0.1:{port}", timeout=0.5) as client, pytest.raises(ServerError):
            client.status("m")
        assert stopped.wait(20)
    finally:
        server.stop(None).wait()
