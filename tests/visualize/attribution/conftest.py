"""Fixtures of the tests of attribution."""

import keras
import numpy as np
import pytest

from tests.visualize.attribution.networks import NETWORKS, SHAPE


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).uniform(0, 255, (3, *SHAPE)).astype("float32")


@pytest.fixture(scope="module", params=NETWORKS)
def model(request):
    keras.utils.set_random_seed(4)
    return NETWORKS[request.param]()


@pytest.fixture(scope="module", params=["ours", "sigmoids", "nested", "bypass"])
def example_model(request):
    """One model of each structure; how a model ends matters for the logits only."""
    keras.utils.set_random_seed(4)
    return NETWORKS[request.param]()
