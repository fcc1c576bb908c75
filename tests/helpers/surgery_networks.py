"""Small networks for surgery, and comparisons of their weights."""

import keras
import numpy as np

from cnnkit import alexnet
from cnnkit.layers import Dropout, ReLU

SIDE, STRIDE = 14, 2


def chain(*layers, side=SIDE, columns=None, name="chain"):
    inputs = x = keras.Input((side, columns or side, 3), name="images")
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x, name=name)


def tiny(hidden=(6, 5), classes=4, softmax=True, side=SIDE, **options):
    """Maps without padding: 14 -> 12 -> 6 -> 4. The head sees 14 pixels every 2 pixels."""
    conv, dense = keras.layers.Conv2D, keras.layers.Dense
    begin = {"bias_initializer": "random_normal"}
    head = []
    for number, units in enumerate(hidden, start=8 - len(hidden)):
        head += [
            dense(units, activation=ReLU(), name=f"fc{number}", **begin),
            Dropout(0.5, name=f"fc{number}_dropout"),
        ]
    return chain(
        conv(5, 3, activation=ReLU(), name="conv1", **begin),
        keras.layers.MaxPooling2D(2, 2, name="pool1"),
        conv(4, 3, activation=ReLU(), name="conv2", **begin),
        keras.layers.Flatten(name="flatten"),
        *head,
        dense(classes, name="fc8", **begin),
        *([keras.layers.Activation("softmax", name="probabilities")] if softmax else []),
        side=side,
        **options,
    )


def small_alexnet(classes=5, **options):
    options = {"initializer": "glorot", "bias_value": 0.1, **options}
    return alexnet(input_shape=(64, 64, 3), classes=classes, **options)


def images(rng, *sides, count=2):
    return rng.uniform(-1, 1, (count, *sides, 3)).astype("float32")


def weights(model):
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def assert_same_weights(one, other, names=None):
    one, other = weights(one), weights(other)
    names = list(one) if names is None else names
    assert names and set(names) <= set(other)
    for name in names:
        for a, b in zip(one[name], other[name], strict=True):
            np.testing.assert_array_equal(a, b)


def frozen_copy(model):
    """The weights and trainable flags of a model, to compare with later ones."""
    return (
        {name: [value.copy() for value in values] for name, values in weights(model).items()},
        [(layer.name, layer.trainable) for layer in model.layers],
    )


def assert_untouched(model, before):
    now = frozen_copy(model)
    assert now[1] == before[1]
    for name, values in before[0].items():
        for a, b in zip(values, now[0][name], strict=True):
            np.testing.assert_array_equal(a, b)


def headless():
    return chain(keras.layers.Conv2D(4, 3, padding="same"), keras.layers.MaxPooling2D(name="pool"))
