"""Fixtures of the tests of weights files."""

import keras
import numpy as np
import pytest

from tests.helpers.narrow_vgg import narrow_vgg
from tests.helpers.weights_files import SIDE, old_applications, randomized, write_small_alexnet


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(1).uniform(0, 255, (2, SIDE, SIDE, 3)).astype("float32")


@pytest.fixture(autouse=True)
def narrow_networks(request):
    """Tests of files need no whole VGG, but for those of the longest runs."""
    if request.node.get_closest_marker("slow"):
        yield
    else:
        with narrow_vgg():
            yield


@pytest.fixture(scope="session")
def applications(tmp_path_factory):
    """keras.applications.VGG16 with random weights, in every file that Keras has for it."""
    folder = tmp_path_factory.mktemp("applications")
    with narrow_vgg():
        model = keras.applications.VGG16(
            weights=None, input_shape=(SIDE, SIDE, 3), classes=7, classifier_activation=None
        )
    randomized(model)
    model.save(folder / "whole.keras")
    model.save_weights(folder / "whole.weights.h5")
    model.save(folder / "whole.h5")
    rows = [(layer.name, *layer.get_weights()) for layer in model.layers]
    old_applications(folder / "old.h5", rows)
    old_applications(folder / "notop.h5", [row for row in rows if row[0].startswith("block")])
    return folder, model


@pytest.fixture
def small_alexnet(tmp_path):
    """A folder with small.npz and small.keras."""
    return write_small_alexnet(tmp_path)
