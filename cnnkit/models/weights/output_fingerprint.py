"""What a network answers to one fixed image, kept beside its weights.

Weights that fit by shape can still mean nothing: a lost ReLU, other constants of a normalization,
another order of the colors. The answer tells.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import keras
import numpy as np

from cnnkit.errors import RunError
from cnnkit.layers import SubtractMean
from cnnkit.models.graph import logits_tensor

MEMBER = "fingerprint.json"
FREE_SIZE = 224
# Float32 on another machine or backend differs by a few units in the sixth digit.
TOLERANCE = 1e-3


def fingerprint_image(height: int, width: int) -> np.ndarray:
    """Returns the fixed image, (h, w, 3) float32 in 0..255: waves of another length per color."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [
        np.sin(rows / (5 + 4 * c)) * np.cos(columns / (7 + 3 * c)) + np.sin((rows + columns) / 29)
        for c in range(3)
    ]
    # Whole levels, so that the last digit of a sine does not matter.
    return np.round(127.5 + 63.75 * np.stack(waves, axis=-1)).astype(np.float32)


def output_fingerprint(model: keras.Model) -> dict:
    """Returns what a model answers, and to what.

    `image` is the size of the fixed image, `centerd` whether the model subtracts a mean itself,
    `values` the logits, or the mean of each feature of a model without a head.
    """
    height, width = (side or FREE_SIZE for side in model.input_shape[1:3])
    network = keras.Model(model.input, logits_tensor(model))
    answer = keras.ops.convert_to_numpy(
        keras.ops.cast(network(fingerprint_image(height, width)[None], training=False), "float32")
    )
    values = answer.reshape(-1, answer.shape[-1]).mean(axis=0)
    centerd = any(isinstance(layer, SubtractMean) for layer in model.layers)
    return {
        "image": [height, width],
        "centred": centerd,
        "values": [float(f"{v:.8g}") for v in values],
    }


def write_fingerprint(model: keras.Model, archive: zipfile.ZipFile) -> None:
    """Adds the fingerprint of `model` to the open `.keras` file that it was saved in."""
    archive.writestr(MEMBER, json.dumps(output_fingerprint(model)))


def check_fingerprint(model: keras.Model, file: Path) -> bool:
    """Compares `model`, which was filled from `file`, with the fingerprint in it.

    Returns:
        Whether there was one that this model can be compared with.

    Raises:
        RunError: If the answers differ.
    """
    half = any(layer.compute_dtype != "float32" for layer in model.layers if layer.weights)
    if half or not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        if MEMBER not in archive.namelist():
            return False
        recorded = json.loads(archive.read(MEMBER))
    expected = np.array(recorded["values"])
    now = output_fingerprint(model)
    same = all(now[key] == recorded[key] for key in ("image", "centred"))
    if not same or len(now["values"]) != len(expected):
        return False
    difference = np.abs(np.array(now["values"]) - expected).max()
    if not difference <= TOLERANCE * np.abs(expected).max():
        raise RunError(
            f"{model.name} with the weights of {file} does not answer as it did when they were"
            " converted",
            expected=f"the recorded answers to within {TOLERANCE * np.abs(expected).max():.3g}",
            received=f"a difference of {difference:.3g}",
            hint="Another version of the network made the file; convert the original again",
        )
    return True
