"""What a format offers: a function that writes a network, and one that runs it elsewhere."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from cnnkit._export_formats import FORMATS

# From images, (n, h, w, 3) float32 RGB in 0..255, to outputs by name.
Run = Callable[[np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Runtime:
    """The functions of one format.

    Attributes:
        write: Writes a model from `images` to outputs by name into a folder; takes the quantization
            and (n, h, w, 3) uint8 photographs that set its ranges, or None.
        runner: Returns the function that runs the network of a folder; takes names of outputs.
    """

    write: Callable[[keras.Model, Path, str | None, np.ndarray | None], None]
    runner: Callable[[Path, Sequence[str]], Run]


def runtime_version(format: str) -> str:
    """Returns the runtime of a format with its version, for example "onnxruntime 1.32.0"."""
    package = FORMATS[format].runtime
    return f"{package} {importlib.metadata.version(package)}"
