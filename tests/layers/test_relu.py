"""The contract of the ReLU layer; its backward rules are tested in test_backward_rules."""

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
    outputs = check_layer(make, inputs, tmp_path, tolerances=(1e-6, 0.1 * scale, 0.02 * scale))
    assert np.isfinite(outputs).all()
