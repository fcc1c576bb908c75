"""The JSON of inference requests and responses, and the binary tensors after it."""

import json
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from cnnkit.server.memory_budget import MemoryBudget
from cnnkit.server.open_inference.rest_json import (
    InferDocument,
    read_infer_document,
    write_infer_document,
)
from cnnkit.server.status_error import StatusError
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.tensors import decode_tensor


def read(document, binary=b"", budget=10**6):
    """Returns what a request says, its inputs as arrays, and the memory that it takes."""
    text = json.dumps(document).encode()
    found, counted = InferDocument(), MemoryBudget(budget)
    with counted.open() as memory:
        tensors = read_infer_document(found, text + binary, len(text), memory)
        used = counted.used
    arrays = {
        name: decode_tensor(pb.TensorProto.FromString(b"".join(pieces))) for name, pieces in tensors
    }
    return found, arrays, used


def one(**changes):
    return {"name": "x", "datatype": "INT16", "shape": [2], "data": [1, 2], **changes}


def test_everything_that_a_request_says():
    found, arrays, _ = read(
        {
            "id": "",
            "parameters": {"signature_name": "s", "priority": 1, "binary_data_output": True},
            "inputs": [one(), one(name="y", shape=[1, 2], parameters={"a": 1})],
            "outputs": [{"name": "p", "parameters": {"binary_data": False}}, {"name": "q"}],
        }
    )
    assert found == InferDocument("", "s", {"p": False, "q": True}, True)
    assert {name: array.tolist() for name, array in arrays.items()} == {"x": [1, 2], "y": [[1, 2]]}
    assert read({})[0] == InferDocument(None, "", {}, False)


def test_binary_tensors_stand_in_the_order_of_the_inputs():
    """The JSON is copied out of a body that goes on; an input of no bytes is no lack of data."""
    inputs = [
        {**one(shape=[1]), "parameters": {"binary_data_size": 2}},
        one(name="y"),
        {**one(name="z", shape=[0]), "parameters": {"binary_data_size": 0}},
        {**one(name="s", datatype="BYTES", shape=[1]), "parameters": {"binary_data_size": 5}},
    ]
    for tensor in (inputs[0], inputs[2], inputs[3]):
        del tensor["data"]
    document = {"inputs": inputs}
    _, arrays, used = read(document, b"\x01\x02\x01\0\0\0a")
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "x": [0x0201],
        "y": [1, 2],
        "z": [],
        "s": [b"a"],
    }
    text = json.dumps(document)
    values = text.count(",") + text.count("[") + text.count(":")
    assert used == len(text) + 3 * len(text) + 64 * values + 256 * text.count("{") + 100


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"id": None}, "`id` must be a text"),
        ({"parameters": []}, "`parameters` of the request must be an object"),
        ({"parameters": {"signature_name": 1}}, "`signature_name` must be a text"),
        ({"parameters": {"binary_data_output": 1}}, "`binary_data_output` must be true or false"),
        ({"parameters": {"sequence_id": 1}}, "The parameter sequence_id of the request is not"),
        ({"outputs": {}}, "`outputs` must be a list of objects"),
        ({"outputs": [1]}, "`outputs` must be a list of objects"),
        ({"outputs": [{}] * 65}, "`outputs` must hold 64 tensors at most, received 65"),
        ({"outputs": [{}]}, "`name` must be a text"),
        ({"outputs": [{"name": "o", "parameters": 1}]}, "`parameters` of output o must be an"),
        (
            {"outputs": [{"name": "o", "parameters": {"binary_data": 1}}]},
            "`binary_data` must be true or false",
        ),
        ({"inputs": [one(parameters={"binary_data_size": True})]}, "`binary_data_size` must be a"),
        ({"inputs": [one(parameters={"binary_data_size": 0})]}, "Input x must have `data` or a"),
        ({"inputs": [one(parameters=1)]}, "`parameters` of input x must be an object"),
        ({"inputs": [one(datatype=None)]}, "`datatype` must be a text"),
        ({"inputs": [one(datatype="INT17")]}, "`datatype` must be one of FP32, FP64, INT32,"),
        ({"inputs": [one(shape=2)]}, "Input x must have a list of numbers `shape`"),
        ({"inputs": [one(shape=[2.0])]}, "Input x must have a list of numbers `shape`"),
        ({"inputs": [one(data=1)]}, "Input x must have a list `data`"),
        ({"inputs": [one(data=[1])]}, "Input x must have 2 elements for its datatype and shape"),
        ({"inputs": [one(data=[[1, 2]])]}, "`data` of input x must be flat or have the shape [2]"),
    ],
)
def test_requests_that_are_not_consistent(document, text):
    with pytest.raises(StatusError) as caught:
        read(document)
    assert caught.value.code.name == "INVALID_ARGUMENT"
    assert caught.value.details.startswith(text)


