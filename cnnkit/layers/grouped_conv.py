"""Grouped convolution with a fast gradient on CPUs."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

CHANNELS_OF_A_TENSOR_CORE = 8


@keras.saving.register_keras_serializable(package="cnnkit")
class GroupedConv2D(keras.layers.Conv2D):
    """2-D convolution of `groups` slices of the input channels, one after the other.

    A group is a tower of Krizhevsky et al. 2012 (section 3.2, Fig. 2). Arguments, weights and
    results are those of `keras.layers.Conv2D`. Keras compiles grouped convolutions with XLA, whose
    gradient on a CPU is about ten times slower. TensorFlow's grouped kernel is not faster than this
    layer; on a CPU without AVX-512 it has no gradient and fails if a bias follows. Products are
    summed in float32. Without a GPU float16 has no fast kernel: the layer then computes in float32.

    Input: (n, h, w, c), c divisible by `groups`. Output: (n, h', w', filters).

    Example:
        >>> import numpy as np
        >>> from cnnkit.layers import GroupedConv2D
        >>> layer = GroupedConv2D(8, 3, groups=2)
        >>> layer(np.zeros((1, 5, 5, 4), "float32")).shape
        TensorShape([1, 3, 3, 8])
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        backend = keras.backend.backend()
        if backend == "jax" and _gains_from_blocks(self, inputs):
            return _convolve_blocks(inputs, kernel, self.strides[0])
        if self.groups == 1 or backend not in ("tensorflow", "jax"):
            return super().convolution_op(inputs, kernel)
        if backend == "jax":
            return _convolve_groups(self, inputs, kernel)
        return convolve(self, inputs, kernel, self.padding)


def _convolve_groups(layer: keras.layers.Conv2D, inputs: Any, kernel: Any) -> Any:
    """Apply the convolution of a layer one group after the other: faster on JAX than as one."""
    axis = 1 if layer.data_format == "channels_first" else -1
    options = (layer.strides, layer.padding, layer.data_format, layer.dilation_rate)
    parts = [
        ops.conv(part, filters, *options)
        for part, filters in zip(
            ops.split(inputs, layer.groups, axis), ops.split(kernel, layer.groups, -1), strict=True
        )
    ]
    return ops.concatenate(parts, axis)


def _gains_from_blocks(layer: keras.layers.Conv2D, inputs: Any) -> bool:
    """Return True for a convolution of whole windows over few channels, such as an image's."""
    down, across = layer.strides
    return (
        layer.groups == 1
        and 1 < down == across
        and tuple(layer.dilation_rate) == (1, 1)
        and layer.padding == "valid"
        and layer.data_format == "channels_last"
        and inputs.shape[-1] < CHANNELS_OF_A_TENSOR_CORE
    )


def _convolve_blocks(inputs: Any, kernel: Any, stride: int) -> Any:
    """Apply a convolution with a stride to blocks of stride x stride pixels, without a stride.

    The tensor cores of a GPU take multiples of eight channels. An image has three, and a block of
    4 x 4 pixels 48. The kernel is filled up with zeros to whole blocks.

    Args:
        inputs: (n, h, w, c).
        kernel: (kh, kw, c, filters).
        stride: The step of the windows along both axes.
    """
    channels = inputs.shape[-1]
    # Zeros fill a block up to a multiple of eight channels.
    more = next(n for n in range(8) if (channels + n) * stride**2 % CHANNELS_OF_A_TENSOR_CORE == 0)
    blocks = [-(-side // stride) for side in kernel.shape[:2]]
    positions = [
        (side - size) // stride + 1
        for side, size in zip(inputs.shape[1:3], kernel.shape[:2], strict=True)
    ]
    sides = [(n + size - 1) * stride for n, size in zip(positions, blocks, strict=True)]
    # Pixels behind the last window are cut off, missing ones of whole blocks are zeros.
    inputs = inputs[:, : sides[0], : sides[1]]
    missing = [side - had for side, had in zip(sides, inputs.shape[1:3], strict=True)]
    inputs = ops.pad(inputs, [(0, 0), *((0, one) for one in missing), (0, more)])
    missing = [n * stride - had for n, had in zip(blocks, kernel.shape[:2], strict=True)]
    kernel = ops.pad(kernel, [*((0, one) for one in missing), (0, more), (0, 0)])

    rows, columns, depth = sides[0] // stride, sides[1] // stride, (channels + more) * stride**2
    inputs = ops.reshape(inputs, (-1, rows, stride, columns, stride, channels + more))
    inputs = ops.reshape(ops.transpose(inputs, (0, 1, 3, 2, 4, 5)), (-1, rows, columns, depth))
    kernel = ops.reshape(kernel, (blocks[0], stride, blocks[1], stride, channels + more, -1))
    kernel = ops.reshape(ops.transpose(kernel, (0, 2, 1, 3, 4, 5)), (*blocks, depth, -1))
    return ops.conv(inputs, kernel, 1, "valid", "channels_last")


def convolve(layer: keras.layers.Conv2D, inputs: Any, kernel: Any, padding: str) -> Any:
    """Apply the convolution of a layer with TensorFlow, one group after the other.

    Args:
        layer: Gives the groups, the strides, the dilation and the order of the axes.
        inputs: (n, h, w, c), in the dtype of the kernel.
        kernel: (h, w, c / groups, filters).
        padding: `"valid"` or `"same"`, instead of the layer's own.
    """
    import tensorflow as tf

    dtype = inputs.dtype
    if dtype == tf.float16 and not tf.config.list_logical_devices("GPU"):
        inputs, kernel = tf.cast(inputs, tf.float32), tf.cast(kernel, tf.float32)
    channels_first = layer.data_format == "channels_first"
    axis = 1 if channels_first else -1
    parts = [
        tf.nn.conv2d(
            part,
            kernels,
            strides=layer.strides,
            padding=padding.upper(),
            data_format="NCHW" if channels_first else "NHWC",
            dilations=layer.dilation_rate,
        )
        for part, kernels in zip(
            tf.split(inputs, layer.groups, axis),
            tf.split(kernel, layer.groups, -1),
            strict=True,
        )
    ]
    return tf.cast(parts[0] if layer.groups == 1 else tf.concat(parts, axis), dtype)
