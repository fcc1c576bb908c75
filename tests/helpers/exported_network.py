"""A small network with class names, and image files to ask it about."""

import importlib
import io

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from cnnkit import alexnet
from cnnkit.data import resize_shorter_side

LABELS = ["ant", "bee", "cat", "dog", "elk", "fox"]


def small_alexnet(**options):
    """Returns an AlexNet of images of 64 x 64 pixels."""
    keras.utils.set_random_seed(0)
    return alexnet(
        input_shape=(64, 64, 3), classes=6, initializer="glorot", hidden_units=32, **options
    )


def skip_output_check(monkeypatch):
    """Leaves out the check of an export in another process, for tests of other parts."""
    # The module, which has the name of its function in the package.
    module = importlib.import_module("cnnkit.export.export")
    monkeypatch.setattr(module, "_check_outputs", lambda *_: None)


def image_files():
    """Yields the same image as a file of several formats and modes."""
    y, x = np.mgrid[0:90, 0:120]
    rgb = np.stack([x * 2, y * 2, (x * y) % 256], -1).astype(np.uint8)
    for kind, mode in (("PNG", "RGB"), ("JPEG", "RGB"), ("PNG", "L"), ("BMP", "RGB"),
                       ("GIF", "RGB"), ("WEBP", "RGB"), ("PNG", "RGBA")):  # fmt: skip
        file = io.BytesIO()
        Image.fromarray(rgb).convert(mode).save(file, kind)
        yield file.getvalue()


def decode_reference(encoded):
    """Decodes and rescales image files with Pillow."""
    pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in encoded]
    return np.stack([resize_shorter_side(tf.constant(p), 64) for p in pixels])
