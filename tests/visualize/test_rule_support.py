"""Layers that the backward rules pass, against gradients, and those that they refuse."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from cnnkit.errors import UsageError
from cnnkit.visualize import deconvnet


@pytest.fixture(scope="module")
def images():
    images = np.random.default_rng(0).normal(size=(2, 13, 15, 3)).astype("float32")
    images[1, 2:9, 3:10] = 0.2
    return images


class Scaled(layers.Conv2D):
    """Computes something else than the convolution it inherits from."""

    def call(self, inputs):
        return super().call(inputs) ** 2


REFUSED = {
    "elu": (lambda: layers.Conv2D(2, 3, activation="elu", name="L"), "Conv2D with activation elu"),
    "relu6": (lambda: layers.ReLU(6.0, name="L"), "ReLU"),
    "leaky": (lambda: layers.Activation("leaky_relu", name="L"), "activation leaky_relu"),
    "slope": (lambda: layers.LeakyReLU(name="L"), "LeakyReLU"),
    "softmax inside": (lambda: layers.Softmax(name="L"), "Softmax"),
    "fused softmax inside": (lambda: layers.Dense(2, activation="softmax", name="L"), "softmax"),
    "overridden": (lambda: Scaled(2, 3, name="L"), "Scaled"),
    "lambda": (lambda: layers.Lambda(lambda x: x * x, name="L"), "Lambda"),
    "product": (lambda: lambda x: layers.Multiply(name="L")([x, x]), "Multiply"),
    "operation": (lambda: lambda x: keras.ops.square(x), "Square"),
    "gate": (lambda: lambda x: x * keras.ops.sigmoid(x), "Sigmoid"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
def test_layers_that_do_not_support_a_rule_are_named(images, name, rule):
    make, text = REFUSED[name]
    inputs = keras.Input((13, 15, 3))
    x = make()(layers.Conv2D(2, 3)(inputs))
    model = keras.Model(inputs, layers.Conv2D(2, 3, name="top")(x))
    layer = {"operation": "square", "gate": "sigmoid"}.get(name, "L")
    with pytest.raises(
        UsageError, match=f"{layer}.*does not support the backward rule '{rule}'.*{text}"
    ):
        deconvnet(model, images, "top", rule=rule)
    # Layers below it can be projected.
    assert deconvnet(model, images, model.layers[1].name, rule=rule)


def preprocess_caffe(x):
    return keras.applications.vgg16.preprocess_input(x)


def preprocess_torch(x):
    return keras.applications.densenet.preprocess_input(x)


LINEAR = {
    "depthwise": layers.DepthwiseConv2D(3, depth_multiplier=2, bias_initializer="uniform"),
    "separable": layers.SeparableConv2D(4, 3, strides=2, padding="same"),
    "transposed": layers.Conv2DTranspose(4, 3, strides=2),
    "upsampling": layers.UpSampling2D((2, 3)),
    "bilinear": layers.UpSampling2D(2, interpolation="bilinear"),
    "resizing": layers.Resizing(17, 11),
    "reshape": layers.Reshape((15, 13, 3)),
    "permute": layers.Permute((2, 1, 3)),
    "augmentation": keras.Sequential([layers.RandomFlip(), layers.RandomRotation(0.2)]),
    "dropout in training": lambda x: layers.Dropout(0.5)(x, training=True),
    "caffe": preprocess_caffe,
    "torch": preprocess_torch,
    "operators": lambda x: (1.0 - x / 255.0) * np.array([1, 2, 3], "float32") + x,
    "split": lambda x: keras.ops.concatenate(keras.ops.split(x, [1], axis=-1)[::-1], axis=-1),
}


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_layer_below_is_projected_by_its_transpose(images, name):
    """All filters above are positive and so is the signal: the rules equal the gradient."""
    inputs = keras.Input((13, 15, 3))
    x = LINEAR[name](inputs)
    x = layers.Conv2D(3, 3, activation="relu", kernel_initializer="ones", name="conv")(x)
    model = keras.Model(inputs, layers.Dense(2, name="top")(layers.GlobalAveragePooling2D()(x)))
    with tf.GradientTape() as tape:
        pixels = tf.constant(images)
        tape.watch(pixels)
        linear = keras.Model(inputs, model.get_layer("conv").input)(pixels, training=False)
        score = tf.reduce_sum(linear[:, 2:5, 3:6])
    expected = tape.gradient(score, pixels).numpy()
    for rule in ("deconvnet", "gradient") if np.all(model(images) != 0) else ("deconvnet",):
        results = deconvnet(model, images, "conv", 1, (2, 3), rule=rule)
        for result, value in zip(results, expected, strict=True):
            if rule == "deconvnet" or result.activation > 0:
                np.testing.assert_allclose(result.projection, value, atol=1e-5)


def test_an_operation_of_relu_follows_the_rule(images):
    def net(relu):
        keras.utils.set_random_seed(3)
        inputs = keras.Input((13, 15, 3))
        x = relu(layers.Conv2D(4, 3)(inputs))
        x = relu(layers.Conv2D(4, 3)(x))
        return keras.Model(inputs, layers.Dense(2, name="top")(layers.Flatten()(x)))

    for rule in ("deconvnet", "guided", "gradient"):
        one, other = (
            deconvnet(net(relu), images, "top", 1, rule=rule)
            for relu in (layers.ReLU(), keras.ops.relu)
        )
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a.projection, b.projection)
