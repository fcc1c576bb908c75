"""Inference requests as Predict requests: every name, limit and byte."""

import numpy as np
import pytest

from cnnkit.server.memory_budget import MemoryBudget
from cnnkit.server.open_inference import requests
from cnnkit.server.open_inference.requests import (
    check_parameters,
    count_elements,
    datatype_name,
    datatype_of,
    model_spec,
    predict_request,
    raw_pieces,
    raw_values,
    string_pieces,
)
from cnnkit.server.status_error import StatusError
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.tensors import decode_tensor, encode_tensor


class Repository:
    """The models "m" and "a:b", each with version 1."""

    def versions(self, name):
        return [1] if name in ("m", "a:b") else []


def refused(function, *given):
    """Returns the text of the error."""
    with pytest.raises(StatusError) as caught:
        function(*given)
    assert caught.value.code.name == "INVALID_ARGUMENT"
    return caught.value.details


@pytest.mark.parametrize(
    ("name", "signature", "expected"),
    [
        ("m", "", ("m", "")),
        ("m", "s", ("m", "s")),
        ("m:s", "", ("m", "s")),
        ("m:s", "s", ("m", "s")),
        # A model with a colon in its name.
        ("a:b", "", ("a:b", "")),
        ("a:b", "s", ("a:b", "s")),
        ("a:b:s", "", ("a:b", "s")),
        ("none", "s", ("none", "s")),
    ],
)
def test_models_and_signatures(name, signature, expected):
    spec = model_spec(name, "", Repository(), signature)
    assert (spec.name, spec.signature_name) == expected
    assert spec.WhichOneof("version_choice") is None


def test_two_signatures_in_one_request():
    assert refused(model_spec, "m:s", "", Repository(), "t\n") == (
        "`signature_name` must be the signature of the model name or be left out, received t\\n "
        "for m:s"
    )


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("7", 7),
        ("0", 0),
        ("007", 7),
        ("000", 0),
        (str(2**63 - 1), 2**63 - 1),
        ("0" * 5000 + "7", 7),
    ],
)
def test_numbers_of_versions(text, version):
    spec = model_spec("m", text, Repository())
    assert (spec.WhichOneof("version_choice"), spec.version.value) == ("version", version)


def test_labels_of_versions_and_numbers_that_are_too_large():
    # The last is a digit for Python, and no number.
    for label in ("stable", "-1", "1.0", "\u00b2"):
        spec = model_spec("m", label, Repository())
        assert (spec.WhichOneof("version_choice"), spec.version_label) == ("version_label", label)
    for text in (str(2**63), "1" + "0" * 19, "9" * 5000):
        assert refused(model_spec, "m", text, Repository()).startswith(
            f"Failed to convert version: {text[:19]}"
        )


def test_parameters_that_change_the_answer():
    check_parameters(["priority", "sequence", "my_shared_memory", ""], "the request")
    for name in ("classification", "sequence_id", "shared_memory_region", "shared_memory_x"):
        assert refused(check_parameters, ["priority", name], "input a") == (
            f"The parameter {name} of input a is not supported"
        )


def test_data_types():
    assert datatype_name(pb.DT_UINT8) == "UINT8"
    assert datatype_of(np.zeros(1, np.float16)) == "FP16"
    assert datatype_of(np.array([b"a"], object)) == "BYTES"
    assert refused(datatype_name, pb.DT_COMPLEX64) == (
        "The Open Inference Protocol has no data type for complex64: call Predict"
    )
    assert refused(datatype_name, 20).startswith(
        "The Open Inference Protocol has no data type for data type 20"
    )


@pytest.mark.parametrize(
    ("shape", "count"), [([], 1), ([2, 3], 6), ([0, 5], 0), ([2**63 - 1], 2**63 - 1), ([1] * 64, 1)]
)
def test_numbers_of_elements(shape, count):
    assert count_elements("x", shape) == count


@pytest.mark.parametrize("shape", [[-1], [2**63], [1] * 65])
def test_shapes_of_no_array(shape):
    shown = ",".join(map(str, shape[:8]))
    assert refused(count_elements, "x", shape) == (
        "`shape` of input x must have at most 64 dimensions, each in 0..9223372036854775807, "
        f"received [{shown}]"
    )


def pieces_of(budget, *given):
    with MemoryBudget(budget).open() as memory:
        return raw_pieces(*given, memory)


def tensor(pieces):
    return decode_tensor(pb.TensorProto.FromString(b"".join(pieces)))


