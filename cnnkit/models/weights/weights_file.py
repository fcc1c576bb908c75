"""A weights file of any format: its layers, preprocessing and class names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cnnkit._untrusted.damage import shorten
from cnnkit.errors import UsageError
from cnnkit.models.preprocessing import UNKNOWN, Preprocessing

# VGG-16's largest kernel is 411 MB. Read in blocks, hardly more than one copy of it is in memory.
BLOCK_BYTES = 64 << 20

# Axes of the kernels in the file: those of Keras, or those of Caffe and PyTorch.
HWIO, OIHW = "HWIO", "OIHW"


@dataclass(frozen=True)
class StoredTensor:
    """An array in a file that has not been read yet.

    Attributes:
        name: Its name in the file.
        shape: Its shape in the file.
        read: Function from a slice of the first axis to that part of the array.
        read_whole: Whether a part costs as much to read as the whole array, which is then read
            once.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[slice], np.ndarray]
    read_whole: bool = False

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield the array in blocks along its first axis, each with its slice."""
        array = self.read(slice(None)) if self.read_whole else None
        row_bytes = 4 * math.prod(self.shape[1:])
        rows = max(1, BLOCK_BYTES // max(1, row_bytes))
        for start in range(0, self.shape[0], rows):
            part = slice(start, min(start + rows, self.shape[0]))
            yield part, np.asarray(self.read(part) if array is None else array[part])

    def array(self, max_bytes: int | None = None) -> np.ndarray:
        """Read the whole array.

        Args:
            max_bytes: Largest number of bytes, at eight for a number; None for an array whose
                shape has been compared with that of a network.

        Raises:
            UsageError: If it is larger.
        """
        if max_bytes is not None and 8 * math.prod(self.shape) > max_bytes:
            raise UsageError(
                f"{self.name} is too large",
                expected=f"at most {max_bytes // 8:,} numbers",
                received=shorten(str(self.shape)),
            )
        return np.asarray(self.read(slice(None)))

    def __str__(self) -> str:
        return f"{self.name} {self.shape}"


@dataclass(frozen=True)
class StoredLayer:
    """The weights of a layer: its name in the file, its kernel, and its bias if it has one."""

    name: str
    kernel: StoredTensor
    bias: StoredTensor | None

    @property
    def tensors(self) -> tuple[StoredTensor, ...]:
        """The kernel, and the bias if there is one."""
        return (self.kernel,) if self.bias is None else (self.kernel, self.bias)


@dataclass(frozen=True)
class LRNParameters:
    """Parameters of a local response normalization, as a file declares them.

    Attributes:
        size: Side of the window.
        alpha: Factor of the sum of squares over the window.
        beta: Exponent.
        k: Constant.
        within_channel: Whether the window lies within a channel rather than across channels.
    """

    size: int
    alpha: float
    beta: float
    k: float
    within_channel: bool


@dataclass(frozen=True)
class WeightsFile:
    """A weights file: its format, and its layers in the order of the network.

    Attributes:
        path: The file.
        format: Description of the format.
        layers: The layers.
        kernel_layout: Axes of the kernels, `"HWIO"` or `"OIHW"`.
        preprocessing: Preprocessing before the first kernel, and where it comes from.
        match_by_name: Whether the layers have standard names. Otherwise they are matched in order.
        class_names: Names of the classes, or None.
        normalizations: Parameters of the normalizations, by name; empty if the file does not
            declare them, None if its network is known to have none.
        norms_after_pooling: Names of the normalizations that follow their pooling; None if the
            file does not declare the order.
        metadata: Further information to display.
    """

    path: Path
    format: str
    layers: tuple[StoredLayer, ...]
    kernel_layout: str
    preprocessing: Preprocessing = Preprocessing(origin=UNKNOWN)
    match_by_name: bool = True
    class_names: tuple[str, ...] | None = None
    normalizations: Mapping[str, LRNParameters] | None = field(default_factory=dict)
    norms_after_pooling: frozenset[str] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def channels(self) -> str:
        """Order of the colors that the first kernel expects, `"RGB"` or `"BGR"`."""
        return self.preprocessing.channels

    def is_dense(self, layer: StoredLayer) -> bool:
        """Return True if `layer` is a dense layer."""
        # timm stores the dense layers as convolutions over the last map.
        return len(layer.kernel.shape) == 2 or layer.name.startswith(("pre_logits", "head"))

    @property
    def classes(self) -> int | None:
        """Number of classes, or None for a file without dense layers."""
        dense = [layer for layer in self.layers if self.is_dense(layer)]
        return dense[-1].kernel.shape[0 if self.kernel_layout == OIHW else -1] if dense else None

    @property
    def parameter_count(self) -> int:
        """Number of weights and biases."""
        return sum(math.prod(t.shape) for layer in self.layers for t in layer.tensors)
