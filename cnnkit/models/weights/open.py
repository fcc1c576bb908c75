"""Opening weights files: the format is recognized by the content, not by the name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit._model_config import CONFIG
from cnnkit._untrusted.damage import damage_as_error, shorten
from cnnkit._untrusted.regular_files import open_regular_file
from cnnkit._untrusted.zip_archives import open_zip
from cnnkit.errors import UsageError
from cnnkit.models.preprocessing import (
    Preprocessing,
    contradiction,
    override_preprocessing,
)
from cnnkit.models.weights.read_keras import read_keras
from cnnkit.models.weights.read_numpy import read_npy, read_npz
from cnnkit.models.weights.read_pytorch import read_safetensors, read_state_dict
from cnnkit.models.weights.weights_file import WeightsFile

FORMATS = (
    "Keras (.keras, .weights.h5, .h5), .safetensors, PyTorch (.pth), .caffemodel, or arrays by "
    "name (.npz, .npy)"
)
HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
NPY = b"\x93NUMPY"
# First bytes of a pickle of PyTorch's older format: a protocol, and 0x1950a86a20f9469cfc6c.
OLD_TORCH = bytes.fromhex("6cfc9c46f9206aa85019")
PICKLE = b"\x80"
HEAD_BYTES = 64


def open_weights(
    path: str | Path,
    *,
    channels: str | None = None,
    mean: Sequence[float] | np.ndarray | None = None,
    std: Sequence[float] | float | None = None,
    scale: float | None = None,
    preprocessing: str | Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
) -> WeightsFile:
    """Open a weights file, whose format is recognized by its content.

    No weights are read yet, and no code in the file is run. What a file does not say about its
    preprocessing is taken from the custom of its format; `preprocessing.describe()` of the result
    tells which. The arguments say otherwise.

    Args:
        path: The file, or a run folder.
        channels: Order of the colors that the first kernel expects, `"RGB"` or `"BGR"`; None takes
            it from the file, or the usual order for its format.
        mean: Mean that the network subtracts, (3,) or (h, w, 3) RGB in 0..255; None takes it from
            the file, or the usual mean for its format.
        std: Standard deviation that the difference is divided by, (3,) RGB or one number for all,
            in 0..255; 1 for no division.
        scale: Factor of the difference, as in Caffe's `transform_param`; 1 / `std`.
        preprocessing: All of these by a name of keras.applications' `preprocess_input`: `"caffe"`
            (BGR minus VGG's mean), `"torch"` (mean and deviation of torchvision), `"tf"` (-1..1),
            `"unit"` (0..1) or `"raw"` (0..255); or a `Preprocessing`.
        class_names: Names of the classes; None takes them from the file.

    Returns:
        The file, for the `weights` argument of every builder.

    Raises:
        UsageError: If there is no such file, its format is unknown, it is damaged, an argument is
            out of range, or `preprocessing` contradicts what the file says.

    Example:
        >>> from cnnkit.models import open_weights
        >>> open_weights("vgg16-397923af.pth").format  # doctest: +SKIP
        'PyTorch weights (.pth)'
    """
    given: dict[str, Any] = {"channels": channels, "mean": mean, "std": std, "scale": scale}
    # Checked before the file is read.
    override_preprocessing(Preprocessing(), preprocessing, **given)
    path = Path(path)
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"No weights file {path}", expected=f"a file of {FORMATS}")
    with damage_as_error(file, UsageError):
        found = _read(file)
    changed = override_preprocessing(found.preprocessing, preprocessing, **given)
    if preprocessing is not None and found.preprocessing.contradicts(changed):
        raise contradiction(found.preprocessing, changed, file)
    changes: dict[str, Any] = {"preprocessing": changed}
    if class_names is not None:
        changes["class_names"] = tuple(class_names)
    return dataclasses.replace(found, **changes)


def _read(file: Path) -> WeightsFile:
    with open_regular_file(file) as handle:
        head = handle.read(HEAD_BYTES)
    if head.startswith(HDF5):
        return read_keras(file)
    if head.startswith(ZIP):
        return _read_zip(file)
    if head.startswith(NPY):
        return read_npy(file)
    if head[8:9] == b"{":
        return read_safetensors(file)
    if head.startswith(PICKLE):
        if OLD_TORCH in head:
            return read_state_dict(file)
        raise UsageError(
            f"{file} is a Python pickle, which can run code when it is opened",
            expected=FORMATS,
            hint="If you trust it, save its arrays with numpy.savez",
        )
    # Imported here because the networks also run without protobuf.
    from cnnkit.models.weights.read_caffe import UNDECODABLE, read_caffemodel

    try:
        return read_caffemodel(file)
    except UsageError as error:
        # A Caffe file has no signature, so a file that does not decode as one may be anything.
        if error.received != UNDECODABLE:
            raise
        raise UsageError(
            f"{file} is not a weights file of a known format, or is incomplete", expected=FORMATS
        ) from error


def _read_zip(file: Path) -> WeightsFile:
    with open_zip(file) as archive:
        names = archive.namelist()
    if CONFIG in names:
        return read_keras(file)
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return read_state_dict(file)
    if names and all(name.endswith(".npy") for name in names):
        return read_npz(file)
    raise UsageError(
        f"{file} is a zip archive of an unknown format",
        expected=FORMATS,
        received=shorten(", ".join(names[:5])),
    )
