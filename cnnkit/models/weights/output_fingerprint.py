"""Fingerprint of a network's output for one fixed image, stored with its weights.

Weights can fit by shape and still be wrong for a network: a missing ReLU, other constants of a
normalization, another order of the colors. The output reveals it.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cnnkit._untrusted.json_documents import JsonFields, parse_json
from cnnkit._untrusted.limits import MAX_FINGERPRINT_NUMBERS, MAX_JSON_BYTES
from cnnkit._untrusted.zip_archives import open_zip, read_member
from cnnkit.errors import RunError
from cnnkit.layers import SubtractMean
from cnnkit.models.logits import logits_tensor
from cnnkit.models.weights.model_size import largest_output

MEMBER = "fingerprint.json"
# Side of the fixed image for a network whose input may have any size.
FREE_SIZE = 224
# Float32 on another machine or backend differs by a few units in the sixth digit.
TOLERANCE = 1e-3


def fingerprint_image(height: int, width: int) -> np.ndarray:
    """Return the fixed image, (h, w, 3) float32 RGB in 0..255: waves of one length per color."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [
        np.sin(rows / (5 + 4 * c)) * np.cos(columns / (7 + 3 * c)) + np.sin((rows + columns) / 29)
        for c in range(3)
    ]
    # Rounded to whole levels, so that the last digit of a sine does not matter.
    return np.round(127.5 + 63.75 * np.stack(waves, axis=-1)).astype(np.float32)


def output_fingerprint(model: keras.Model) -> dict[str, Any]:
    """Compute the fingerprint of a model.

    Returns:
        {`image`: height and width of the fixed image; `centred`: whether the model subtracts a
        mean itself; `values`: the logits, or the mean of each feature of a model without a head}.
    """
    height, width = (side or FREE_SIZE for side in model.input_shape[1:3])
    network = keras.Model(model.input, logits_tensor(model))
    output = keras.ops.convert_to_numpy(
        keras.ops.cast(network(fingerprint_image(height, width)[None], training=False), "float32")
    )
    values = output.reshape(-1, output.shape[-1]).mean(axis=0)
    return {
        "image": [height, width],
        # The spelling is that of the files that exist.
        "centred": _is_centered(model),
        "values": [float(f"{v:.8g}") for v in values],
    }


def _is_centered(model: keras.Model) -> bool:
    return any(isinstance(layer, SubtractMean) for layer in model.layers)


def write_fingerprint(model: keras.Model, archive: zipfile.ZipFile) -> None:
    """Add the fingerprint of `model` to the open `.keras` file that the model was saved to."""
    archive.writestr(MEMBER, json.dumps(output_fingerprint(model)))


def check_fingerprint(model: keras.Model, file: Path) -> None:
    """Compare the output of `model`, which was loaded from `file`, with the stored fingerprint.

    Nothing is compared if the file has no fingerprint, or if the model differs in precision, input
    size, preprocessing or number of outputs.

    Raises:
        RunError: If the outputs differ.
        DataError: If the fingerprint is damaged.
    """
    half = any(layer.compute_dtype != "float32" for layer in model.layers if layer.weights)
    if half or not zipfile.is_zipfile(file):
        return
    with open_zip(file) as archive:
        if MEMBER not in archive.namelist():
            return
        origin = f"{MEMBER} in {file}"
        document = parse_json(read_member(archive, MEMBER, max_bytes=MAX_JSON_BYTES), origin)
    stored = JsonFields(document, origin)
    values = stored.items("values")
    sides = tuple(side or FREE_SIZE for side in model.input_shape[1:3])
    same = stored.integers("image") == sides and stored.boolean("centred") == _is_centered(model)
    if not same:
        return
    if largest_output(model, sides) > MAX_FINGERPRINT_NUMBERS:
        return
    if not all(type(value) in (int, float) for value in values):
        raise stored.wrong("values", "a list of numbers")
    expected = np.array(values, float)
    computed = output_fingerprint(model)
    if len(computed["values"]) != len(expected):
        return
    difference = np.abs(np.array(computed["values"]) - expected).max()
    if not difference <= TOLERANCE * np.abs(expected).max():
        raise RunError(
            f"The output of {model.name} with the weights of {file} is not the output at"
            " conversion",
            expected=f"the stored output to within {TOLERANCE * np.abs(expected).max():.3g}",
            received=f"a difference of {difference:.3g}",
            hint="Another version of the network made the file; convert the original again",
        )
