"""Element types: their numbers, names and errors."""

import numpy as np
import pytest

from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.dtypes import WIRE_TYPES, TensorError, type_name, wire_type, wire_type_of


def test_names_of_types():
    assert wire_type(pb.DT_HALF).name == "float16"
    assert type_name(21) == "data type 21"


def test_every_type_is_found_by_its_number_and_its_dtype():
    for kind in WIRE_TYPES:
        assert wire_type(kind.number) is kind
        if kind.name not in ("string", "bfloat16"):
            assert wire_type_of(np.dtype(kind.name)) is kind


def test_unsupported_types_are_refused():
    with pytest.raises(TensorError, match="`dtype` of a tensor must be .* Received: data type 20"):
        wire_type(20)
    with pytest.raises(TensorError, match=r"Received: datetime64\[s\]"):
        wire_type_of(np.dtype("datetime64[s]"))
