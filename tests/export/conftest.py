"""Exports that several files of tests share."""

import shutil

import keras
import pytest
import tensorflow as tf

from cnnkit import alexnet
from cnnkit.export import export
from tests.helpers.exported_network import LABELS, small_alexnet
from tests.helpers.graph_optimizer import unoptimized_graphs


@pytest.fixture(scope="session")
def model():
    return small_alexnet()


@pytest.fixture(scope="session")
def exported(model, tmp_path_factory):
    with unoptimized_graphs():
        return export(
            model,
            LABELS,
            tmp_path_factory.mktemp("models") / "animals",
            explain_layers=["conv5", "fc6"],
            warmup=2,
        )


@pytest.fixture(scope="session")
def signatures(exported):
    loaded = tf.saved_model.load(str(exported))
    # The functions need the loaded object that they belong to.
    return {"loaded": loaded, **loaded.signatures}


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = alexnet(input_shape=(64, 64, 3), classes=3, initializer="glorot", hidden_units=16)
    folder = tmp_path_factory.mktemp("models") / "letters"
    with unoptimized_graphs():
        export(model, ["a", "b", "c"], folder, signatures=["serving_bytes"], warmup=2)
    return folder


@pytest.fixture
def version(model_folder, tmp_path):
    """A copy of the version that a test may break."""
    shutil.copytree(model_folder / "1", tmp_path / "letters" / "1")
    return tmp_path / "letters" / "1"


@pytest.fixture(scope="session")
def unguarded(tmp_path_factory):
    """A network exported by Keras, without the checks of cnnkit."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    folder = tmp_path_factory.mktemp("models") / "plain" / "1"
    model.export(folder, verbose=False)
    return folder
