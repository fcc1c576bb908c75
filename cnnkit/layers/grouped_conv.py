"""Grouped convolution with a fast gradient on CPUs."""

from __future__ import annotations

from typing import Any

import keras


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
        if self.groups == 1 or keras.backend.backend() != "tensorflow":
            return super().convolution_op(inputs, kernel)
        return convolve(self, inputs, kernel, self.padding)


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
