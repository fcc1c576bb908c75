"""Writes networks and what TensorFlow answers, for other backends to compare with.

Run with the folder for the files: python answers.py FOLDER
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from cnnkit.layers import LocalResponseNormalization
from cnnkit.models import alexnet, vgg11_lrn, zfnet
from cnnkit.visualize import deconvnet

BUILDERS = {"alexnet": alexnet, "zfnet": zfnet, "vgg11_lrn": vgg11_lrn}


def main(folder: Path) -> None:
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    arrays = {"images": images}
    for name, builder in BUILDERS.items():
        options = {} if name.startswith("vgg") else {"hidden_units": 64, "initializer": "glorot"}
        model = builder(input_shape=(64, 64, 3), classes=4, classifier_activation=None, **options)
        model.save(folder / f"{name}.keras")
        with tf.GradientTape() as tape:
            pixels = tf.constant(images)
            tape.watch(pixels)
            logits = model(pixels, training=False)
        arrays[f"{name}/logits"] = logits.numpy()
        arrays[f"{name}/gradient"] = tape.gradient(logits, pixels).numpy()
        if name == "alexnet":
            found = deconvnet(model, images, "conv5")
            arrays["deconvnet"] = np.stack([one.projection for one in found])
    for region in ("across", "within"):
        maps = random.normal(0, 30, (2, 5, 6, 9)).astype("float32")
        signal = random.normal(size=maps.shape).astype("float32")
        with tf.GradientTape() as tape:
            x = tf.constant(maps)
            tape.watch(x)
            y = LocalResponseNormalization(region=region)(x)
        arrays[f"lrn/{region}/maps"], arrays[f"lrn/{region}/signal"] = maps, signal
        arrays[f"lrn/{region}/gradient"] = tape.gradient(y, x, tf.constant(signal)).numpy()
    np.savez(folder / "answers.npz", **arrays)


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    main(Path(sys.argv[1]))
