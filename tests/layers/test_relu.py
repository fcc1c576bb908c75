"""The contract of the ReLU layer; its backward rules are tested in test_backward_rules."""

import keras
import numpy as np
import pytest

from cnnkit.layers import (
    ReLU,
)
from tests.helpers.layer_contract import check_layer


@pytest.mark.parametrize(
    ("make", "shape", "scale"),
    [
        (ReLU, (2, 5, 3), 2.0),
    ],
    ids=["relu"],
)
def test_contract(make, shape, scale, rng, tmp_path):
    inputs = rng.normal(0, scale, shape).astype("float32")
    outputs = check_layer(make, inputs, tmp_path)
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_symbolic_dtype_is_the_eager_one(policy, dtype):
    layer = ReLU(dtype=policy)
    symbolic = layer(keras.Input((3,), dtype=dtype))
    eager = layer(keras.ops.zeros((1, 3), dtype))
    assert symbolic.dtype == keras.backend.standardize_dtype(eager.dtype) == dtype
