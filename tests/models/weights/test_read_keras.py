"""Files of Keras against keras.applications and against our own networks."""

import keras
import numpy as np
import pytest

from cnnkit import load_model
from cnnkit.errors import UsageError
from cnnkit.layers import SubtractMean
from cnnkit.models import (
    alexnet,
    class_names,
    logits_tensor,
    open_weights,
    replace_head,
    set_class_names,
    vgg16,
    vgg19,
)
from tests.helpers.weights_files import SIDE, assert_close, randomized


@pytest.mark.parametrize("name", ["whole.keras", "whole.weights.h5", "whole.h5", "old.h5"])
def test_keras_files_equal_keras_applications(applications, images, name):
    folder, reference = applications
    expected = reference(keras.applications.vgg16.preprocess_input(images.copy()))
    ours = vgg16(
        weights=folder / name,
        input_shape=(SIDE, SIDE, 3),
        classes=7,
        classifier_activation=None,
    )
    assert_close(ours(images), expected, 1e-5)


@pytest.mark.parametrize("name", ["notop.h5", "old.h5"])
def test_convolutions_alone(applications, images, name):
    folder, reference = applications
    features = keras.Model(reference.input, reference.get_layer("block5_pool").output)
    expected = features(keras.applications.vgg16.preprocess_input(images.copy()))
    assert_close(vgg16(include_top=False, weights=folder / name)(images), expected, 1e-5)


def test_vgg19_equals_keras_applications(tmp_path, images):
    reference = keras.applications.VGG19(weights=None, include_top=False)
    randomized(reference).save_weights(tmp_path / "e.weights.h5")
    expected = reference(keras.applications.vgg19.preprocess_input(images.copy()))
    ours = vgg19(include_top=False, weights=str(tmp_path / "e.weights.h5"))
    assert_close(ours(images), expected, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["VGG16", "VGG19"])
def test_whole_networks_equal_keras_applications(tmp_path, name):
    reference = randomized(getattr(keras.applications, name)(weights=None))
    reference.save(tmp_path / "whole.h5")
    module = getattr(keras.applications, name.lower())
    images = np.random.default_rng(2).uniform(0, 255, (1, 224, 224, 3)).astype("float32")
    ours = (vgg16 if name == "VGG16" else vgg19)(weights=tmp_path / "whole.h5")
    expected = reference(module.preprocess_input(images.copy()))
    np.testing.assert_allclose(ours(images), expected, rtol=0, atol=1e-5)
    logits = keras.Model(ours.input, logits_tensor(ours))(images)
    # The reference keeps its softmax, so its logits are told up to a constant.
    probable = np.asarray(expected)[0] > 1e-4
    difference = np.log(np.asarray(expected)[0, probable]) - logits.numpy()[0, probable]
    assert np.ptp(difference) <= 1e-5 * np.abs(logits).max()


def test_a_mean_image_of_the_size_of_alexnet_is_read(tmp_path, rng):
    """Runs of the recipe alexnet-caffe have one, and could not be loaded."""
    mean = rng.uniform(0, 255, (227, 227, 3)).astype("float32")
    inputs = keras.Input((227, 227, 3))
    x = SubtractMean(mean, name="preprocessing")(inputs)
    x = keras.layers.Conv2D(2, 11, strides=32)(x)
    outputs = keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(x))
    keras.Model(inputs, outputs).save(tmp_path / "model.keras")
    again = load_model(tmp_path / "model.keras", preprocessing="raw")
    np.testing.assert_array_equal(again.get_layer("preprocessing").mean, mean)


def test_files_of_cnnkit_keep_their_mean(tmp_path, images):
    options = {"input_shape": (SIDE, SIDE, 3), "classes": 3, "hidden_units": 8}
    model = randomized(alexnet(mean=(10, 20, 30), **options))
    set_class_names(model, ["a", "b", "c"])
    model.save_weights(tmp_path / "a.weights.h5")
    model.save(tmp_path / "model.keras")
    for name in ("a.weights.h5", "model.keras", ""):
        again = alexnet(weights=tmp_path / name, **options)
        np.testing.assert_array_equal(again(images), model(images))
    assert class_names(again) == ("a", "b", "c")
    assert class_names(load_model(tmp_path)) == ("a", "b", "c")
    own = alexnet(weights=tmp_path, mean=(1, 2, 3), **options)
    np.testing.assert_array_equal(own.get_layer("preprocessing").mean, [1, 2, 3])
    # The layers keep their initializers, for surgery to use.
    before, after = (m.get_layer("conv3").kernel_initializer for m in (model, again))
    assert type(before) is type(after)
    assert class_names(replace_head(model, 2).model) is None
    with pytest.raises(UsageError, match="`names` must hold one name for every class of alexnet"):
        set_class_names(model, ["a"])


def test_layers_of_another_kind_are_refused(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv1")(inputs)
    model = keras.Model(inputs, keras.layers.BatchNormalization(name="bn")(x))
    model.save_weights(tmp_path / "a.weights.h5")
    model.save(tmp_path / "b.h5")
    for name in ("a.weights.h5", "b.h5"):
        with pytest.raises(UsageError, match="weights of another kind in layer 'bn'"):
            open_weights(tmp_path / name)
