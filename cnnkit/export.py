"""SavedModels for TensorFlow Serving: one folder a version, whole or absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from cnnkit.data import decode, fit
from cnnkit.errors import RunError, UsageError

TOP = 5
TOLERANCE = 1e-5
CHECKED_IMAGES = 2


def export(model: keras.Model, labels: Sequence[str], output: str | Path) -> Path:
    """Writes the next version of a model folder, `output/<integer>/`.

    The version is written aside, loaded again, compared with the model in memory, and renamed into
    place: a server that watches the folder never finds half of it. Every weight is stored once.
    Signatures, all guarded against inputs of another shape:

    | signature         | input                                    | outputs                     |
    |-------------------|------------------------------------------|-----------------------------|
    | `serving_default` | `images` float32 (n, h, w, 3) RGB 0..255 | `probabilities` (n, classes)|
    | `serving_bytes`   | `image_bytes` string (n,), encoded files | `probabilities` (n, classes)|
    | `classify_bytes`  | `image_bytes` string (n,), encoded files | `labels`, `scores` (n, 5)   |

    Args:
        model: A classifier over images of a fixed size.
        labels: Names of the classes; stored as `assets/labels.txt`.
        output: The model folder; its name is the model's name on the server.

    Returns:
        The folder of the new version.

    Raises:
        UsageError: If the labels do not fit the model, or `output` is a file.
        RunError: If the exported model answers otherwise than the one in memory.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.export import export
        >>> model = alexnet(input_shape=(64, 64, 3), classes=2)
        >>> export(model, ["cat", "dog"], "/tmp/pets")  # doctest: +SKIP
        PosixPath('/tmp/pets/1')
    """
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise UsageError("The model folder is a file", expected="a folder", received=output)
    if model.output_shape[-1] != len(labels):
        raise UsageError(
            "The labels do not fit the model",
            expected=f"{model.output_shape[-1]} labels",
            received=len(labels),
        )
    output.mkdir(parents=True, exist_ok=True)
    with _folder_aside(output) as aside:
        asset = aside / "labels.txt"
        asset.write_text("".join(f"{label}\n" for label in labels))
        servable = _Servable(model, labels, asset)
        saved = aside / "model"
        tf.saved_model.save(servable, str(saved), signatures=servable.endpoints)
        _compare(model, saved)
        _flush(saved)
        return _publish(saved, output)


class _Servable(tf.Module):
    """The functions that a server runs. They share the model's variables, so each is saved once."""

    def __init__(self, model: keras.Model, labels: Sequence[str], asset: Path) -> None:
        super().__init__()
        height, width, channels = model.input_shape[1:]
        if height is None or height != width:
            raise UsageError(
                "The exported model rescales images to a square",
                expected="a model built for one image size, height equal to width",
                received=f"{height} x {width}",
            )
        self._weights = [variable.value for variable in model.weights]
        self._labels_file = tf.saved_model.Asset(str(asset))
        names = tf.constant(list(labels))
        top = min(TOP, len(labels))

        def probabilities(images):
            # First of all: an image of another rank would abort the whole server process.
            images = tf.ensure_shape(images, (None, height, width, channels))
            return model(images, training=False)

        def pixels(image_bytes):
            image_bytes = tf.ensure_shape(image_bytes, (None,))
            return tf.map_fn(
                lambda data: fit(decode(data), height),
                image_bytes,
                fn_output_signature=tf.TensorSpec((height, width, channels), tf.float32),
            )

        def classify(image_bytes):
            scores, index = tf.math.top_k(probabilities(pixels(image_bytes)), top)
            return {"labels": tf.gather(names, index), "scores": scores}

        floats = tf.TensorSpec((None, height, width, channels), tf.float32, name="images")
        encoded = tf.TensorSpec((None,), tf.string, name="image_bytes")
        functions = {
            "serving_default": (lambda images: {"probabilities": probabilities(images)}, floats),
            "serving_bytes": (
                lambda image_bytes: {"probabilities": probabilities(pixels(image_bytes))},
                encoded,
            ),
            "classify_bytes": (classify, encoded),
        }
        self.endpoints = {
            name: tf.function(function, input_signature=[spec])
            for name, (function, spec) in functions.items()
        }


def _compare(model: keras.Model, saved: Path) -> None:
    """Loads the export and asks it and the model about the same images, as floats and as bytes."""
    side = model.input_shape[1]
    noise = np.random.default_rng(0).integers(0, 256, (CHECKED_IMAGES, side, side, 3), np.uint8)
    expected = keras.ops.convert_to_numpy(model(noise.astype(np.float32), training=False))
    signatures = tf.saved_model.load(str(saved)).signatures
    encoded = tf.stack([tf.io.encode_png(image) for image in noise])
    answers = {
        "serving_default": signatures["serving_default"](images=tf.cast(noise, tf.float32)),
        "serving_bytes": signatures["serving_bytes"](image_bytes=encoded),
    }
    for name, answer in answers.items():
        difference = float(np.abs(answer["probabilities"].numpy() - expected).max())
        # Written so that a NaN fails too.
        if not difference <= TOLERANCE:
            raise RunError(
                f"The exported signature {name} answers otherwise than the model",
                expected=f"probabilities within {TOLERANCE:g}",
                received=f"a difference of {difference:g}",
            )


@contextmanager
def _folder_aside(output: Path) -> Iterator[Path]:
    # Servers look only at folders whose name is an integer.
    aside = output / f".writing-{os.getpid()}"
    aside.mkdir()
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _flush(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())


def _publish(saved: Path, output: Path) -> Path:
    """Renames the finished folder to the next free version."""
    while True:
        version = 1 + max((int(p.name) for p in output.iterdir() if p.name.isdecimal()), default=0)
        target = output / str(version)
        try:
            return saved.rename(target)
        except OSError:
            # Another export was first with this number: the next one is free.
            if not target.exists():
                raise
