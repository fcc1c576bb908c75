"""Predict responses: the fast parser and protobuf's return the same arrays, or both refuse."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit.client.decode import decode_predict_response
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.tensors import encode_values, to_tensor_proto
from tests.helpers.wire_bytes import check_against_protobuf, mutated, responses

EXAMPLES = settings(max_examples=250, deadline=None)


@EXAMPLES
@given(mutated(responses()))
def test_responses_with_wrong_bytes(raw):
    check_against_protobuf(decode_predict_response, raw)


@EXAMPLES
@given(st.binary(max_size=40))
def test_any_bytes(raw):
    check_against_protobuf(decode_predict_response, raw)


def test_arrays_belong_to_the_caller():
    array = np.full((2, 3), 1, np.float32)
    raw = pb.PredictResponse(
        outputs={"y": encode_values(array), "z": to_tensor_proto(array[0])}
    ).SerializeToString(deterministic=True)
    for _ in range(2):
        found = decode_predict_response(raw)[1]
        assert found["y"].tolist() == array.tolist() and found["z"].tolist() == array[0].tolist()
        found["y"] += 1
        found["z"] += 1


def test_the_last_of_two_outputs_with_one_name_counts():
    first, last = (
        pb.PredictResponse(outputs={"y": to_tensor_proto(np.float32([value]))}).SerializeToString()
        for value in (1, 2)
    )
    assert decode_predict_response(first + last)[1]["y"].tolist() == [2]
