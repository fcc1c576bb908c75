"""The tensor codec against TensorFlow's own, in both directions."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given

from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.dtypes import WIRE_TYPES
from cnnkit.wire.tensors import decode_tensor, encode_values, to_tensor_proto
from tests.helpers.wire_arrays import EXAMPLES, arrays, assert_same


def from_tensorflow(message):
    return pb.TensorProto.FromString(message.SerializeToString())


@EXAMPLES
@given(arrays())
def test_what_we_write_tensorflow_reads(array):
    for message in (to_tensor_proto(array), encode_values(array)):
        theirs = tf.io.parse_tensor(message.SerializeToString(), tf.as_dtype(message.dtype))
        assert_same(np.asarray(theirs.numpy(), array.dtype).reshape(theirs.shape), array)


@EXAMPLES
@given(arrays())
def test_what_tensorflow_writes_we_read(array):
    assert_same(decode_tensor(from_tensorflow(tf.make_tensor_proto(array))), array)
    assert_same(decode_tensor(encode_values(array)), array)
    assert_same(decode_tensor(to_tensor_proto(array)), array)


@pytest.mark.parametrize("kind", WIRE_TYPES, ids=lambda kind: kind.name)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_short_lists_repeat_as_in_tensorflow(kind, count):
    message = pb.TensorProto(dtype=kind.number)
    message.tensor_shape.dim.add(size=2)
    message.tensor_shape.dim.add(size=3)
    values = [b"a", b"bc", b""] if kind.name == "string" else [1, 0, 1]
    per_element = 2 if kind.name.startswith("complex") else 1
    getattr(message, kind.field).extend(values[:count] * per_element)
    theirs = tf.io.parse_tensor(message.SerializeToString(), tf.as_dtype(message.dtype)).numpy()
    assert_same(decode_tensor(message), theirs)


def test_types_have_the_names_of_tensorflow():
    for kind in WIRE_TYPES:
        assert tf.as_dtype(kind.number).name == kind.name
