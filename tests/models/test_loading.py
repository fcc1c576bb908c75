"""Models and weights from files."""

import numpy as np
import pytest

from cnnkit import alexnet, load_model
from cnnkit.errors import UsageError


def test_save_and_load(tmp_path, rng):
    model = alexnet(input_shape=(64, 64, 3), classes=4, initializer="glorot")
    image = rng.uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(load_model(tmp_path / "model.keras")(image), model(image))
    np.testing.assert_array_equal(load_model(tmp_path)(image), model(image))
    model.save_weights(tmp_path / "a.weights.h5")
    other = alexnet(input_shape=(64, 64, 3), classes=4, weights=str(tmp_path / "a.weights.h5"))
    np.testing.assert_array_equal(other(image), model(image))
    with pytest.raises(UsageError, match="does not fit alexnet"):
        alexnet(input_shape=(64, 64, 3), classes=5, weights=str(tmp_path / "a.weights.h5"))


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="is not a model that Keras can load"):
        load_model(tmp_path / "model.keras")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: alexnet(weights="no.weights.h5"), "No weights file no.weights.h5"),
        (lambda: alexnet(weights="imagenett"), "No weights file imagenett"),
        (lambda: load_model("no.keras"), "No model at no.keras"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(UsageError) as error:
        call()
    assert text in str(error.value)
    assert "\n" not in str(error.value)
