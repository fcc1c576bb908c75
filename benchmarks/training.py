"""Compare the training steps of cnnkit with the same networks in Keras.

AlexNet is compared with one of Keras's and TensorFlow's own operations under `train_on_batch`,
VGG-16 with keras.applications.VGG16 under `fit`. For PyTorch see networks.py.
"""

from timing import interleaved, report  # isort: skip  (quiets TensorFlow before it is imported)

import argparse
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from cnnkit import alexnet, vgg16
from cnnkit.training import SGD
from cnnkit.training.step import StepRunner

ROUNDS = 5


def plain_keras() -> keras.Model:
    """Build AlexNet from operations of Keras and TensorFlow."""

    def conv(filters, size, **options):
        return keras.layers.Conv2D(filters, size, activation="relu", **options)

    def normalization():
        return keras.layers.Lambda(
            lambda x: tf.nn.local_response_normalization(x, 2, 2.0, 1e-4, 0.75)
        )

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((224, 224, 3)),
            layers.ZeroPadding2D(((0, 3), (0, 3))),
            conv(96, 11, strides=4),
            normalization(),
            layers.MaxPooling2D(3, 2),
            conv(256, 5, padding="same", groups=2),
            normalization(),
            layers.MaxPooling2D(3, 2),
            conv(384, 3, padding="same"),
            conv(384, 3, padding="same", groups=2),
            conv(256, 3, padding="same", groups=2),
            layers.MaxPooling2D(3, 2),
            layers.Flatten(),
            layers.Dense(4096, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(4096, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(1000, activation="softmax"),
        ]
    )
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def batch_of(size: int) -> dict[str, tf.Tensor]:
    """Return a batch of noise with labels."""
    random = np.random.default_rng(0)
    return {
        "images": tf.constant(random.uniform(0, 255, (size, 224, 224, 3)), tf.float32),
        "labels": tf.constant(random.integers(0, 1000, size), tf.int32),
        "weights": tf.ones(size),
    }


def cnnkit_steps(model: keras.Model, batch: dict[str, tf.Tensor], count: int) -> Callable[[], None]:
    """Return a function that runs `count` training steps."""
    runner = StepRunner(model, SGD(0.01, momentum=0.9, decay=5e-4), tf.distribute.get_strategy())
    size = len(batch["labels"])

    def call():
        for _ in range(count):
            runner.train(batch, size, 1e-4).numpy()

    return call


def compare_alexnet(rounds: int, size: int) -> None:
    """Print the speed of AlexNet."""
    batch = batch_of(size)
    ours, peer = alexnet(initializer="glorot"), plain_keras()
    if ours.count_params() != peer.count_params():
        raise RuntimeError("the two networks differ")
    candidates = {
        "cnnkit": cnnkit_steps(ours, batch, 1),
        "Keras": lambda: peer.train_on_batch(batch["images"] / 255, batch["labels"]),
    }
    title = f"AlexNet training, groups=2, batch {size}, 224 x 224"
    report(title, interleaved(candidates, rounds), size)


def compare_vgg16(rounds: int, size: int) -> None:
    """Print the speed of VGG-16. One call is several steps, because `fit` has a fixed overhead."""
    count = 3
    batch = batch_of(size)
    peer = keras.applications.VGG16(weights=None)
    peer.compile(keras.optimizers.SGD(1e-4, momentum=0.9), loss="sparse_categorical_crossentropy")
    shown = tf.data.Dataset.from_tensors((batch["images"] / 255, batch["labels"])).repeat()
    candidates = {
        "cnnkit": cnnkit_steps(vgg16(), batch, count),
        "keras.applications, fit": lambda: peer.fit(
            shown, steps_per_epoch=count, shuffle=False, verbose=0
        ),
    }
    title = f"VGG-16 training, batch {size}, 224 x 224"
    report(title, interleaved(candidates, rounds), size * count)


# Function and batch size of each network.
NETWORKS = {"alexnet": (compare_alexnet, 64), "vgg16": (compare_vgg16, 16)}


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="the median counts")
    parser.add_argument("--batch", type=int, help="images in a batch, instead of 64 and 16")
    args = parser.parse_args()
    for name in args.networks:
        measure, size = NETWORKS[name]
        measure(args.rounds, args.batch or size)


if __name__ == "__main__":
    main()
