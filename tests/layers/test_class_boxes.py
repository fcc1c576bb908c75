"""The last layer of a localizer."""

import keras
import numpy as np
import pytest

from cnnkit.errors import UsageError
from cnnkit.layers import ClassBoxes
from tests.helpers.layer_contract import check_layer

NAMES = ("cat", "dog", "owl")


@pytest.mark.parametrize(("regression", "units"), [("per-class", 15), ("single", 7)])
def test_contract(regression, units, rng, tmp_path):
    inputs = rng.normal(size=(4, units)).astype("float32")
    outputs = check_layer(
        lambda **options: ClassBoxes(NAMES, regression, **options), inputs, tmp_path
    )
    outputs = np.asarray(outputs)
    np.testing.assert_allclose(
        outputs[:, :3], keras.ops.softmax(inputs[:, :3]), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(outputs[:, 3:], inputs[:, 3:])


def test_the_names_and_the_boxes_are_saved_with_the_model(tmp_path):
    model = keras.Sequential([keras.Input((7,)), ClassBoxes(NAMES, "single")])
    model.save(tmp_path / "model.keras")
    layer = keras.saving.load_model(tmp_path / "model.keras").layers[-1]
    assert (layer.class_names, layer.regression) == (NAMES, "single")


def test_wrong_arguments():
    with pytest.raises(UsageError, match="Unknown regression 'both'"):
        ClassBoxes(NAMES, "both")
    with pytest.raises(UsageError, match="Expected: 15 numbers. Received: 7"):
        ClassBoxes(NAMES).build((None, 7))
