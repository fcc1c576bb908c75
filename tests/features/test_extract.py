"""Extracted features: against the network called image by image, center crops and dense."""

import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from cnnkit import alexnet
from cnnkit.data import load_dataset, resize_shorter_side
from cnnkit.errors import DataError, UsageError
from cnnkit.features import (
    FeatureSpec,
    extract_features,
    select_features_split,
)
from cnnkit.models.feature_extractor import feature_extractor, with_variable_input_size
from tests.helpers.small_network import network

extract_module = importlib.import_module("cnnkit.features.extract")

pytestmark = pytest.mark.usefixtures("unoptimized")


@pytest.fixture(scope="module")
def net():
    return network()


@pytest.fixture(scope="module")
def source(image_folder):
    return load_dataset(f"folder:{image_folder}")


def pixels(source, split="all"):
    part = select_features_split(source, split)
    return [part.load_image(tf.constant(i, tf.int64)).numpy() for i in range(len(part))]


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_a_center_is_what_the_network_answers_to_it(net, source, batch_size):
    found = extract_features(net, source, "pool1", flip=True, batch_size=batch_size)
    part = keras.Model(net.input, net.get_layer("pool1").output)
    for i, image in enumerate(pixels(source)):
        center = resize_shorter_side(tf.constant(image), 23).numpy()
        both = part(np.stack([center, center[:, ::-1]])).numpy().reshape(2, -1)
        expected = both.mean(axis=0)
        np.testing.assert_allclose(found.values[i], expected / np.linalg.norm(expected), atol=1e-5)
    # The dataset's own test images come after its training images, each with its own label.
    splits = source.splits
    np.testing.assert_array_equal(
        found.labels, np.concatenate([splits["train"].labels, splits["test"].labels])
    )
    assert found.names == (*splits["train"].names, *splits["test"].names)
    assert found.classes == ("above", "below")


@pytest.mark.parametrize(
    ("aggregate", "combine"),
    [
        ("stack", np.concatenate),
        ("average", lambda v: np.mean(v, 0)),
        ("max", lambda v: np.max(v, 0)),
    ],
)
def test_dense_features_are_those_of_the_windows_cut_out(net, source, aggregate, combine):
    # Appendix B: every position, both flips, every scale. The network has no padding, so its
    # answer at a position is what the classifier says to that window, 4 pixels further each time.
    scales = (23, 33)
    found = extract_features(net, source, "fc7", scales=scales, aggregate=aggregate, split="test")
    classifier = keras.Model(net.input, net.get_layer("fc7").output)
    for i, image in enumerate(pixels(source, "test")[:5]):
        vectors = []
        for scale in scales:
            ratio = scale / min(image.shape[:2])
            sides = [max(scale, round(side * ratio)) for side in image.shape[:2]]
            scaled = tf.image.resize(image, sides, antialias=True).numpy()
            answers = []
            for view in (scaled, scaled[:, ::-1]):
                windows = [
                    view[top : top + 23, left : left + 23]
                    for top in range(0, view.shape[0] - 22, 4)
                    for left in range(0, view.shape[1] - 22, 4)
                ]
                answers.append(classifier(np.stack(windows)).numpy().mean(axis=0))
            vectors.append(np.mean(answers, axis=0))
        expected = combine(vectors)
        np.testing.assert_allclose(found.values[i], expected / np.linalg.norm(expected), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_groups_of_one_shape_keep_their_images(net, source, batch_size):
    one = extract_features(net, source, "fc7", scales=(30,), batch_size=2)
    other = extract_features(net, source, "fc7", scales=(30,), batch_size=batch_size)
    np.testing.assert_allclose(one.values, other.values, atol=1e-6)


def test_any_functional_model():
    # Two branches, a model inside, an operation with a constant: nothing of ours.
    inputs = keras.Input((16, 16, 3))
    inner = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3, padding="same")])
    x = layers.Add(name="sum")([inner(inputs / 255.0), layers.Conv2D(4, 1)(inputs)])
    model = keras.Model(inputs, layers.GlobalAveragePooling2D(name="pooled")(x))
    digits = load_dataset("digits")
    assert extract_features(model, digits, "sum", split="test").values.shape == (359, 1024)
    dense = extract_features(model, digits, "pooled", scales=(16, 20), split="test")
    assert dense.values.shape == (359, 8)
    # Somebody else's use of a layer does not matter.
    keras.Model(inputs, model.get_layer("sum")([x, x]))
    assert feature_extractor(model, "sum").output_shape == (None, 16, 16, 4)


def test_wrong_requests(net, source):
    digits = load_dataset("digits")
    with pytest.raises(UsageError, match="Unknown layer 'fc77'.*Did you mean fc7"):
        extract_features(net, digits, "fc77")
    with pytest.raises(UsageError, match="at least 23. Received: 20"):
        extract_features(net, digits, "fc7", scales=(20,))
    with pytest.raises(UsageError, match="at least 64. Received: 20"):
        extract_features(alexnet(include_top=False), digits, "pool5", scales=(20,))
    with pytest.raises(
        UsageError, match="images have a fixed size. Expected: 23, or nothing. Received: 30"
    ):
        extract_features(net, digits, "fc7", image_size=30)
    with pytest.raises(UsageError, match="`image_size` must be given: .* takes images of any size"):
        extract_features(alexnet(include_top=False), digits, "pool5")
    with pytest.raises(UsageError, match="Unknown split 'val'.*train, test, all"):
        extract_features(net, digits, "fc7", split="val")
    with pytest.raises(UsageError, match="mean image of 64 x 64"):
        with_variable_input_size(
            alexnet(input_shape=(64, 64, 3), mean=np.zeros((64, 64, 3)), classes=2), "fc7"
        )
    # The last layer, which has no rectifier: some rectifiers make zeros of what is no number.
    broken = network()
    last = broken.get_layer("fc8")
    last.set_weights([w * np.nan for w in last.get_weights()])
    name = select_features_split(source).names[0]
    with pytest.raises(DataError, match=f"output of layer 'fc8' for image {name} is not finite"):
        extract_features(broken, source, "fc8")


def test_every_option_decides_about_the_vectors(net, source, monkeypatch):
    seen, counted = [], []
    extractor = extract_module.FeatureExtractor
    monkeypatch.setattr(
        extract_module, "FeatureExtractor", lambda model, spec: seen.append(spec) or
        extractor(model, spec)
    )  # fmt: skip
    options = {"scales": (24, 30), "aggregate": "max", "flip": False, "pool": "max", "l2": False}
    found = extract_features(net, source, "pool1", split="test", progress=counted.append, **options)
    assert seen == [FeatureSpec("pool1", (24, 30), "max", False, "max", False)]
    assert sum(counted) == len(found) == len(source.splits["test"])
    with pytest.raises(UsageError, match="`batch_size` must be at least 1. Received: 0"):
        extract_features(net, source, "pool1", batch_size=0)
    inputs = keras.Input((None, None, 3))
    free = keras.Model(inputs, layers.Conv2D(2, 3, name="conv")(inputs))
    found = extract_features(free, source.splits["test"], "conv", image_size=12)
    assert found.values.shape[1] == 10 * 10 * 2 and found.classes == ()
    assert seen[-1].image_size == 12
