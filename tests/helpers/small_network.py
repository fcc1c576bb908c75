"""A small network without padding, for features and transfer."""

import keras
from keras import layers


def network(seed=1, size=23, name="net"):
    """Without padding, so that a larger image is seen as its windows are."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((size, size, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = layers.Conv2D(5, 5, strides=2, activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(7, activation="relu", bias_initializer="ones", name="fc7")(x)
    x = layers.Dense(3, name="fc8")(x)
    return keras.Model(inputs, x, name=name)
