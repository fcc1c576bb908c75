"""The gradient of a convolution in its input alone, which is all that a projection needs."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

# Channels of an image, at most: TensorFlow's gradient of a convolution with a stride is slow there.
FEW = 4


def without_kernel_gradient(
    convolve: Callable[[tf.Tensor], tf.Tensor],
    layer: keras.layers.Conv2D,
    x: tf.Tensor,
    kernel: tf.Tensor,
    padding: str,
) -> tf.Tensor:
    """Returns a convolution of which only the input has a gradient.

    An eager tape computes the gradient of the kernel as well, for nobody: over small maps that
    takes longer than the forward pass.

    Args:
        convolve: The convolution as a function of `x`.
        layer: Gives the groups and the strides.
        x: (n, h, w, c).
        kernel: (h, w, c / groups, filters).
        padding: `"valid"` or `"same"`.
    """
    is_dilated = tuple(layer.dilation_rate) != (1, 1)
    if is_dilated or x.dtype != tf.float32:
        return convolve(x)
    kernel = tf.convert_to_tensor(kernel)
    down, across = layer.strides

    def backward(signal: tf.Tensor) -> tf.Tensor:
        if 1 < down == across and padding == "valid" and x.shape[-1] <= FEW and layer.groups == 1:
            return _gradient_of_blocks(tf.shape(x), kernel, signal, down)
        parts = [
            _gradient(tf.shape(x)[:3], filters, part, layer.strides, padding)
            for filters, part in zip(
                tf.split(kernel, layer.groups, -1), tf.split(signal, layer.groups, -1), strict=True
            )
        ]
        return parts[0] if len(parts) == 1 else tf.concat(parts, -1)

    @tf.custom_gradient
    def forward(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return convolve(x), backward

    return forward(x)


def _gradient(
    sides: tf.Tensor, kernel: tf.Tensor, signal: tf.Tensor, strides: tuple[int, int], padding: str
) -> tf.Tensor:
    """Returns the signal at the input, whose batch, height and width are `sides`."""
    return tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.concat([sides, [kernel.shape[2]]], 0),
        filter=kernel,
        out_backprop=signal,
        strides=(1, *strides, 1),
        padding=padding.upper(),
    )


def _gradient_of_blocks(
    shape: tf.Tensor, kernel: tf.Tensor, signal: tf.Tensor, stride: int
) -> tf.Tensor:
    """Returns the signal at an input of few channels, computed block by block.

    Over blocks of stride x stride pixels the convolution has no stride and many channels, which
    takes a third of the time for AlexNet's conv1. The kernel is filled up with zeros to whole
    blocks.

    Args:
        shape: (4,) int32, the shape of the input.
        kernel: (kh, kw, c, filters).
        signal: (n, h, w, filters).
        stride: The step of the windows along both axes.
    """
    height, width, channels, filters = kernel.shape
    rows, columns = (-(-side // stride) for side in (height, width))
    kernel = tf.pad(
        kernel, [(0, rows * stride - height), (0, columns * stride - width), (0, 0), (0, 0)]
    )
    kernel = tf.reshape(kernel, (rows, stride, columns, stride, channels, filters))
    kernel = tf.reshape(
        tf.transpose(kernel, (0, 2, 1, 3, 4, 5)), (rows, columns, stride**2 * channels, filters)
    )
    sides = tf.shape(signal)[:3] + [0, rows - 1, columns - 1]
    pixels = tf.nn.depth_to_space(_gradient(sides, kernel, signal, (1, 1), "valid"), stride)
    # Beyond the last window the kernel is zero, or there is no window.
    pixels = pixels[:, : shape[1], : shape[2]]
    missing = shape[1:3] - tf.shape(pixels)[1:3]
    return tf.pad(pixels, [(0, 0), (0, missing[0]), (0, missing[1]), (0, 0)])
