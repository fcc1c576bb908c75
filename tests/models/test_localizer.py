"""Localizers and the classifiers in them."""

import keras
import numpy as np
import pytest

from cnnkit import models
from cnnkit.errors import UsageError
from cnnkit.layers import ClassBoxes
from cnnkit.models.class_names import class_count, class_names, is_localizer, set_class_names
from cnnkit.models.localizer import box_part, build_localizer, class_part, start_boxes
from cnnkit.models.logits import logits_tensor
from tests.helpers.tiny_network import tiny

NAMES = ("cat", "dog", "owl")
OPTIONS = {"input_shape": (8, 8, 3), "mean": None}


@pytest.fixture
def network(monkeypatch):
    monkeypatch.setitem(models.BUILDERS, "tiny", tiny)
    return build_localizer("tiny", NAMES, "per-class", OPTIONS)


def test_a_network_gets_a_box_for_each_class_or_one(network, rng):
    assert network.output_shape == (None, 15) and logits_tensor(network).shape == (None, 15)
    single = build_localizer("tiny", NAMES, "single", OPTIONS)
    assert single.output_shape == (None, 7)
    outputs = network(rng.uniform(0, 255, (2, 8, 8, 3)))
    np.testing.assert_allclose(np.sum(outputs[:, :3], axis=1), 1, rtol=1e-5)


def test_boxes_begin_in_the_center(network):
    last = network.get_layer("fc8")
    half = 0.5**0.5
    for bias in (last.get_weights()[1], None):
        if bias is None:
            last.set_weights([np.zeros_like(weight) for weight in last.get_weights()])
            start_boxes(network)
            bias = last.get_weights()[1]
        np.testing.assert_allclose(bias[:3], 0)
        np.testing.assert_allclose(bias[3:].reshape(3, 4), [[0.5, 0.5, half, half]] * 3)


def test_names_and_numbers_of_classes(network):
    assert is_localizer(network) and not is_localizer(tiny(classes=3, **OPTIONS))
    assert (class_names(network), class_count(network)) == (NAMES, 3)
    set_class_names(network, ("a", "b", "c"))
    assert class_names(network) == ("a", "b", "c")
    with pytest.raises(UsageError, match="Expected: 3 names. Received: 2"):
        set_class_names(network, ("a", "b"))


def test_the_classifier_in_a_localizer_gives_its_probabilities(network, rng):
    images = rng.uniform(0, 255, (4, 8, 8, 3))
    part = class_part(network)
    assert part.output_shape == (None, 3) and class_names(part) == NAMES
    np.testing.assert_allclose(part(images), network(images)[:, :3], rtol=1e-5, atol=1e-6)
    # Its last layer has a name that weights are found by.
    assert part.get_layer("fc8").units == 3
    assert class_part(part) is part


def test_a_localizer_without_a_dense_layer_at_its_end_is_refused():
    inputs = keras.Input((3, 3, 7))
    outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(7, 1)(inputs))
    model = keras.Model(inputs, ClassBoxes(NAMES, "single")(outputs))
    with pytest.raises(UsageError, match="must return its boxes by its last layer"):
        class_part(model)


def test_a_last_layer_without_a_bias_stays_without(rng):
    inputs = keras.Input((6,))
    last = keras.layers.Dense(7, use_bias=False, name="fc8")
    model = keras.Model(inputs, ClassBoxes(NAMES, "single")(last(inputs)))
    start_boxes(model)
    kernel = rng.normal(size=(6, 7)).astype("float32")
    last.set_weights([kernel])
    part, features = class_part(model), rng.normal(size=(4, 6)).astype("float32")
    assert not part.get_layer("fc8").use_bias
    np.testing.assert_allclose(part(features), model(features)[:, :3], rtol=1e-5, atol=1e-6)
    boxes = box_part(model, keras.Input((6,)))
    assert not boxes.use_bias
    np.testing.assert_allclose(boxes(features), features @ kernel[:, 3:], rtol=1e-4, atol=1e-5)
