"""A network small enough to train in a test."""

import keras

from cnnkit.layers import Dropout, ReLU


def tiny(*, classes, input_shape, mean, dropout=0.0, scale=1.0, name="tiny"):
    inputs = keras.Input(input_shape)
    x = keras.layers.Rescaling(1 / 64, offset=-1)(inputs)
    x = keras.layers.Conv2D(6, 3, strides=2, activation=ReLU(), name="conv1")(x)
    x = keras.layers.Flatten()(x)
    x = Dropout(dropout)(x)
    x = keras.layers.Rescaling(scale)(x)
    x = keras.layers.Dense(classes, name="fc8")(x)
    return keras.Model(inputs, keras.layers.Activation("softmax")(x), name=name)
