"""Export a network for a runtime other than TensorFlow, and let that runtime verify it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from cnnkit._export_formats import CARD, FORMATS, INT8_STATIC, check_format, check_free_folder
from cnnkit._progress import Progress, no_progress
from cnnkit._staging import flush_files, staged_folder
from cnnkit._untrusted.damage import shorten
from cnnkit.data import Augmentation, Decoding
from cnnkit.errors import CnnkitError, RunError
from cnnkit.export.classifier import (
    ServedClassifier,
    center_crop,
    check_label_count,
    in_float32,
    prepare_classifier,
)
from cnnkit.export.formats.card import card_text
from cnnkit.export.formats.litert import litert_runner, write_litert
from cnnkit.export.formats.onnx import onnx_runner, write_onnx
from cnnkit.export.formats.openvino import openvino_runner, write_openvino
from cnnkit.export.formats.photographs import COMPARED, own_photographs, read_photographs
from cnnkit.export.formats.runtime import Run, Runtime, runtime_version
from cnnkit.export.image_header import ImageLimits
from cnnkit.export.model_card import Origin, describe_preprocessing, write_assets

# Largest difference of an output in float32.
MAX_DIFFERENCE = 1e-4
# Smallest ratio of the weights in float32 to the files in int8; graphs and names come on top.
MIN_RATIO = 3.8
GRAPH_BYTES = 128 << 10
# int8 may change the class of a photograph where the first two are this close, and of few others.
CLEAR_MARGIN, MAX_CHANGED = 0.2, 0.02
# Photographs that show the ranges of activations, at most.
MAX_CALIBRATION = 100
# Larger images on which a network of images of every size is compared, relative to its own size.
LARGER = 1.25
BATCH_SIZE = 16

RUNTIMES = {
    "onnx": Runtime(write_onnx, onnx_runner),
    "litert": Runtime(write_litert, litert_runner),
    "openvino": Runtime(write_openvino, openvino_runner),
}
Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class RuntimeExport:
    """What was written, and what its runtime answers.

    Attributes:
        folder: The new folder.
        file: The file to load in it.
        runtime: The runtime that was asked, with its version.
        quantize: `"int8"`, `"int8-static"` or None.
        file_bytes: Bytes of the network's files.
        difference: Largest difference of an output from the network in memory.
        compared: Number of photographs for `difference`.
        agreeing: Number of photographs on which both find the same class, out of `photographs`.
        photographs: Number of photographs for `agreeing`.
    """

    folder: Path
    file: Path
    runtime: str
    quantize: str | None
    file_bytes: int
    difference: float
    compared: int
    agreeing: int
    photographs: int


def export_for_runtime(
    model: keras.Model,
    labels: Sequence[str],
    output: str | Path,
    format: str,
    *,
    quantize: str | None = None,
    photos: str | Path | None = None,
    fully_convolutional: bool = False,
    augmentation: Augmentation | None = None,
    decoding: Decoding | None = None,
    origin: Origin | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> RuntimeExport:
    """Writes a network for ONNX Runtime, LiteRT or OpenVINO into a folder, with labels and a card.

    The network takes `images`, (n, h, w, 3) float32 RGB in 0..255 of any number, and subtracts the
    mean itself. It returns `probabilities`, (n, classes); with `fully_convolutional` also the
    `probability_map`; a localizer also `boxes`: x and y of the center, width and height as
    fractions of the side. The runtime itself, not TensorFlow, loads the files and is compared with
    the network in memory on eight photographs. Where an output differs by more than 1e-4, nothing
    is left behind. In int8 the class must stay the same instead, except where it is close.

    | format     | files                    | needs                          | for int8 |
    |------------|--------------------------|--------------------------------|----------|
    | `onnx`     | `model.onnx`             | onnx, onnxruntime and tf2onnx  |          |
    | `litert`   | `model.tflite`           | ai-edge-litert                 |          |
    | `openvino` | `model.xml`, `model.bin` | openvino                       | nncf     |

    Args:
        model: A classifier of square images of a fixed size.
        labels: Names of the classes; stored as `labels.txt`.
        output: The folder to write.
        format: One of the formats above.
        quantize: `"int8"` stores the weights in 8 bits, `"int8-static"` computes in 8 bits too,
            with ranges found on `photos`. None for float32.
        photos: Folder of photographs. An export is compared on eight of them, and in int8 the
            classes of all are counted, at most 500. None for eight windows of scikit-learn's two.
        fully_convolutional: As in `cnnkit.export.export`.
        augmentation: As in `cnnkit.export.export`.
        decoding: As in `cnnkit.export.export`.
        origin: As in `cnnkit.export.export`.
        overwrite: Whether to replace an earlier export in `output`.
        progress: Called with the number of photographs and the name of the work before their
            classes are compared; returns a context that yields a function of the number that are
            done. None for none.

    Returns:
        What was written and measured.

    Raises:
        UsageError: If a package is not installed, `output` is not free, the labels do not fit the
            model, or the model does not support an option.
        RunError: If the network cannot be written, or the runtime's outputs differ.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.export import export_for_runtime
        >>> model = alexnet(input_shape=(64, 64, 3), classes=2)
        >>> export_for_runtime(model, ["cat", "dog"], "/tmp/pets", "onnx").file  # doctest: +SKIP
        PosixPath('/tmp/pets/model.onnx')
    """
    output, decoding = Path(output), decoding or Decoding()
    check_format(format, output, quantize=quantize, photos=photos, overwrite=overwrite)
    check_label_count(model, labels)
    network = prepare_classifier(in_float32(model), fully_convolutional=fully_convolutional)
    augmentation = center_crop(network, augmentation)
    if photos is None:
        images = own_photographs(network.image_size)
    else:
        images = read_photographs(photos, augmentation, decoding)
    named = _with_named_outputs(network)
    # Keras exports only models that have been called.
    _expected(named, images[:1].astype(np.float32))
    calibration = _evenly(images, MAX_CALIBRATION) if quantize == INT8_STATIC else None
    spec, runtime = FORMATS[format], RUNTIMES[format]
    with staged_folder(output, replace=overwrite) as staging:
        preprocessing = describe_preprocessing(network, augmentation, ImageLimits(), decoding)
        # The graph itself refuses nothing.
        del preprocessing["limits"], preprocessing["features_layer"]
        with _as_run_error(f"Model {network.model.name!r} cannot be written as {spec.title}"):
            runtime.write(named, staging, quantize, calibration)
        file_bytes = sum((staging / name).stat().st_size for name in spec.files)
        with _as_run_error(f"{runtime_version(format)} does not run {spec.files[0]}"):
            run = runtime.runner(staging, [*named.output])
            counted = images if quantize else _evenly(images, COMPARED)
            measured = _measure(named, run, images, counted, progress or no_progress)
        found = RuntimeExport(
            output,
            output / spec.files[0],
            runtime_version(format),
            quantize,
            file_bytes,
            measured.difference,
            min(COMPARED, len(images)),
            measured.agreeing,
            measured.photographs,
        )
        _check(found, measured, network)
        write_assets(staging, labels, preprocessing)
        text = card_text(output.name, format, found, network, labels, preprocessing, origin)
        (staging / CARD).write_text(text, encoding="utf-8")
        del run
        flush_files(staging)
        # Another process may have written there in the meantime.
        check_free_folder(output, overwrite=overwrite)
    return found


@contextmanager
def _as_run_error(what: str) -> Iterator[None]:
    """Turns the errors of exporters and runtimes, which have no common base, into one of one line.

    Raises:
        RunError: If the block fails, except by an error of the disk or of cnnkit.
    """
    try:
        yield
    except (CnnkitError, OSError, MemoryError):
        raise
    except Exception as error:
        raise RunError(what, received=f"{type(error).__name__}: {shorten(error)}") from error


def _with_named_outputs(network: ServedClassifier) -> keras.Model:
    """Returns the model from `images` to outputs by name, which all formats keep."""
    model = network.model
    images = keras.Input(model.input_shape[1:], dtype="float32", name="images")
    scores = model(images)
    outputs = {"probabilities": scores}
    if network.variable_size:
        outputs = {"probabilities": ops.mean(scores, axis=(1, 2)), "probability_map": scores}
    if network.boxes is not None:
        outputs["boxes"] = network.boxes(images)
    return keras.Model(images, outputs, name=model.name)


def _evenly(images: np.ndarray, count: int) -> np.ndarray:
    """Returns images evenly spread over an array, at most `count`."""
    if len(images) <= count:
        return images
    return images[np.arange(count) * len(images) // count]


@dataclass(frozen=True)
class _Measured:
    """Differences of a runtime's outputs.

    Attributes:
        difference: The largest, of all outputs.
        agreeing: Number of photographs of the same class.
        clearly_changed: Number of those of another class that is not close.
        photographs: Number of photographs whose class was compared.
    """

    difference: float
    agreeing: int
    clearly_changed: int
    photographs: int


def _measure(
    model: keras.Model, run: Run, images: np.ndarray, counted: np.ndarray, progress: Progress
) -> _Measured:
    """Compares a runtime's outputs with a model's.

    Args:
        model: The model in memory.
        run: The runtime's function.
        images: (n, side, side, 3) uint8; `COMPARED` of them are compared.
        counted: (m, side, side, 3) uint8; the classes of all are compared.
        progress: Called with m.
    """
    compared = _evenly(images, COMPARED).astype(np.float32)
    # One image alone too: the number of images must be free.
    batches = [compared, compared[:1]]
    if model.input_shape[1] is None:
        batches.append(own_photographs(round(LARGER * images.shape[1])).astype(np.float32)[:2])
    differences = [_difference(_expected(model, batch), run(batch)) for batch in batches]
    expected, found = [], []
    with progress(len(counted), "comparing photographs") as advance:
        for start in range(0, len(counted), BATCH_SIZE):
            batch = counted[start : start + BATCH_SIZE].astype(np.float32)
            expected.append(_expected(model, batch)["probabilities"])
            found.append(run(batch)["probabilities"])
            advance(len(batch))
    scores, classes = np.concatenate(expected), np.concatenate(found).argmax(axis=1)
    same = scores.argmax(axis=1) == classes
    ordered = np.sort(scores, axis=1)
    lead = ordered[:, -1] - ordered[:, -2] if scores.shape[1] > 1 else np.zeros(len(scores))
    clearly_changed = int((~same & (lead >= CLEAR_MARGIN)).sum())
    # np.max propagates NaN; Python's max does not.
    return _Measured(float(np.max(differences)), int(same.sum()), clearly_changed, len(counted))


def _expected(model: keras.Model, images: np.ndarray) -> Outputs:
    # On the CPU, as the runtimes are asked: GPUs multiply with fewer digits.
    with tf.device("CPU:0"):
        return {name: array.numpy() for name, array in model(images, training=False).items()}


def _difference(expected: Outputs, found: Outputs) -> float:
    differences = [
        np.abs(found[name] - values).max() if found[name].shape == values.shape else np.inf
        for name, values in expected.items()
    ]
    return float(np.max(differences))


def _check(found: RuntimeExport, measured: _Measured, network: ServedClassifier) -> None:
    """Refuses an export whose runtime answers differently, or that int8 has not made smaller.

    Raises:
        RunError: If it does.
    """
    title = f"The outputs of {found.file.name} differ from those of the network"
    if found.quantize is None:
        if not found.difference <= MAX_DIFFERENCE:
            raise RunError(
                title,
                expected=f"a difference up to {MAX_DIFFERENCE:.0e}",
                received=f"{found.difference:.1e} by {found.runtime}",
            )
        return
    if not np.isfinite(found.difference) or (
        measured.clearly_changed > MAX_CHANGED * measured.photographs
    ):
        raise RunError(
            title,
            expected=f"the same class on {100 - 100 * MAX_CHANGED:.0f} % of the photographs, "
            "where it is clear",
            received=f"another class on {measured.clearly_changed} of {measured.photographs} "
            f"by {found.runtime}",
            hint="`quantize=int8` loses least; without it the weights stay float32",
        )
    most = round(network.weight_bytes / MIN_RATIO) + GRAPH_BYTES
    if found.file_bytes > most:
        raise RunError(
            f"{found.file.name} in int8 is larger than 1/{MIN_RATIO} of the weights",
            expected=f"{most:,} bytes",
            received=f"{found.file_bytes:,}",
        )