def test_binary_data_beyond_the_body():
    given = one(parameters={"binary_data_size": 3})
    del given["data"]
    for size, text in ((3, "within the 2 bytes"), (-1, "within the 2 bytes")):
        given["parameters"]["binary_data_size"] = size
        with pytest.raises(StatusError, match=f"{text}.* left of the body, received {size}"):
            read({"inputs": [given]}, b"ab")
    with pytest.raises(StatusError, match="^The body has 1 bytes that belong to no input$"):
        read({"inputs": []}, b"a")


def write(document, budget=10**6, **outputs):
    call = SimpleNamespace(servable=SimpleNamespace(version=3), outputs=tuple(outputs))
    with MemoryBudget(budget).open() as memory:
        return write_infer_document(document, "m:s", call, outputs, memory)


def test_a_response_as_json():
    outputs = {
        "b": np.array([[b"ab", b""]], object),
        "a": np.float32([0.1]),
        "c": np.array([1.5], ml_dtypes.bfloat16),
    }
    # 64 bytes a value, and the text four times.
    body, json_bytes = write(InferDocument(id="7"), 64 * 4 + 4 * 2, **outputs)
    assert json_bytes is None
    assert json.loads(body) == {
        "model_name": "m:s",
        "model_version": "3",
        "id": "7",
        "outputs": [
            {"name": "b", "datatype": "BYTES", "shape": [1, 2], "data": ["ab", ""]},
            {"name": "a", "datatype": "FP32", "shape": [1], "data": [0.1]},
            {"name": "c", "datatype": "BF16", "shape": [1], "data": [1.5]},
        ],
    }
    with pytest.raises(StatusError, match="Server memory for requests is full"):
        write(InferDocument(), 64 * 4 + 4 * 2 - 1, **outputs)
    assert "id" not in json.loads(write(InferDocument())[0])


def test_a_response_with_binary_tensors():
    """Asked for by name, or for all outputs; the values and the body are counted."""
    outputs = {"a": np.int16([1, 2]), "b": np.array([b"\xff"], object)}
    for document, names in (
        (InferDocument(binary=True), "ab"),
        (InferDocument(outputs={"b": True, "a": False}), "b"),
        (InferDocument(outputs={"b": True}, binary=True), "ab"),
    ):
        sizes = {"a": 4, "b": 5}
        least = sum(2 * sizes[name] for name in names) + (0 if "a" in names else 64 * 2)
        body, json_bytes = write(document, least, **outputs)
        found = {one["name"]: one for one in json.loads(body[:json_bytes])["outputs"]}
        assert {name for name in found if "parameters" in found[name]} == set(names)
        assert found["b"]["parameters"] == {"binary_data_size": 5}
        raw = {"a": b"\x01\0\x02\0", "b": b"\x01\0\0\0\xff"}
        assert body[json_bytes:] == b"".join(raw[name] for name in names)
        with pytest.raises(StatusError, match="Server memory for requests is full"):
            write(document, least - 1, **outputs)
    with pytest.raises(StatusError, match="^Output b is not UTF-8: ask for it with `binary_data`$"):
        write(InferDocument(), **outputs)
