"""A softmax that carries class names."""

import keras
import numpy as np
import pytest

from cnnkit.errors import UsageError
from cnnkit.layers import ClassProbabilities
from tests.helpers.layer_contract import check_layer


@pytest.mark.parametrize("names", [None, ("cat", "dog", "owl")])
def test_contract(names, rng, tmp_path):
    inputs = rng.normal(size=(4, 3)).astype("float32")
    outputs = check_layer(
        lambda **options: ClassProbabilities(class_names=names, **options), inputs, tmp_path
    )
    np.testing.assert_allclose(outputs, keras.ops.softmax(inputs), rtol=1e-5, atol=1e-6)


def test_names_are_saved_with_the_model(tmp_path):
    model = keras.Sequential([keras.Input((2,)), ClassProbabilities(class_names=["cat", "dog"])])
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").layers[-1].class_names == (
        "cat",
        "dog",
    )


def test_as_many_names_as_classes():
    with pytest.raises(UsageError, match="Expected: 3 names. Received: 2"):
        ClassProbabilities(class_names=("cat", "dog")).build((None, 3))