def test_raw_values_of_numbers():
    raw = memoryview(bytes.fromhex("0100 feff"))
    found = tensor(pieces_of(0, "x", "INT16", [2, 1], raw))
    assert (found.dtype, found.tolist()) == (np.int16, [[1], [-2]])
    found = tensor(pieces_of(0, "x", "FP32", [0, 4], memoryview(b"")))
    assert (found.dtype, found.shape) == (np.float32, (0, 4))
    text = "Input x must have 4 bytes for its datatype and shape, received 3"
    assert refused(pieces_of, 0, "x", "INT16", [2], raw[:3]) == text


def test_raw_values_of_strings_and_their_memory():
    """A length of four bytes before each; a Python object of 100 bytes for each."""
    raw = memoryview(b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c")
    assert tensor(pieces_of(300, "x", "BYTES", [3], raw)).tolist() == [b"ab", b"", b"c"]
    with pytest.raises(StatusError, match="Server memory for requests is full"):
        pieces_of(299, "x", "BYTES", [3], raw)
    for shorter in (raw[:-1], raw[:-2], raw[:-4]):
        assert refused(pieces_of, 300, "x", "BYTES", [3], shorter) == (
            "Input x must have 3 elements of BYTES, each after its length in 4 bytes, received "
            f"{len(shorter)} bytes, which end in element 2"
        )
    assert refused(pieces_of, 300, "x", "BYTES", [2], raw) == (
        "Input x must have 10 bytes for its datatype and shape, received 15"
    )


def test_the_most_strings():
    for count, fits in ((2**16, True), (2**16 + 1, False)):
        given = (10**7, "x", "BYTES", [count], memoryview(bytes(4 * count)))
        if fits:
            assert tensor(pieces_of(*given)).shape == (count,)
        else:
            assert refused(pieces_of, *given) == (
                "Input x must have 65536 elements of BYTES at most, received 65537"
            )


def test_listed_strings_must_fill_the_shape():
    found = tensor(string_pieces("x", [2, 1], [b"a", b""]))
    assert found.tolist() == [[b"a"], [b""]]
    text = "Input x must have 2 elements for its datatype and shape, received 1"
    assert refused(string_pieces, "x", [2], [b"a"]) == text


def test_a_predict_request_and_its_memory():
    spec = pb.ModelSpec(name="m", signature_name="s")
    arrays = {"a": np.float32([[1, 2]]), "\u00e9": np.array([b"x"], object)}
    tensors = [(name, encode_tensor(array)) for name, array in arrays.items()]
    with MemoryBudget(10**4).open() as memory:
        raw = predict_request(spec, tensors, ["y", "z"], memory)
    found = pb.PredictRequest.FromString(raw)
    assert found.model_spec == spec
    assert list(found.output_filter) == ["y", "z"]
    assert {name: decode_tensor(one).tolist() for name, one in found.inputs.items()} == {
        "a": [[1, 2]],
        "\u00e9": [b"x"],
    }
    with MemoryBudget(len(raw)).open() as memory:
        assert predict_request(spec, tensors, ["y", "z"], memory) == raw
    with (
        MemoryBudget(len(raw) - 1).open() as memory,
        pytest.raises(StatusError, match="Server memory for requests is full"),
    ):
        predict_request(spec, tensors, ["y", "z"], memory)


def test_the_most_inputs_and_two_of_one_name():
    def request(names):
        with MemoryBudget(10**6).open() as memory:
            return predict_request(pb.ModelSpec(), [(name, []) for name in names], [], memory)

    assert len(pb.PredictRequest.FromString(request(map(str, range(64)))).inputs) == 64
    text = "`inputs` must hold 64 tensors at most, received 65"
    assert refused(request, map(str, range(65))) == text
    assert refused(request, ["a", "b\n", "b\n"]) == "`inputs` must hold b\\n once"


def test_raw_values_of_outputs():
    assert raw_values(np.array([[1], [-2]], ">i2")) == bytes.fromhex("0100feff")
    assert raw_values(np.arange(6, dtype="<u2").reshape(2, 3)[:, ::2]) == bytes.fromhex(
        "0000 0200 0300 0500"
    )
    assert raw_values(np.array([[b"ab"], [b""]], object)) == b"\x02\0\0\0ab\0\0\0\0"


def test_the_header_of_a_scalar_has_a_shape():
    """Without one its rank would be unknown to some readers."""
    header = pb.TensorProto.FromString(b"".join(requests.string_pieces("x", [], [b"a"])))
    assert header.HasField("tensor_shape")
    assert decode_tensor(header).item() == b"a"
