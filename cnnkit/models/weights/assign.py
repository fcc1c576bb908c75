"""Copying the weights of a file into a network, with little memory.

TensorFlow copies a NumPy array when it becomes a tensor, which for VGG-16's largest kernel is
another 411 MB. Through DLPack the tensor uses the memory of the array, if the array begins at an
address that TensorFlow's kernels accept; any other address would abort the process.

Kernels that a file is going to fill are built as zeros: random numbers for VGG-16 cost seconds and
more than twice its memory.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from cnnkit._untrusted.damage import damage_as_error
from cnnkit.errors import UsageError
from cnnkit.layers import ClassProbabilities, SubtractMean
from cnnkit.models.class_names import set_class_names
from cnnkit.models.preprocessing import warn_if_assumed
from cnnkit.models.weights.match import check_normalization_match, match_layers
from cnnkit.models.weights.weights_file import (
    OIHW,
    StoredLayer,
    StoredTensor,
    WeightsFile,
)

HOW_TO_STATE = "`preprocessing` says otherwise."
# TensorFlow's kernels require this alignment, in bytes.
ALIGNMENT = 64


def assign_weights(model: keras.Model, file: WeightsFile) -> None:
    """Assign the weights, the preprocessing and the class names of a file to a network.

    Kernels are transposed to Keras's axes, the inputs of the first dense layer are reordered to
    (height, width, channels), and the first kernel is reordered to RGB. A network without its
    dense layers takes the convolutions of a file that has them. Hardly more than one copy of the
    largest kernel is in memory besides the network. A warning tells when a convention, not the file
    or an argument, decides about the preprocessing.

    Args:
        model: A network of `cnnkit.models`, or any network of the same layers.
        file: Result of `open_weights`.

    Raises:
        UsageError: If the file has other layers, a tensor has another shape or numbers that are
            not finite, or the file is damaged. The message names the first such tensor; the
            tensors before it have been assigned already.
    """
    pairs = match_layers(model, file)
    check_normalization_match(model, file)
    warn_if_assumed(file.preprocessing, file.path, HOW_TO_STATE)
    for layer, stored in pairs:
        with damage_as_error(file.path, UsageError):
            kernel = _read_kernel(model, layer, stored, file)
            bias = None if stored.bias is None else _read_bias(layer, stored.bias)
        if layer is pairs[0][0] and file.channels == "BGR":
            kernel[...] = kernel[:, :, ::-1].copy()
        layer.kernel.assign(as_tensor_without_copy(_check_finite(kernel, stored.kernel)))
        if bias is not None and stored.bias is not None:
            layer.bias.assign(as_tensor_without_copy(_check_finite(bias, stored.bias)))
    _assign_metadata(model, file)


def _read_kernel(
    model: keras.Model, layer: keras.layers.Layer, stored: StoredLayer, file: WeightsFile
) -> np.ndarray:
    """Read a kernel block by block into an array with Keras's axes."""
    shape = tuple(layer.kernel.shape)
    kernel = aligned_zeros(shape)
    stored_shape = stored.kernel.shape
    if file.kernel_layout != OIHW:
        for part, block in stored.kernel.blocks():
            kernel.reshape(stored_shape)[part] = block
        return kernel
    if len(shape) == 2 and len(stored_shape) == 2:
        # A dense layer over a map that was flattened with its channels first.
        stored_shape = (stored_shape[0], *_flattened_shape(model, layer, stored_shape[1]))
    for part, block in stored.kernel.blocks():
        block = block.reshape(-1, *stored_shape[1:])
        block = block.transpose(2, 3, 1, 0) if block.ndim == 4 else block.T
        kernel[..., part] = block.reshape(*shape[:-1], -1)
    return kernel


def _flattened_shape(model: keras.Model, layer: keras.layers.Layer, inputs: int) -> tuple[int, ...]:
    """Return (channels, height, width) of the map that a dense layer takes, or (inputs,)."""
    for candidate in model.layers:
        if isinstance(candidate, keras.layers.Flatten):
            first = next(x for x in model.layers if isinstance(x, keras.layers.Dense))
            _, height, width, channels = candidate.input.shape
            if layer is first and inputs == height * width * channels:
                return (channels, height, width)
    return (inputs,)


def _read_bias(layer: keras.layers.Layer, stored: StoredTensor) -> np.ndarray:
    bias = aligned_zeros(tuple(layer.bias.shape))
    bias[...] = stored.array()
    return bias


def _check_finite(values: np.ndarray, stored: StoredTensor) -> np.ndarray:
    # Row by row, because a mask of the whole array would take a quarter of its memory.
    if not all(np.isfinite(row).all() for row in values):
        raise UsageError(
            f"{stored} has numbers that are not finite",
            expected="trained weights",
            # Some files of features alone have placeholders for the dense layers.
            hint="`include_top=False` takes the convolutions alone" if values.ndim < 3 else None,
        )
    return values


def _assign_metadata(model: keras.Model, file: WeightsFile) -> None:
    for layer in model.layers:
        if isinstance(layer, SubtractMean):
            found = file.preprocessing.for_size(*model.input_shape[1:3])
            layer.set_statistics(found.mean, found.std)
    if isinstance(model.layers[-1], ClassProbabilities) and file.class_names is not None:
        set_class_names(model, file.class_names)


def aligned_zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Return float32 zeros for `as_tensor_without_copy`.

    The operating system reserves memory only for the pages that are written to.
    """
    size = 4 * int(np.prod(shape))
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)


def as_tensor_without_copy(array: np.ndarray) -> Any:
    """Return a tensor in the memory of an array of `aligned_zeros`; never write to that again."""
    if keras.backend.backend() != "tensorflow":
        return array
    import tensorflow as tf

    # Experimental API of TensorFlow 2.21. `tf.constant` would copy.
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


class DeferredWeights(keras.initializers.Initializer):
    """Initializer of zeros in place of another one, which `restore_initializers` puts back.

    Args:
        original: The initializer that the layer will have in its configuration.
    """

    def __init__(self, original: Any) -> None:
        self.original = keras.initializers.get(original)

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> Any:
        """Return zeros."""
        if keras.backend.standardize_dtype(dtype or keras.config.floatx()) != "float32":
            return keras.ops.zeros(shape, dtype)
        return keras.ops.convert_to_tensor(as_tensor_without_copy(aligned_zeros(tuple(shape))))


def defer_initializers(options: dict[str, Any]) -> dict[str, Any]:
    """Return the initializer arguments of a layer with zeros for its kernel."""
    return {
        **options,
        "kernel_initializer": DeferredWeights(options.get("kernel_initializer", "glorot_uniform")),
    }


def restore_initializers(model: keras.Model) -> None:
    """Replace each `DeferredWeights` of a network by the original initializer."""
    for layer in model.layers:
        initializer = getattr(layer, "kernel_initializer", None)
        if isinstance(initializer, DeferredWeights):
            layer.kernel_initializer = initializer.original
