"""Arrays that become a variable's own memory.

TensorFlow copies an array when it becomes a tensor, which for VGG-16's largest kernel is another
411 MB. Handed over through DLPack it is taken as it is, if it begins where TensorFlow's kernels
want it to; an array that does not would abort the process.
"""

from __future__ import annotations

import keras
import numpy as np

ALIGNMENT = 64


def aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Returns float32 zeros for `handed_over`; memory is taken only where they are written to."""
    size = 4 * int(np.prod(shape))
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)


def handed_over(array: np.ndarray):
    """Returns an array of `aligned` for a variable to keep; nobody may write to it any more."""
    if keras.backend.backend() != "tensorflow":
        return array
    import tensorflow as tf

    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
