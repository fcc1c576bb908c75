"""Models of every structure for the tests of attribution, and their values by hand."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from cnnkit.layers import ClassProbabilities, LocalResponseNormalization, ReLU
from cnnkit.visualize import gradcam, gradcam_plus_plus, scorecam

SHAPE, CLASSES = (20, 26, 3), 4


CAMS = (gradcam, gradcam_plus_plus, scorecam)


def body(x):
    x = layers.Rescaling(1 / 64, offset=-1)(x)
    x = layers.Conv2D(5, 3, activation=ReLU(), name="conv1")(x)
    x = LocalResponseNormalization(alpha=0.5, name="norm1")(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="conv2")(x)
    return layers.MaxPooling2D(2, name="pool2")(x)


def plain(end):
    def build():
        inputs = keras.Input(SHAPE)
        x = layers.Flatten(name="flat")(body(inputs))
        return keras.Model(inputs, end(x))

    return build


def sequential():
    return keras.Sequential([
        keras.Input(SHAPE), layers.Rescaling(1 / 64),
        layers.Conv2D(6, 3, strides=2, activation="relu", name="conv2"), layers.Flatten(),
        layers.Dense(CLASSES, name="logits"), layers.Softmax(),
    ])  # fmt: skip


def nested():
    inner = keras.Input(SHAPE)
    inside = keras.Model(inner, body(inner), name="inside")
    inputs = keras.Input(SHAPE)
    x = layers.Dense(CLASSES, name="logits")(layers.Flatten()(inside(inputs)))
    return keras.Model(inputs, layers.Activation("softmax")(x))


def bypass():
    """A path from the image to the classes bypasses the maps."""
    inputs = keras.Input(SHAPE)
    x = layers.Rescaling(1 / 64)(inputs)
    one = layers.Conv2D(6, 3, padding="same", activation="relu", name="conv2")(x)
    other = layers.Conv2D(6, 1, name="beside")(x)
    x = layers.GlobalAveragePooling2D()(layers.Add()([one, other]))
    return keras.Model(inputs, layers.Dense(CLASSES, name="logits")(x))


NETWORKS = {
    "fused softmax": plain(lambda x: layers.Dense(CLASSES, "softmax", name="logits")(x)),
    "softmax layer": plain(lambda x: layers.Softmax()(layers.Dense(CLASSES, name="logits")(x))),
    "ours": plain(lambda x: ClassProbabilities()(layers.Dense(CLASSES, name="logits")(x))),
    "logits": plain(lambda x: layers.Dense(CLASSES, name="logits")(x)),
    "sigmoids": plain(lambda x: layers.Dense(CLASSES, "sigmoid", name="logits")(x)),
    "sigmoid layer": plain(
        lambda x: layers.Activation("sigmoid")(layers.Dense(CLASSES, name="logits")(x))
    ),
    "sequential": sequential,
    "nested": nested,
    "bypass": bypass,
}


def flat_layers(nested):
    for layer in nested:
        yield from flat_layers(layer.layers) if isinstance(layer, keras.Model) else [layer]


def reference_values(model, images, name="conv2"):
    """Returns a tape, the pixels, the maps and the logits, before the last activation."""
    x = tf.constant(images)
    tape = tf.GradientTape(persistent=True)
    with tape:
        tape.watch(x)
        steps = [one for one in flat_layers(model.layers) if not isinstance(one, layers.InputLayer)]
        names = [one.name for one in steps]
        if "beside" in names:
            get = model.get_layer
            scaled = x / 64
            maps = get("conv2")(scaled)
            pooled = tf.reduce_mean(maps + get("beside")(scaled), (1, 2))
            logits = pooled @ get("logits").kernel + get("logits").bias
            return tape, x, maps, logits
        value, maps = x, None
        for step in steps:
            if step.name == "logits":
                return tape, x, maps, value @ step.kernel + step.bias
            value = step(value)
            maps = value if step.name == name else maps
    raise AssertionError


def target_logits(logits, target=None):
    targets = logits.numpy().argmax(1) if target is None else np.full(len(logits), target)
    return targets, tf.gather(logits, targets, axis=1, batch_dims=1)
