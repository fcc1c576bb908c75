"""Properties and argument checks that all attribution methods share."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from cnnkit.errors import DataError, UsageError
from cnnkit.visualize import (
    Attribution,
    gradcam,
    gradcam_plus_plus,
    saliency,
    scorecam,
    smoothgrad,
)
from tests.visualize.attribution.networks import CAMS, NETWORKS, SHAPE, body, flat_layers


def test_keras_applications_vgg16():
    keras.utils.set_random_seed(1)
    model = keras.applications.VGG16(weights=None, input_shape=(32, 32, 3), classes=10)
    image = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype("float32")
    twin = keras.Model(model.input, model.get_layer("fc2").output)
    top = model.get_layer("predictions")
    x = tf.constant(image)
    with tf.GradientTape() as tape:
        tape.watch(x)
        score = (twin(x) @ top.kernel + top.bias)[0, 3]
    expected = tape.gradient(score, x).numpy()[0]
    [one] = saliency(model, image, 3)
    np.testing.assert_allclose(one.gradient, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert gradcam(model, image, 3)[0].layer == "block5_conv3"


def test_the_model_is_not_changed(example_model, images, capsys):
    model = example_model

    def state():
        nodes = [
            (len(layer._inbound_nodes), len(layer._outbound_nodes))
            for layer in flat_layers(model.layers)
        ]
        return nodes, [layer.get_config() for layer in model.layers if layer.name != "inside"]

    # Called first: Keras writes the input shape of a fused ReLU layer into the config then.
    answers = model(images).numpy()
    before, weights = state(), model.get_weights()
    for method in (saliency, gradcam, gradcam_plus_plus):
        method(model, images[:1])
    smoothgrad(model, images[:1], samples=2)
    if model.layers[-1].get_config().get("activation") != "sigmoid":
        scorecam(model, images[:1])
    assert state() == before
    for one, other in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(model(images).numpy(), answers)
    # No progress bars.
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (lambda m, x: gradcam(m, x, layer="conv7"), "Unknown layer 'conv7'.*Did you mean conv"),
        (
            lambda m, x: gradcam(m, x, layer="logits"),
            "'logits' has no feature map.*for example pool2",
        ),
        (lambda m, x: scorecam(m, x, layer="flat"), "'flat' has no feature map"),
        (lambda m, x: saliency(m, x, 4), "has no class 4. Expected: 0 to 3"),
        (lambda m, x: saliency(m, x, "cat"), "Unknown class 'cat'"),
        (lambda m, x: saliency(m, x[:, :9]), "`images` must have the shape of the model.s input"),
        (lambda m, x: saliency(m, x, batch_size=0), "`batch_size` must be at least 1. Received: 0"),
        (lambda m, x: smoothgrad(m, x, samples=0), "`samples` must be at least 1"),
        (
            lambda m, x: smoothgrad(m, x, noise=-1),
            "`noise` must be 0 or more and finite. Received: -1",
        ),
        (
            lambda m, x: smoothgrad(m, x, noise=np.nan),
            "`noise` must be 0 or more and finite. Received: nan",
        ),
        (
            lambda m, x: smoothgrad(m, x, noise=np.inf),
            "`noise` must be 0 or more and finite. Received: inf",
        ),
    ],
)
def test_invalid_arguments(images, ask, text):
    with pytest.raises(UsageError, match=text):
        ask(NETWORKS["ours"](), images)


def test_invalid_models_and_pixels(images):
    headless = keras.Model(*(lambda x: (x, body(x)))(keras.Input(SHAPE)))
    for method in (saliency, *CAMS):
        with pytest.raises(UsageError, match="is not a classifier"):
            method(headless, images)
    model = NETWORKS["ours"]()
    broken = images.copy()
    broken[1, 2, 3, 0] = np.nan
    with pytest.raises(DataError, match="Image 1 has pixels that are not finite"):
        gradcam(model, broken)
    kernel, bias = model.get_layer("conv2").get_weights()
    model.get_layer("conv2").set_weights([kernel * np.nan, bias])
    with pytest.raises(DataError, match="'conv2' has weights that are not finite"):
        saliency(model, images)
    model.get_layer("conv2").set_weights([kernel * 1e30, bias])
    model.get_layer("logits").set_weights(
        [w * 1e30 for w in model.get_layer("logits").get_weights()]
    )
    with pytest.raises(DataError, match="The logits of image 0 are not finite"):
        saliency(model, images)
    flat_inputs = keras.Input(SHAPE)
    dense = keras.Model(flat_inputs, layers.Dense(2)(layers.Flatten()(flat_inputs)))
    with pytest.raises(
        UsageError,
        match="has no feature maps on the way.*Give the name of a `layer`",
    ):
        gradcam(dense, images)
    assert saliency(dense, images[:0]) == gradcam(NETWORKS["ours"](), images[:0]) == []


def test_a_notebook_shows_the_map_and_the_gradient():
    image = np.ones((2, 3), np.float32)
    cam = Attribution("gradcam", 0, 4, 1.25, image, layer="conv5")._repr_html_()
    assert "gradcam of class 4, maps of conv5, logit 1.25" in cam
    assert (cam.count("<img"), "gray is 0" in cam) == (1, False)
    signed = Attribution("saliency", 0, 4, -2.0, image, np.ones((2, 3, 3)))._repr_html_()
    assert "saliency of class 4, logit -2<" in signed
    assert (signed.count("<img"), "the gradient: gray is 0" in signed) == (2, True)
