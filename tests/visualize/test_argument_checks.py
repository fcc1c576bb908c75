"""Wrong arguments of every function are answered in one line that names the argument."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from cnnkit import load_model, visualize
from cnnkit.errors import DataError, UsageError
from cnnkit.features.extractor import FeatureExtractor
from cnnkit.features.spec import FeatureSpec
from cnnkit.transfer.linear_classifier import fit_linear_classifier
from cnnkit.visualize import Box
from tests.visualize.networks import random_images, two_layer_model

IMAGES = random_images()[:3]
BOXES = {"eye": [Box(1, 1, 4, 4)] * 3}


@pytest.fixture(scope="module")
def model():
    return two_layer_model()


@pytest.mark.parametrize(
    ("function", "arguments", "text"),
    [
        ("saliency", {"images": "photo.png"}, "`images` must be an array of numbers"),
        ("saliency", {"images": [[1, 2], [3]]}, "`images` must be an array of numbers"),
        ("saliency", {"target": [0, 1]}, "must be the name or the number of a class"),
        ("saliency", {"target": 1.7}, "must be the name or the number of a class"),
        ("saliency", {"batch_size": 1.5}, "`batch_size` must be a whole number"),
        ("smoothgrad", {"samples": "9"}, "`samples` must be a whole number"),
        ("smoothgrad", {"noise": "loud"}, "`noise` must be 0 or more"),
        ("gradcam", {"layer": 3}, "`layer` must be the name of a layer. Received: 3"),
        ("gradcam", {"layer": ["a"]}, "`layer` must be the name of a layer"),
        ("scorecam", {"target": None, "layer": 1.5}, "`layer` must be the name of a layer"),
        ("deconvnet", {"layer": 3}, "`layer` must be the name of a layer"),
        ("deconvnet", {"layer": "b", "unit": 1.5}, "`unit` must be a whole number"),
        ("deconvnet", {"layer": "b", "unit": "1"}, "`unit` must be a whole number"),
        ("deconvnet", {"layer": "b", "unit": -1}, "has no unit -1. Expected: 0 to 3"),
        ("deconvnet", {"layer": "b", "position": 3}, "`position` must lie in the feature map"),
        ("deconvnet", {"layer": "b", "position": (0.5, 1)}, "`position` must lie in the feature"),
        ("deconvnet", {"layer": "b", "position": (-1, 0)}, "`position` must lie in the feature"),
        ("deconvnet", {"layer": "b", "position": (0, 6)}, "within 5 x 6. Received: \\(0, 6\\)"),
        ("deconvnet", {"layer": "b", "batch_size": True}, "must be a whole number. Received: True"),
        ("deconvnet", {"layer": "b", "batch_size": 0}, "`batch_size` must be at least 1"),
        ("find_top_activations", {"layers": "b"}, "`layers` must be a list of names"),
        ("find_top_activations", {"layers": ["b"], "k": 1.5}, "`k` must be a whole number"),
        ("top9", {"layers": "b"}, "`layers` must be a list of names"),
        ("invariance", {"transform": "scale", "layers": "b"}, "`layers` must be a list of names"),
        ("invariance", {"transform": "scale", "labels": [1.5] * 3}, "name or the number of a cl"),
        ("correspondence", {"boxes": BOXES, "layers": "b"}, "`layers` must be a list of names"),
        ("correspondence", {"boxes": BOXES, "layers": ["b"], "draws": -1}, "`draws` must be at le"),
        ("compare_attributions", {"methods": "gradcam"}, "`methods` must be a list of names"),
        ("compare_attributions", {"down_to": "b"}, "`down_to` must be a list of names"),
        ("occlusion", {"square": "big"}, "`square` must be a whole number"),
        ("occlusion", {"square": 2.5}, "`square` must be a whole number"),
        ("occlusion", {"square": 4, "fill": "gray"}, "`fill` must be one color"),
        ("occlusion", {"square": 4, "unit": 1.5}, "`unit` must be a whole number"),
        ("activation_maximization", {"unit": 1.7}, "must be the name or the number of a class"),
    ],
)
def test_wrong_arguments(model, function, arguments, text):
    one = function in ("occlusion", "compare_attributions")
    image = {
        "occlusion": "image",
        "compare_attributions": "image",
        "find_top_activations": "source",
        "top9": "source",
        "activation_maximization": None,
    }.get(function, "images")
    given = {**({image: IMAGES[0] if one else IMAGES} if image else {}), **arguments}
    with pytest.raises(UsageError, match=text) as error:
        getattr(visualize, function)(model, **given)
    assert "\n" not in str(error.value)


def channels_first(kind):
    inputs = keras.Input((3, 12, 14))
    if kind == "convolution":
        x = layers.Conv2D(4, 3, data_format="channels_first")(inputs)
        x = layers.GlobalMaxPooling2D(data_format="channels_first")(x)
    elif kind == "permuted":
        x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(layers.Permute((2, 3, 1))(inputs)))
    elif kind == "transposed":
        x = layers.Conv2D(4, 3)(keras.ops.transpose(inputs, (0, 2, 3, 1)))
        x = layers.GlobalAveragePooling2D()(x)
    else:
        inputs = keras.Input((12, 14, 3))
        x = layers.Conv2D(4, 3, name="a")(inputs)
        x = layers.GlobalMaxPooling2D(data_format="channels_first")(x)
    return keras.Model(inputs, layers.Dense(2, "softmax")(x))


@pytest.mark.parametrize("kind", ["convolution", "permuted", "transposed", "pooling"])
def test_channels_first_is_refused(kind):
    model = channels_first(kind)
    images = np.zeros((3, *model.input_shape[1:]), "float32")
    for ask in (
        lambda: visualize.saliency(model, images),
        lambda: visualize.gradcam(model, images),
        lambda: visualize.occlusion(model, images[0], 4),
        lambda: visualize.deconvnet(model, images, "a"),
        lambda: visualize.find_top_activations(model, images, ["a"]),
        lambda: visualize.invariance(model, images, "scale"),
        lambda: visualize.correspondence(model, images, BOXES, ["a"]),
        lambda: visualize.activation_maximization(model),
        lambda: visualize.receptive_field(model, "a"),
        lambda: visualize.forward_steps(model, images, "a"),
    ):
        with pytest.raises(UsageError, match="its channels last.*channels first in layer"):
            ask()


def test_a_pixelwise_convolution_with_a_stride(rng):
    """TensorFlow's own gradient of it writes beyond its memory; this is the value by hand."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((12, 14, 3))
    for activation in ("linear", "relu"):
        x = layers.Conv2D(5, 1, strides=2, padding="same", activation=activation, name="c")(inputs)
        model = keras.Model(inputs, layers.Dense(2, name="top")(layers.GlobalAveragePooling2D()(x)))
        image = rng.normal(size=(12, 14, 3)).astype("float32")
        kernel = model.get_layer("c").get_weights()[0][0, 0]
        maps = image[::2, ::2] @ kernel
        passed = maps > 0 if activation == "relu" else np.ones_like(maps)
        expected = np.zeros_like(image)
        weights = model.get_layer("top").get_weights()[0][:, 1] / maps[..., 0].size
        expected[::2, ::2] = (passed * weights) @ kernel.T
        [found] = visualize.saliency(model, image, 1)
        np.testing.assert_allclose(found.gradient, expected, atol=1e-6)
        np.testing.assert_allclose(found.score, model(image[None])[0, 1], rtol=1e-4)


def test_features_and_classifiers(model):
    with pytest.raises(UsageError, match="`layer` must be the name of a layer"):
        FeatureExtractor(model, FeatureSpec(3))
    with pytest.raises(DataError, match="all features are zero"):
        fit_linear_classifier(np.zeros((6, 4)), np.arange(6) % 2)


class Unknown(layers.Layer):
    """A class that is not registered with Keras."""

    def call(self, inputs):
        return tf.abs(inputs)


def test_a_file_with_an_unknown_layer(tmp_path):
    inputs = keras.Input((4,))
    keras.Model(inputs, Unknown()(inputs)).save(tmp_path / "own.keras")
    with pytest.raises(UsageError, match="own.keras is not a model that Keras can load") as error:
        load_model(tmp_path / "own.keras")
    assert "\n" not in str(error.value)
