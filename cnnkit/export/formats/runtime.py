"""What a format offers: a function that writes a network, and one that runs it elsewhere."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import keras
import numpy as np

from cnnkit._export_formats import FORMATS

# From images, (n, h, w, 3) float32 RGB in 0..255, to outputs by name.
Run = Callable[[np.ndarray], dict[str, np.ndarray]]


class Runtime(Protocol):
    """A module of `cnnkit.export.formats` with the functions of one format."""

    def write(
        self,
        model: keras.Model,
        folder: Path,
        quantize: str | None,
        calibration: np.ndarray | None,
    ) -> None:
        """Writes a network into a folder."""

    def load(self, folder: Path, outputs: Sequence[str]) -> Run:
        """Returns the function that runs the network of a folder."""


def runtime_version(format: str) -> str:
    """Returns the runtime of a format with its version, for example "onnxruntime 1.32.0"."""
    package = FORMATS[format].runtime
    return f"{package} {importlib.metadata.version(package)}"
