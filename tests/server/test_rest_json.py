"""JSON of requests and responses: its memory, its numbers, its texts."""

import tracemalloc

import numpy as np
import pytest

from cnnkit.server.memory_budget import MemoryBudget
from cnnkit.server.predict import PreparedCall
from cnnkit.server.rest_json import parse_request, predict_functions
from cnnkit.server.status_error import StatusError
from cnnkit.wire import cnnkit_serving_pb2 as pb

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
