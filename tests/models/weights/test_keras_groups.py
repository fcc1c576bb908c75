"""Weights in files of several versions of Keras, against the answers of those versions.

The files in `tests/data/keras_files` were saved by Keras 3.0.5, Keras 3.5.0 and tf_keras 2.21: a
sequential model of a Rescaling(1 / 127.5, -1), an inner functional model of two convolutions, and
two dense layers. `expected.npz` has images and the outputs that Keras computed before saving.
"""

import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from cnnkit import load_model
from cnnkit.errors import AssumptionWarning, CnnkitError, UsageError
from cnnkit.layers import SubtractMean
from cnnkit.models import open_weights
from cnnkit.models.weights import assign_weights

FILES = Path(__file__).parents[2] / "data" / "keras_files"
EXPECTED = np.load(FILES / "expected.npz")


def same_layers():
    """The layers of the files in one chain, with a mean instead of the rescaling."""
    inputs = keras.Input((8, 8, 3))
    x = SubtractMean((0, 0, 0), name="preprocessing")(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu", name="first")(x)
    x = keras.layers.Conv2D(5, 3, activation="relu", name="second")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(6, activation="relu", name="third")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="fourth")(x))


@pytest.mark.parametrize(
    "name", sorted(path.name for path in FILES.glob("*.*") if "npz" not in path.name)
)
def test_weights_of_every_version(name):
    model = same_layers()
    file = open_weights(FILES / name)
    if name.endswith(".weights.h5"):
        # It has the Rescaling as a group without numbers.
        assert "its rescaling layer is not described" in file.preprocessing.describe()
        with pytest.warns(AssumptionWarning, match="taken as RGB in 0..255"):
            assign_weights(model, file)
        file = open_weights(FILES / name, preprocessing="tf")
    assert file.preprocessing.describe().startswith("RGB, minus 127.5, divided by 127.5")
    assign_weights(model, file)
    np.testing.assert_allclose(model(EXPECTED["x"]), EXPECTED["y"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["keras_3.0.5.keras", "keras_3.5.0.keras", "keras_3.5.0.h5", "tf_keras_2.21.h5"]
)
def test_models_of_every_version(name):
    np.testing.assert_allclose(
        load_model(FILES / name)(EXPECTED["x"]), EXPECTED["y"], rtol=1e-4, atol=1e-4
    )


def test_a_keras_2_model_is_refused_by_name():
    with pytest.raises(UsageError, match=r"was written by Keras 2\.21.*Save it as \.h5"):
        load_model(FILES / "tf_keras_2.21.keras")


def test_nothing_is_left_out(tmp_path):
    inputs = keras.Input((8, 8, 3))
    inner_input = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv1")(inner_input)
    inner = keras.Model(inner_input, keras.layers.BatchNormalization(name="bn")(x), name="inner")
    x = keras.layers.Flatten()(inner(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    model.save(tmp_path / "a.keras")
    model.save(tmp_path / "a.h5")
    model.save_weights(tmp_path / "a.weights.h5")
    for name in ("a.keras", "a.h5", "a.weights.h5"):
        with pytest.raises(UsageError, match="weights of another kind in layer 'bn'"):
            open_weights(tmp_path / name)
    for layer in (
        keras.layers.DepthwiseConv2D(3, name="other"),
        keras.layers.SeparableConv2D(3, 3, name="other"),
        keras.layers.PReLU(name="other"),
        keras.layers.TimeDistributed(keras.layers.Dense(3), name="other"),
    ):
        model = keras.Sequential([inputs, keras.layers.Conv2D(4, 3), layer])
        model.save(tmp_path / "b.keras")
        with pytest.raises(UsageError, match="another kind in layer '(other|dense)"):
            open_weights(tmp_path / "b.keras")


def test_members_outside_of_a_keras_file_are_refused_without_a_warning(tmp_path, recwarn):
    """Python's zipfile printed three lines of a warning for each of them."""
    shutil.copy(next(FILES.glob("*.keras")), tmp_path / "x.keras")
    with zipfile.ZipFile(tmp_path / "x.keras", "a") as archive:
        archive.writestr("../secret.txt", "overwritten")
    for read in (open_weights, load_model):
        with pytest.raises(CnnkitError, match=r"outside of the archive.*\.\./secret.txt"):
            read(tmp_path / "x.keras")
    assert not recwarn
