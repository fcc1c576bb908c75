"""Models whose layers incremental occlusion must recompute, and an image."""

import keras
import numpy as np
from keras import layers

from cnnkit.layers import (
    CeilMaxPooling2D,
    ClassProbabilities,
    GroupedConv2D,
    LocalResponseNormalization,
    ReLU,
    SubtractMean,
)

METHODS = ("plain", "incremental")


def classifier(body, shape=(29, 37, 3), classes=5, scale=1.0):
    """A classifier over `body`; its logits are of about `scale`, so that no class wins always."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input(shape)
    x = layers.Flatten()(body(inputs))
    model = keras.Model(inputs, ClassProbabilities()(layers.Dense(classes, name="logits")(x)))
    random = np.random.default_rng(6)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
        elif isinstance(layer, layers.Conv2D):
            kernel, *bias = layer.get_weights()
            layer.set_weights([kernel, *(random.normal(0, 0.1, one.shape) for one in bias)])
    image = random_image(shape)
    kernel, bias = model.get_layer("logits").get_weights()
    logits = keras.Model(inputs, model.get_layer("logits").output)(image[None]).numpy()
    model.get_layer("logits").set_weights([kernel * scale / np.abs(logits).max(), bias])
    return model


def random_image(shape=(29, 37, 3)):
    return np.random.default_rng(7).uniform(0, 2, shape).astype("float32")


def strided(x):
    """The pooled map has negative values: the padding must not be a maximum."""
    x = layers.Conv2D(6, 5, strides=2, padding="same")(x)
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    return layers.Conv2D(8, 3, dilation_rate=2, padding="same", activation="tanh")(x)


def grouped(x):
    x = GroupedConv2D(8, 3, strides=2, padding="valid", activation=ReLU())(
        SubtractMean((1, 0, 1))(x)
    )
    x = LocalResponseNormalization(alpha=0.1)(x)
    x = CeilMaxPooling2D()(x)
    return GroupedConv2D(6, 3, padding="same", groups=2, activation=ReLU())(x)


def residual(x):
    x = layers.Conv2D(8, 7, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, padding="same")(x))
    y = layers.Conv2D(8, 3, padding="same")(layers.Activation("relu")(y))
    x = layers.Add()([layers.Conv2D(8, 1, strides=2)(x), y])
    return layers.Concatenate()([x, layers.AveragePooling2D(3, 1, padding="same")(x)])


def borders(x):
    x = layers.Cropping2D(((1, 2), (0, 3)))(layers.ZeroPadding2D(((2, 0), (1, 1)))(x))
    x = LocalResponseNormalization(3, alpha=0.3, region="within")(layers.Conv2D(4, 3)(x))
    return layers.AveragePooling2D((2, 3))(layers.PReLU(shared_axes=(1, 2))(x))


def skipping(x):
    """Strides larger than the windows: some pixels have no effect."""
    return layers.Conv2D(6, 2, strides=3)(layers.Conv2D(4, 1, strides=2, activation="relu")(x))


def a_mean_image(x):
    return layers.Conv2D(6, 3, activation="relu")(SubtractMean(random_image())(x))


def unknown_in_the_middle(x):
    """A layer without known windows is computed in full."""
    x = layers.Resizing(20, 30)(layers.Conv2D(6, 3, activation="relu")(x))
    return layers.Conv2D(4, 3, name="after")(x)


def depthwise(x):
    x = layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2)(x)
    x = layers.SeparableConv2D(6, 3, padding="same", activation="silu")(x)
    return layers.DepthwiseConv2D((2, 3), dilation_rate=2, use_bias=False, activation="relu")(x)


def operations(x):
    """Operators, constants, a gate that sees the whole map, layers of augmentation."""
    x = layers.RandomFlip()(x) / 2.0 - np.array([0.1, 0.2, 0.3], "float32")
    x = x * random_image()
    x = keras.ops.relu(layers.Conv2D(6, 3, strides=2)(x))
    y = keras.ops.silu(layers.Conv2D(6, 3, padding="same")(layers.GaussianNoise(0.5)(x)))
    x = keras.ops.maximum(x + 2 * y, -y)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(layers.Conv2D(6, 3)(x))
    return layers.Conv2D(4, 3)(x * keras.ops.sigmoid(gate))


def reversed_channels(x):
    """Values without an axis of channels, as preprocess_input makes them."""
    x = keras.ops.stack([x[..., 2], x[..., 1], x[..., 0]], axis=-1) + np.ones((1, 1, 1, 3))
    return layers.Conv2D(6, 3, activation="relu")(x)


def small_map_over_a_large_one(x):
    large = layers.Conv2D(4, 5, strides=2, activation="relu")(x)
    small = layers.Conv2D(4, (13, 17), activation="tanh")(large)
    return layers.Conv2D(4, 3)(layers.Add()([large, small]))


def normalized(x):
    """An activation that looks across the whole map."""
    return x / (0.01 + keras.ops.max(keras.ops.abs(x), axis=(1, 2), keepdims=True))


def normalizing_activation(x):
    x = layers.Conv2D(6, 3, strides=2, activation=normalized)(x)
    return layers.Conv2D(4, 3, activation="relu")(x)


def normalizing_layer(x):
    x = layers.Activation(normalized)(layers.Conv2D(6, 3, strides=2)(x))
    return layers.Conv2D(4, 3, activation="relu")(x)


class Standardized(layers.Conv2D):
    """A convolution of standardized kernels, as Keras tells authors to write it."""

    def convolution_op(self, inputs, kernel):
        mean = keras.ops.mean(kernel, axis=(0, 1, 2), keepdims=True)
        return super().convolution_op(inputs, (kernel - mean) / keras.ops.std(kernel))


def own_convolution(x):
    x = layers.Conv2D(6, 3, strides=2)(x)
    return layers.Conv2D(4, 3)(Standardized(6, 3, activation="relu")(x))


BODIES = (
    strided,
    grouped,
    residual,
    borders,
    skipping,
    a_mean_image,
    unknown_in_the_middle,
    depthwise,
    operations,
    small_map_over_a_large_one,
    own_convolution,
)
# Computed in full: no layer above the image is known to work on windows.
PLAIN_BODIES = (reversed_channels, normalizing_activation, normalizing_layer)
