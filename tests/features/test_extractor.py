"""The feature extractor: its dense form, its identity, unit vectors."""

import keras
import numpy as np
import pytest
from keras import layers

from cnnkit import alexnet, vgg11
from cnnkit.errors import UsageError
from cnnkit.features import (
    FeatureExtractor,
    FeatureSpec,
    l2_normalize,
)
from cnnkit.features.extractor import model_identity
from cnnkit.models.feature_extractor import feature_extractor, with_variable_input_size
from tests.helpers.small_network import network


@pytest.fixture(scope="module")
def net():
    return network()


def test_dense_at_the_training_size_is_the_classifier(net):
    images = np.random.default_rng(0).uniform(0, 255, (4, 23, 23, 3)).astype(np.float32)
    [dense] = FeatureExtractor(
        net, FeatureSpec.with_defaults("fc7", scales=(23,), flip=False, l2=False)
    )([images])
    [center] = FeatureExtractor(net, FeatureSpec("fc7", l2=False))([images])
    np.testing.assert_allclose(dense, center, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        center, feature_extractor(net, "fc7")(images).numpy(), rtol=1e-5, atol=1e-5
    )


def test_vectors_have_the_length_one_and_zeros_stay_zero():
    vectors = l2_normalize(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0, 0]])


def test_a_network_is_known_by_what_it_computes(net, tmp_path):
    net.save(tmp_path / "net.keras")
    again = keras.saving.load_model(tmp_path / "net.keras")
    assert model_identity(net) == model_identity(again) == model_identity(network(name="other"))
    assert model_identity(net) != model_identity(network(seed=2))
    # Weights above the layer do not count, those below do, and so does a stride without weights.
    again.get_layer("fc8").set_weights([w + 1 for w in again.get_layer("fc8").get_weights()])
    assert model_identity(feature_extractor(net, "fc7")) == model_identity(
        feature_extractor(again, "fc7")
    )
    again.get_layer("conv1").set_weights([w + 1 for w in again.get_layer("conv1").get_weights()])
    assert model_identity(feature_extractor(net, "fc7")) != model_identity(
        feature_extractor(again, "fc7")
    )
    plain = [
        keras.Sequential([keras.Input((8, 8, 3)), layers.MaxPooling2D(2, strides=strides)])
        for strides in (1, 2)
    ]
    assert model_identity(plain[0]) != model_identity(plain[1])


def test_the_identity_is_that_of_version_0_1():
    """Computed by version 0.1.0, in which ClassProbabilities was called Probabilities."""
    model = alexnet(input_shape=(64, 64, 3), classes=2, hidden_units=4)
    model.set_weights([np.full(w.shape, 0.125, "float32") for w in model.weights])
    assert model_identity(model) == (
        "0eba5149b2b3822bbea08c4b21e5605abdb17539354b5a5f6c080d14697199b5"
    )


def test_layers_go_by_the_field_names_too():
    model = vgg11(input_shape=(32, 32, 3), classes=2)
    assert feature_extractor(model, "fc7").output_shape == (None, 4096)
    assert with_variable_input_size(model, "fc7").output_shape == (None, None, None, 4096)


def part(name):
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, layers.Conv2D(2, 3, name="conv")(inputs), name=name)


def test_a_layer_of_a_model_used_as_a_layer():
    inputs = keras.Input((8, 8, 3))
    left, right = part("left"), part("right")
    twice = layers.Concatenate()([left(inputs), left(inputs)])
    for outputs, text in (
        (layers.Add()([left(inputs), right(inputs)]), "Layer 'conv' is in 2 models.*left, right"),
        (twice, "Model 'left', with layer 'conv', is called 2 times"),
    ):
        with pytest.raises(UsageError, match=text):
            feature_extractor(keras.Model(inputs, outputs), "conv")
    model = keras.Model(inputs, layers.ReLU()(left(inputs)))
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(feature_extractor(model, "conv")(images), left(images))


@pytest.mark.parametrize("shape", [(8, 8, 2), (8, 3), (8, 8, 8, 3)])
def test_a_network_takes_color_or_gray_images(shape):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layers.Dense(2, name="end")(inputs))
    with pytest.raises(UsageError, match="does not take RGB or gray images alone"):
        feature_extractor(model, "end")
    gray = keras.Input((8, 8, 1))
    model = keras.Model(gray, layers.Conv2D(2, 3, name="end")(gray))
    assert feature_extractor(model, "end").output_shape == (None, 6, 6, 2)


def test_two_layers_are_two_outputs(net):
    assert [tuple(one.shape)[1:] for one in feature_extractor(net, "conv1", "fc7").outputs] == [
        tuple(net.get_layer(name).output.shape)[1:] for name in ("conv1", "fc7")
    ]


def test_a_model_used_as_a_layer_is_a_layer():
    inputs = keras.Input((8, 8, 3))
    left = part("left")
    model = keras.Model(inputs, layers.ReLU()(left(inputs)))
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(feature_extractor(model, "left")(images), left(images))
