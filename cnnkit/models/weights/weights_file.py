"""What a weights file is once it has been recognized, whatever wrote it."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cnnkit.errors import UsageError
from cnnkit.models.preprocessing import Preprocessing

# VGG-16's largest kernel is 411 MB; read in pieces, hardly more than one copy of it is in memory.
BLOCK_BYTES = 64 << 20
CHANNELS = ("RGB", "BGR")

# How kernels lie in the file: Keras's axes, or those of Caffe and PyTorch.
HWIO, OIHW = "HWIO", "OIHW"


# What the libraries that read files raise for one that is torn or was changed.
BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError)


@contextmanager
def reading_file(path: Path) -> Iterator[None]:
    """Makes one clear error of what goes wrong while a file is read.

    Raises:
        UsageError: If the file is not whole.
    """
    try:
        yield
    except UsageError:
        raise
    except BROKEN as error:
        raise UsageError(f"{path} is not whole", received=error) from error


@dataclass(frozen=True)
class StoredTensor:
    """An array that is still in its file.

    Attributes:
        name: Its name there.
        shape: Its shape there.
        read: Maps a slice of the first axis to the array's part.
        whole: Whether a part costs as much as the whole, which is then read once.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[slice], np.ndarray]
    whole: bool = False

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yields the array in pieces along its first axis, each with its place."""
        source = self.read(slice(None)) if self.whole else None
        row_bytes = 4 * int(np.prod(self.shape[1:]))
        rows = max(1, BLOCK_BYTES // max(1, row_bytes))
        for start in range(0, self.shape[0], rows):
            place = slice(start, min(start + rows, self.shape[0]))
            yield place, np.asarray(self.read(place) if source is None else source[place])

    def array(self) -> np.ndarray:
        """Returns all of it."""
        return np.asarray(self.read(slice(None)))

    def __str__(self) -> str:
        return f"{self.name} {self.shape}"


@dataclass(frozen=True)
class StoredLayer:
    """The weights of a layer: `name` in the file, its kernel and, where it has one, its bias."""

    name: str
    kernel: StoredTensor
    bias: StoredTensor | None

    @property
    def tensors(self) -> tuple[StoredTensor, ...]:
        """The kernel, and the bias where there is one."""
        return (self.kernel,) if self.bias is None else (self.kernel, self.bias)


@dataclass(frozen=True)
class LRNParameters:
    """A local response normalization as the file declares it; `alpha` is the factor of the sum."""

    size: int
    alpha: float
    beta: float
    k: float
    within: bool


@dataclass(frozen=True)
class WeightsFile:
    """A weights file: what it is, and its layers in the order of the network.

    Attributes:
        path: The file.
        kind: What it is, in words.
        layers: Its layers.
        layout: `"HWIO"` or `"OIHW"`, how its kernels lie.
        channels: Order of the colors that its first kernel takes.
        preprocessing: What comes before its first kernel, or None where the file does not tell.
        by_name: Whether its layers have the field's names; else they are taken in order.
        class_names: Names of the classes, or None.
        normalizations: Declared normalizations by name; empty where the file declares none, None
            where its network is known to have none.
        pooled_first: The normalizations that come after their pooling; None where not declared.
        facts: What else is worth telling.
    """

    path: Path
    kind: str
    layers: tuple[StoredLayer, ...]
    layout: str
    channels: str = "RGB"
    preprocessing: Preprocessing | None = None
    by_name: bool = True
    class_names: tuple[str, ...] | None = None
    normalizations: Mapping[str, LRNParameters] | None = field(default_factory=dict)
    pooled_first: frozenset[str] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    def is_dense(self, layer: StoredLayer) -> bool:
        """Tells whether a layer of the file is a dense one."""
        # timm keeps the dense layers as convolutions over the last map.
        return len(layer.kernel.shape) == 2 or layer.name.startswith(("pre_logits", "head"))

    @property
    def classes(self) -> int | None:
        """Number of classes, or None for a file without dense layers."""
        dense = [layer for layer in self.layers if self.is_dense(layer)]
        return dense[-1].kernel.shape[0 if self.layout == OIHW else -1] if dense else None

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return sum(int(np.prod(t.shape)) for layer in self.layers for t in layer.tensors)
