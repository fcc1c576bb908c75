"""From a weights file into a network, tensor by tensor."""

from __future__ import annotations

import keras
import numpy as np

from cnnkit.errors import UsageError
from cnnkit.layers import ClassProbabilities, SubtractMean
from cnnkit.models.class_names import set_class_names
from cnnkit.models.weights.match import check_normalization_match, match_layers
from cnnkit.models.weights.weights_file import (
    OIHW,
    StoredLayer,
    StoredTensor,
    WeightsFile,
    reading_file,
)

ALIGNMENT = 64


def aligned_empty(shape: tuple[int, ...]) -> np.ndarray:
    """Returns float32 zeros for `as_owned_array`; memory is taken only where they are written to."""
    size = 4 * int(np.prod(shape))
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)


def as_owned_array(array: np.ndarray):
    """Returns an array of `aligned` for a variable to keep; nobody may write to it any more."""
    if keras.backend.backend() != "tensorflow":
        return array
    import tensorflow as tf

    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def assign_weights(model: keras.Model, file: WeightsFile, *, keep_mean: bool = False) -> None:
    """Gives a network the weights, the preprocessing and the class names of a file.

    Kernels are turned to Keras's axes, the first dense layer's inputs to the order of its map
    (height, width, channels), and the first kernel to RGB. A network without its dense layers
    takes the convolutions of a whole file. Hardly more than one copy of the largest kernel is in
    memory beside the network.

    Args:
        model: A network of ours, or any of the same layers.
        file: What `open_weights` returned.
        keep_mean: Whether the network keeps its own mean.

    Raises:
        UsageError: If the file has other layers, a tensor another shape, or it is not whole; the
            first such tensor is named. Tensors before it are filled already.
    """
    pairs = match_layers(model, file)
    check_normalization_match(model, file)
    for layer, stored in pairs:
        with reading_file(file.path):
            kernel = _kernel(model, layer, stored, file)
            bias = None if stored.bias is None else _vector(stored.bias, layer)
        if layer is pairs[0][0] and file.channels == "BGR":
            kernel[...] = kernel[:, :, ::-1].copy()
        layer.kernel.assign(as_owned_array(_finite(kernel, stored.kernel)))
        if bias is not None:
            layer.bias.assign(as_owned_array(_finite(bias, stored.bias)))
    _fill_rest(model, file, keep_mean)


def _kernel(model, layer, stored: StoredLayer, file: WeightsFile) -> np.ndarray:
    """Reads a kernel piece by piece to its place in Keras's axes."""
    shape = tuple(layer.kernel.shape)
    kernel = aligned_empty(shape)
    source = stored.kernel.shape
    if file.layout != OIHW:
        for place, block in stored.kernel.blocks():
            kernel.reshape(source)[place] = block
        return kernel
    if len(shape) == 2 and len(source) == 2:
        # A dense layer over a map that was flattened with its channels first.
        source = (source[0], *_map_before(model, layer, source[1]))
    for place, block in stored.kernel.blocks():
        block = block.reshape(-1, *source[1:])
        block = block.transpose(2, 3, 1, 0) if block.ndim == 4 else block.T
        kernel[..., place] = block.reshape(*shape[:-1], -1)
    return kernel


def _map_before(model, layer, inputs: int) -> tuple[int, ...]:
    """Returns (channels, height, width) of the map that a dense layer takes, or its inputs."""
    for candidate in model.layers:
        if isinstance(candidate, keras.layers.Flatten):
            first = next(x for x in model.layers if isinstance(x, keras.layers.Dense))
            _, height, width, channels = candidate.input.shape
            if layer is first and inputs == height * width * channels:
                return (channels, height, width)
    return (inputs,)


def _vector(stored: StoredTensor, layer) -> np.ndarray:
    vector = aligned_empty(tuple(layer.bias.shape))
    vector[...] = stored.array()
    return vector


def _finite(values: np.ndarray, stored: StoredTensor) -> np.ndarray:
    # Row by row, because a mask of the whole would be a quarter of it.
    if not all(np.isfinite(row).all() for row in values):
        raise UsageError(f"{stored} holds numbers that are not finite", expected="trained weights")
    return values


def _fill_rest(model, file: WeightsFile, keep_mean: bool) -> None:
    for layer in model.layers:
        if isinstance(layer, SubtractMean) and file.preprocessing is not None:
            found = file.preprocessing.for_size(*model.input_shape[1:3])
            layer.set(layer.mean if keep_mean else found.mean, found.std)
    if isinstance(model.layers[-1], ClassProbabilities) and file.class_names is not None:
        set_class_names(model, file.class_names)


class DeferredWeights(keras.initializers.Initializer):
    """Zeros in place of another initializer, which `restore` puts back.

    Random numbers for VGG-16 cost seconds and more than twice its memory, only to be overwritten.

    Args:
        original: The initializer that the layer is to have in its configuration.
    """

    def __init__(self, original) -> None:
        self.original = keras.initializers.get(original)

    def __call__(self, shape, dtype=None):
        """Returns zeros."""
        if keras.backend.standardize_dtype(dtype or keras.config.floatx()) != "float32":
            return keras.ops.zeros(shape, dtype)
        return keras.ops.convert_to_tensor(as_owned_array(aligned_empty(tuple(shape))))


def defer_initializers(options: dict) -> dict:
    """Returns a layer's initializer arguments with zeros for its kernel."""
    return {
        **options,
        "kernel_initializer": DeferredWeights(options.get("kernel_initializer", "glorot_uniform")),
    }


def restore_initializers(model: keras.Model) -> None:
    """Gives every layer its own initializer back."""
    for layer in model.layers:
        initializer = getattr(layer, "kernel_initializer", None)
        if isinstance(initializer, DeferredWeights):
            layer.kernel_initializer = initializer.original
