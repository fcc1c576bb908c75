"""Models and images that several tests of this folder share."""

import keras
import numpy as np
from keras import layers


def two_layer_model():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((12, 14, 3))
    x = layers.Conv2D(5, 3, activation="relu", name="a")(inputs)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="b")(layers.MaxPooling2D(2)(x))
    x = layers.Dense(3, name="top")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x)
    kernel, bias = model.get_layer("b").get_weights()
    bias[2] = -1e6
    model.get_layer("b").set_weights([kernel, bias])
    return model


def random_images():
    images = np.random.default_rng(1).uniform(0, 255, (23, 12, 14, 3)).astype("float32")
    # Equal images have equal activations: the first one ranks higher.
    images[17] = images[4]
    images[11] = images[2]
    return images


# A corner: three red pixels in a row, and below the last of them three green ones.
SIZE = 16


def corner(row, column):
    image = np.zeros((SIZE, SIZE, 3), "float32")
    image[row, column : column + 3, 0] = 1
    image[row + 1 : row + 4, column + 2, 1] = 1
    return image


def corner_detector():
    """conv1 detects red rows and green columns, conv2 a row with a column below its end."""
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(2, 3, padding="same", activation="relu", name="conv1")(inputs)
    x = layers.Conv2D(1, 5, padding="same", activation="relu", name="conv2")(x)
    x = layers.MaxPooling2D(4, 4, name="pool2")(x)
    x = layers.GlobalMaxPooling2D(name="any")(x)
    model = keras.Model(inputs, layers.Dense(2, activation="softmax", name="top")(x))
    bars = np.zeros((3, 3, 3, 2))
    bars[1, :, 0, 0] = 1
    bars[:, 1, 1, 1] = 1
    # Only all three pixels of a bar are more than 2.
    model.get_layer("conv1").set_weights([bars, np.array([-2.0, -2.0])])
    pair = np.zeros((5, 5, 2, 1))
    # From the middle of the row: the middle of the column is 2 below and 1 to the right.
    pair[2, 2, 0, 0] = pair[4, 3, 1, 0] = 1
    model.get_layer("conv2").set_weights([pair, np.array([-1.0])])
    model.get_layer("top").set_weights([np.array([[2.0, 0.0]]), np.zeros(2)])
    return model
