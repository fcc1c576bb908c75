"""Preparation of a classifier: probabilities, features, dtype."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnkit.data import Augmentation
from cnnkit.errors import UsageError
from cnnkit.export import export
from cnnkit.export.classifier import center_crop, prepare_classifier
from cnnkit.models import build
from tests.helpers.exported_network import (
    LABELS,
    decode_reference,
    image_files,
    skip_output_check,
)

pytestmark = pytest.mark.usefixtures("unoptimized")


@pytest.mark.parametrize(
    ("name", "layer"),
    [("alexnet", "fc7"), ("vgg11", "fc2"), ("zfnet", "fc7"), ("cifar10_quick", "fc4"),
     ("alexnet_torchvision", "fc7")],
)  # fmt: skip
def test_features_are_the_layer_before_the_logits(name, layer):
    options = {} if "cifar" in name else {"input_shape": (64, 64, 3)}
    assert prepare_classifier(build(name, classes=3, **options)).features_layer == layer


def test_half_the_bytes_in_bfloat16(model, tmp_path):
    folder = export(
        model, LABELS, tmp_path / "animals", dtype="bfloat16", warmup=0,
        signatures=["serving_bytes"], explain_layers=["conv3"],
    )  # fmt: skip
    stored = sum(file.stat().st_size for file in (folder / "variables").iterdir())
    assert stored <= 1.05 * 2 * model.count_params() + 4096
    loaded = tf.saved_model.load(str(folder))
    encoded = list(image_files())
    answer = loaded.signatures["serving_bytes"](image_bytes=tf.constant(encoded))["probabilities"]
    assert answer.dtype == tf.float32
    expected = model(decode_reference(encoded), training=False).numpy()
    np.testing.assert_allclose(answer, expected, atol=3e-2)
    assert np.abs(answer - expected).max() > 1e-6


def test_a_model_that_ends_in_logits_answers_probabilities(tmp_path, monkeypatch):
    skip_output_check(monkeypatch)
    keras.utils.set_random_seed(0)
    model = build("cifar10_quick", classes=3, classifier_activation=None)
    folder = export(
        model, ["a", "b", "c"], tmp_path / "letters", top=2, signatures=["classify_bytes"]
    )
    loaded = tf.saved_model.load(str(folder))
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    answer = loaded.signatures["serving_default"](images=tf.constant(images))["probabilities"]
    np.testing.assert_allclose(
        answer, keras.ops.softmax(model(images, training=False).numpy()), atol=1e-5
    )
    classified = loaded.signatures["classify_bytes"](
        image_bytes=tf.constant(list(image_files())[:1])
    )
    assert classified["labels"].shape == (1, 2)


def test_one_logit_becomes_a_sigmoid():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Dense(1, name="logit")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, x)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 3)).astype("float32")
    expected = 1 / (1 + np.exp(-model(images).numpy()))
    np.testing.assert_allclose(prepare_classifier(model).model(images), expected, rtol=1e-5)
    assert 0.01 < np.ptp(expected) < 1


def test_a_network_without_weights_has_no_features():
    inputs = keras.Input((2, 2, 3))
    x = keras.layers.Softmax()(keras.layers.GlobalAveragePooling2D()(inputs))
    network = prepare_classifier(keras.Model(inputs, x, name="mean"))
    assert network.features_layer is network.preprocessing is None
    with pytest.raises(UsageError, match="Model 'mean' has no layer of features before its logits"):
        network.find_features_layer()


@pytest.mark.parametrize("shape", [(8, 12, 3), (None, None, 3), (8, 3)])
def test_networks_that_cannot_be_served(shape):
    inputs = keras.Input(shape)
    x = keras.layers.Dense(2)(keras.layers.Flatten()(inputs)) if None not in shape else inputs
    with pytest.raises(UsageError, match="`model` must (be built for one image size|have one inp)"):
        prepare_classifier(keras.Model(inputs, x))
    two = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    for given, answers in ((two, two[0]), (two[0], two[:1] * 2)):
        with pytest.raises(UsageError, match="must have one input .n, h, w, c. and one output"):
            prepare_classifier(keras.Model(given, answers))


def test_a_served_network_takes_the_center_and_no_chance():
    network = prepare_classifier(build("cifar10_quick", classes=3))
    training = Augmentation(32, scale=(36, 40), crop="random", flip=True, color="pca")
    assert center_crop(network, training) == Augmentation(32, scale=(36, 40), crop="center")
    assert center_crop(network, None) == Augmentation(32)
