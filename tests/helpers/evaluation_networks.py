"""Small networks and images of many shapes for the tests of evaluation."""

import keras
import numpy as np
import tensorflow as tf

from cnnkit.config import TrainingConfig
from cnnkit.data import Split
from cnnkit.run_folder import RunFolder

SIZE, CLASSES = 12, 7
LABELS = tuple("abcdefg")
# The shorter side is 16, so that scale 16 leaves the pixels alone.
SHAPES = ((16, 16), (16, 21), (27, 16), (16, 24), (18, 16), (16, 21), (16, 30), (23, 16))


def network(seed=0, *, end="probabilities", size=SIZE, padding="valid", classes=CLASSES):
    """A network whose dense head has a receptive field of 3 x 3 positions, 2 pixels apart."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 128, offset=-1)(inputs)
    x = keras.layers.Conv2D(5, 3, padding=padding, activation="relu", name="conv1")(x)
    x = keras.layers.MaxPooling2D(2, name="pool1")(x)
    x = keras.layers.Conv2D(6, 3, padding=padding, activation="relu", name="conv2")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(8, activation="relu", name="fc7")(x)
    # Large scores, so that averaging them is not averaging probabilities.
    dense = keras.layers.Dense(
        classes,
        activation="softmax" if end == "fused" else None,
        kernel_initializer=keras.initializers.RandomNormal(stddev=3.0),
        name="fc8",
    )
    x = dense(x)
    if end == "probabilities":
        x = keras.layers.Softmax(name="probabilities")(x)
    return keras.Model(inputs, x, name=f"net{seed}")


def images(count=8, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*SHAPES[i % len(SHAPES)], 3), np.uint8) for i in range(count)]


def split_of(pictures, labels):
    files = tf.stack([tf.io.encode_png(picture) for picture in pictures])
    names = [f"image{i}" for i in range(len(pictures))]
    return Split.from_files(
        np.asarray(labels, np.int32), names, lambda index: tf.gather(files, index)
    )


def write_folder(root, labels, each=3, seed=1):
    """Write a dataset of `each` training and test images per class."""
    pictures = iter(images(2 * each * len(labels), seed=seed))
    for split in ("train", "test"):
        for label in labels:
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(each):
                (folder / f"{i}.png").write_bytes(tf.io.encode_png(next(pictures)).numpy())
    return root


def write_run(path, seed, dataset, labels=LABELS, scale=(14, 18)):
    """Write the folder of a finished run of `network(seed)`."""
    run = RunFolder(path)
    config = TrainingConfig(dataset=f"folder:{dataset}", image_size=SIZE, scale=scale, seed=seed)
    run.create(config, labels, {})
    network(seed, classes=len(labels)).save(run.model_file)
    return path


def logits(model, batch):
    """The logits of `network` without padding, (n, classes), computed in NumPy."""
    kernels = {layer.name: layer.get_weights() for layer in model.layers}

    def convolution(x, name):
        kernel, bias = kernels[name]
        seen = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
        return np.maximum(np.einsum("nyxcij,ijck->nyxk", seen, kernel, optimize=True) + bias, 0)

    x = convolution(np.asarray(batch, np.float64) / 128 - 1, "conv1")
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    x = x.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
    x = convolution(x, "conv2").reshape(n, -1)
    for name in ("fc7", "fc8"):
        kernel, bias = kernels[name]
        x = x @ kernel + bias
        x = np.maximum(x, 0) if name == "fc7" else x
    return x


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
