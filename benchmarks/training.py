"""Training AlexNet: cnnkit's step against the same network in plain Keras with `train_on_batch`."""

from timing import interleaved, report  # isort: skip  (quiets TensorFlow before it is imported)

import keras
import numpy as np
import tensorflow as tf

from cnnkit import alexnet
from cnnkit.training import SGD
from cnnkit.training.steps import Steps

BATCH = 64
ROUNDS = 5


def plain_keras() -> keras.Model:
    """Builds AlexNet from what Keras and TensorFlow have."""

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


def main() -> None:
    """Measures and prints."""
    random = np.random.default_rng(0)
    images = tf.constant(random.uniform(0, 255, (BATCH, 224, 224, 3)), tf.float32)
    labels = tf.constant(random.integers(0, 1000, BATCH), tf.int32)
    batch = {"images": images, "labels": labels, "weights": tf.ones(BATCH)}
    ours = alexnet(initializer="glorot")
    peer = plain_keras()
    if ours.count_params() != peer.count_params():
        raise RuntimeError("the two networks differ")
    steps = Steps(ours, SGD(0.01, momentum=0.9, decay=5e-4), tf.distribute.get_strategy())

    def our_step():
        return steps.train(batch, BATCH, 0.01).numpy()

    candidates = {"cnnkit": our_step, "Keras": lambda: peer.train_on_batch(images / 255, labels)}
    title = f"AlexNet training, groups=2, batch {BATCH}, 224 x 224"
    report(title, interleaved(candidates, ROUNDS), BATCH)


if __name__ == "__main__":
    main()
