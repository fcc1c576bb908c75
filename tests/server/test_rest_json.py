"""JSON of requests and responses: its memory, its numbers, its texts."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from cnnkit.server.memory_budget import MemoryBudget
from cnnkit.server.predict import PreparedCall
from cnnkit.server.rest_json import parse_request, predict_functions, to_array
from cnnkit.server.status_error import StatusError
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.tensors import decode_tensor

COUNT = 20_000
# What takes most memory for its bytes.
DOCUMENTS = {
    "objects": b"{}," * COUNT,
    "objects with a name": b'{"a":1},' * COUNT,
    "lists": b"[]," * COUNT,
    "lists of one": b"[1]," * COUNT,
    "numbers": b"0.5," * COUNT,
    "integers": b"12345678901234567890," * COUNT,
    "texts": b'"ab",' * COUNT,
    "one text": b'"%s",' % (b"a" * 10 * COUNT),
    "a wide text": b'"%s\\ud83d\\ude00",' % (b"a" * 10 * COUNT),
    "wide texts": '"\U0001f600",'.encode() * COUNT,
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_the_memory_of_a_document_is_counted_before_it_is_parsed(case):
    raw = b'{"instances": [' + DOCUMENTS[case] + b"0]}"
    budget = MemoryBudget(2**30)
    tracemalloc.start()
    try:
        with budget.open() as memory:
            parse_request(raw, memory, 2**30)
            taken = tracemalloc.get_traced_memory()[1]
            assert taken <= budget.used + 2**16
        with (
            MemoryBudget(taken // 2).open() as memory,
            pytest.raises(StatusError, match="memory for requests is full"),
        ):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            parse_request(raw, memory, 2**30)
        assert tracemalloc.get_traced_memory()[1] - before < len(raw) // 4 + 2**16
    finally:
        tracemalloc.stop()


def written(document, **outputs):
    """Returns the response to a request that a server has read as `document`."""
    read, write = predict_functions(pb.ModelSpec(name="digits"), 2**20)
    with MemoryBudget(2**20).open() as memory:
        definition = pb.SignatureDef()
        definition.inputs["x"].dtype = pb.DT_FLOAT
        servable = type("Servable", (), {"definitions": pb.SignatureDefMap()})
        servable.definitions.signature_def["serving_default"].CopyFrom(definition)
        read(document, lambda spec: servable, memory)
        call = PreparedCall(servable, "serving_default", {}, tuple(outputs), 2)
        return write(call, outputs, memory).decode()


def test_outputs_as_documented():
    """Shortest digits of float32; base64 where a name ends in _bytes; one output has no name."""
    values = np.float32([[0.1, 1e-5], [np.nan, -np.inf]])
    expected = '{"predictions": [[0.1, 1e-05], [NaN, -Infinity]]}'
    assert written(b'{"instances": [1, 2]}', a=values) == expected
    text = np.array([b"cat", b"\xff"], object)
    assert written(b'{"inputs": [1, 2]}', a=text, b_bytes=text, c=np.array([True, False])) == (
        '{"outputs": {"a": ["cat", "\\ufffd"], "b_bytes": [{"b64": "Y2F0"}, {"b64": "/w=="}], '
        '"c": [true, false]}}'
    )


def test_rows_of_outputs_without_rows_are_refused():
    for outputs in ({"a": np.zeros(2), "b": np.zeros(3)}, {"a": np.float32(1)}):
        with pytest.raises(StatusError, match="must have the same first dimension.*send 'inputs'"):
            written(b'{"instances": [1, 2]}', **outputs)


@pytest.mark.parametrize(
    ("number", "values", "dtype"),
    [
        (pb.DT_FLOAT, [2**24 - 1, -(2**24) + 1, 0.5], "float32"),
        # A float is rounded, and only an integer must be exact.
        (pb.DT_FLOAT, [16777217.0, 3.4028234663852886e38, 1], "float32"),
        (pb.DT_FLOAT, [np.inf, -np.inf, np.nan, 7], "float32"),
        (pb.DT_DOUBLE, [2**53 - 1, 1e308], "float64"),
        (pb.DT_HALF, [2**11 - 1, 65504.0, -65504.0], "float16"),
        (pb.DT_INT8, [-128, 127], "int8"),
        (pb.DT_UINT8, [0, 255], "uint8"),
        (pb.DT_INT64, [-(2**63), 2**63 - 1], "int64"),
        (pb.DT_UINT64, [0, 2**64 - 1], "uint64"),
        (pb.DT_BOOL, [True, False], "bool"),
        (pb.DT_FLOAT, [], "float32"),
        (pb.DT_FLOAT, [[], []], "float32"),
        (pb.DT_FLOAT, 1.5, "float32"),
        (pb.DT_INT32, [[[1], [2]], [[3], [4]]], "int32"),
    ],
)
def test_values_of_every_type_up_to_its_limits(number, values, dtype):
    expected = np.array(values, dtype)
    found = to_array("x", values, number)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("number", "values", "text"),
    [
        (pb.DT_FLOAT, [0.5, 2**24], "Cannot convert JSON value: 16777216 to float32 without loss"),
        (pb.DT_FLOAT, [-(2**24)], "Cannot convert JSON value: -16777216 to float32 without loss"),
        (pb.DT_FLOAT, [1, 3.5e38], "Cannot convert JSON value: 3.5e+38 to float32 without loss"),
        (pb.DT_FLOAT, [-3.5e38], "Cannot convert JSON value: -3.5e+38 to float32 without loss"),
        (pb.DT_DOUBLE, [2**53], "Cannot convert JSON value: 9007199254740992 to float64 without"),
        (pb.DT_HALF, [2**11], "Cannot convert JSON value: 2048 to float16 without loss"),
        (pb.DT_HALF, [65505.0], "Cannot convert JSON value: 65505.0 to float16 without loss"),
        (pb.DT_INT8, [1, -129], "JSON Value: -129 Type: Number is not of expected type: int8"),
        (pb.DT_INT8, [128, 1], "JSON Value: 128 Type: Number is not of expected type: int8"),
        (pb.DT_UINT8, [-1], "JSON Value: -1 Type: Number is not of expected type: uint8"),
        (pb.DT_INT32, [True], "JSON Value: true Type: True is not of expected type: int32"),
        (pb.DT_INT32, [1, 1.0], "JSON Value: 1.0 Type: Number is not of expected type: int32"),
        (pb.DT_BOOL, [True, 1], "JSON Value: 1 Type: Number is not of expected type: bool"),
        (pb.DT_FLOAT, [{}], "JSON Value: {} Type: Object is not of expected type: float32"),
        (pb.DT_FLOAT, [1, []], "JSON Value: [] Type: Array is not of expected type: float32"),
        (
            pb.DT_FLOAT,
            [[1], 2],
            "JSON Value: 2 of input x must be a list of 1 values, as the first",
        ),
        (pb.DT_STRING, ["a", 1], "JSON Value: 1 Type: Number is not of expected type: string"),
        (pb.DT_STRING, [{"b64": 1}], 'JSON Value: {"b64": 1} not formatted correctly for base64'),
        (pb.DT_STRING, [{"b64": "", "a": 1}], 'JSON Value: {"b64": "", "a": 1} not formatted'),
        (pb.DT_STRING, [{"b64": "YQ=a"}], "Unable to base64 decode"),
        (pb.DT_COMPLEX64, [1], "Conversion of JSON values to type complex64 is not supported"),
        (pb.DT_BFLOAT16, [1], "Conversion of JSON values to type bfloat16 is not supported"),
        (20, [1], "`dtype` of a tensor must be a supported data type"),
    ],
)
def test_values_that_no_type_holds(number, values, text):
    with pytest.raises(StatusError) as caught:
        to_array("x", values, number)
    assert caught.value.code.name == "INVALID_ARGUMENT"
    assert caught.value.details.startswith(text)


def test_texts_and_files():
    """Base64 with and without its padding; a text as UTF-8."""
    given = [["\u00e9", {"b64": "YWI="}], [{"b64": "YWI"}, {"b64": ""}]]
    found = to_array("x", given, pb.DT_STRING)
    assert found.tolist() == [["\u00e9".encode(), b"ab"], [b"ab", b""]]


def test_errors_show_the_beginning_of_a_value():
    with pytest.raises(StatusError) as caught:
        to_array("x", [["a" * 1000, 1]], pb.DT_FLOAT)
    shown = '"' + "a" * 199
    assert caught.value.details == (
        f"JSON Value: {shown} Type: String is not of expected type: float32"
    )


# Bytes of the text, as often as it is copied; 64 for a value, 256 for an object.
@pytest.mark.parametrize(
    ("raw", "size"),
    [
        (b'{"a":1}', 3 * 7 + 64 + 256),
        (b'{"a":[1,2]}', 3 * 11 + 3 * 64 + 256),
        (b'{"a":"\\n"}', 9 * 10 + 64 + 256),
        ('{"a":"\u00e9"}'.encode(), 9 * 10 + 64 + 256),
    ],
)
def test_the_memory_of_a_parsed_document(raw, size):
    with MemoryBudget(size).open() as memory:
        assert list(parse_request(raw, memory, 100)) == ["a"]
    with (
        MemoryBudget(size - 1).open() as memory,
        pytest.raises(StatusError, match="Server memory for requests is full"),
    ):
        parse_request(raw, memory, 100)
    with (
        MemoryBudget(10**6).open() as memory,
        pytest.raises(StatusError, match="^JSON Parse error: ") as caught,
    ):
        parse_request(raw, memory, len(raw) - 1)
    assert caught.value.code.name == "INVALID_ARGUMENT"


def servable(**inputs):
    """Returns a version whose signature `serving_default` has inputs of some types."""
    made = SimpleNamespace(definitions=pb.SignatureDefMap())
    definition = made.definitions.signature_def["serving_default"]
    definition.SetInParent()
    for name, dtype in inputs.items():
        definition.inputs[name].dtype = dtype
    return made


def test_the_memory_of_a_request_and_of_its_response():
    """Two copies of the request; of the response 64 bytes a value, and its text four times."""
    raw = b'{"inputs": {"b": ["ab"], "a": 1, "more": 2}}'
    read, write = predict_functions(pb.ModelSpec(name="m"), 100)
    version, budget = servable(a=pb.DT_FLOAT, b=pb.DT_STRING), MemoryBudget(10**6)
    with budget.open() as memory:
        serialized = read(raw, lambda spec: version, memory)
        assert budget.used == 3 * len(raw) + 64 * 7 + 256 * 2 + 2 * len(serialized)
        request = pb.PredictRequest.FromString(serialized)
        assert {name: decode_tensor(one).tolist() for name, one in request.inputs.items()} == {
            "a": 1,
            "b": [b"ab"],
        }
        before = budget.used
        outputs = {"z": np.array([b"abc", b""], object), "y": np.zeros((2, 3))}
        assert write(None, outputs, memory) == (
            b'{"outputs": {"y": [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], "z": ["abc", ""]}}'
        )
        assert budget.used - before == 64 * 8 + 4 * 3


def test_rows_of_several_outputs_have_their_names():
    outputs = {"b": np.int64([3, 4]), "a": np.array([[0.5], [0.25]], np.float16)}
    assert written(b'{"instances": [1, 2]}', **outputs) == (
        '{"predictions": [{"a": [0.5], "b": 3}, {"a": [0.25], "b": 4}]}'
    )


@pytest.mark.parametrize(
    ("raw", "inputs", "text"),
    [
        (b'{"instances": [1]}', {}, "Failed to get input map for signature: serving_default"),
        (
            b'{"instances": [{"a": 1}]}',
            {"a": pb.DT_FLOAT, "b": pb.DT_FLOAT},
            "Failed to process element: 0 of 'instances' list. JSON object: {\"a\": 1} keys must "
            "be equal to: a,b",
        ),
        (
            b'{"signature_name": "s\\n", "inputs": 1}',
            {"a": pb.DT_FLOAT},
            'Serving signature name: "s\\n" not found in signature def',
        ),
        (
            b'{"inputs": 1, "instances": [1]}',
            {"a": pb.DT_FLOAT},
            'JSON Value: {"inputs": 1, "instances": [1]} Not formatted correctly expecting only',
        ),
    ],
)
def test_requests_that_fit_no_signature(raw, inputs, text):
    read, _ = predict_functions(pb.ModelSpec(name="m"), 100)
    with MemoryBudget(10**6).open() as memory, pytest.raises(StatusError) as caught:
        read(raw, lambda spec: servable(**inputs), memory)
    assert caught.value.details.startswith(text)
