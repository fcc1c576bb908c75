"""What a weights file is, told by its content and not by its name."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnnkit.errors import UsageError, unknown_name
from cnnkit.models.preprocessing import Preprocessing
from cnnkit.models.weights.read_keras import CONFIG, read_hdf5, read_keras
from cnnkit.models.weights.read_numpy import read_npy, read_npz
from cnnkit.models.weights.read_pytorch import read_safetensors, read_torch
from cnnkit.models.weights.weights_file import CHANNELS, WeightsFile, reading_file

KINDS = (
    "Keras (.keras, .weights.h5, .h5), .safetensors, PyTorch (.pth), .caffemodel, or arrays by "
    "name (.npz, .npy)"
)
HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
NPY = b"\x93NUMPY"
# How a pickle of PyTorch's older format begins: a protocol, and the number 0x1950a86a20f9469cfc6c.
OLD_TORCH = bytes.fromhex("6cfc9c46f9206aa85019")
PICKLE = b"\x80"
HEAD_BYTES = 64


def open_weights(
    path: str | Path,
    *,
    channels: str | None = None,
    mean: Sequence[float] | np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
) -> WeightsFile:
    """Recognizes a weights file by its content; no weight is read yet, and no code in it runs.

    Args:
        path: The file, or a run folder.
        channels: `"RGB"` or `"BGR"`, the colors that its first kernel takes, where the file does
            not tell or tells wrong.
        mean: What its network subtracts, (3,) or (h, w, 3) RGB in 0..255, in place of what is
            usual for such files.
        class_names: Names of the classes.

    Returns:
        The file, for the `weights` argument of every builder.

    Raises:
        UsageError: If there is no such file, it is of no known kind, or it is not whole.

    Example:
        >>> from cnnkit.models import open_weights
        >>> open_weights("vgg16-397923af.pth").kind  # doctest: +SKIP
        'PyTorch weights (.pth)'
    """
    if channels is not None and channels not in CHANNELS:
        raise unknown_name("order of colors", channels, CHANNELS)
    path = Path(path)
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"No weights file {path}", expected=f"a file of {KINDS}")
    with reading_file(file):
        found = _read(file)
    changes: dict = {}
    if channels is not None:
        changes["channels"] = channels
    if mean is not None:
        std = found.preprocessing.std if found.preprocessing else None
        changes["preprocessing"] = Preprocessing(mean, std)
    if class_names is not None:
        changes["class_names"] = tuple(class_names)
    return dataclasses.replace(found, **changes)


def _read(file: Path) -> WeightsFile:
    with file.open("rb") as handle:
        head = handle.read(HEAD_BYTES)
    if head.startswith(HDF5):
        return read_hdf5(file)
    if head.startswith(ZIP):
        return _read_zip(file)
    if head.startswith(NPY):
        return read_npy(file)
    if head[8:9] == b"{":
        return read_safetensors(file)
    if head.startswith(PICKLE):
        if OLD_TORCH in head:
            return read_torch(file, mapped=False)
        raise UsageError(
            f"{file} is a Python pickle, which can run code when it is opened",
            expected=KINDS,
            hint="Save its arrays with numpy.savez where you trust it",
        )
    # Here, because the networks also run where protobuf is not installed.
    from cnnkit.models.weights.read_caffe import read_caffemodel

    try:
        return read_caffemodel(file)
    except UsageError as error:
        # Nothing marks a Caffe file; what does not decode as one may be anything.
        if error.received is None or not str(error.received).startswith("bytes"):
            raise
        raise UsageError(
            f"{file} is no weights file of a known kind, or not all of one", expected=KINDS
        ) from error


def _read_zip(file: Path) -> WeightsFile:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    if CONFIG in names:
        return read_keras(file)
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return read_torch(file, mapped=True)
    if names and all(name.endswith(".npy") for name in names):
        return read_npz(file)
    raise UsageError(
        f"{file} is a zip archive of no known kind", expected=KINDS, received=", ".join(names[:5])
    )
