"""Grouped convolution that stays on the fast path."""

from __future__ import annotations

import keras


@keras.saving.register_keras_serializable(package="cnnkit")
class GroupedConv2D(keras.layers.Conv2D):
    """2-D convolution whose kernels see one of `groups` slices of the input channels.

    This is how the two towers of Krizhevsky et al. 2012 (section 3.2, Fig. 2) fit into one layer.
    It is `keras.layers.Conv2D` in arguments, weights and results. Keras compiles grouped
    convolutions with XLA, whose gradient on a CPU is about ten times slower; this layer convolves
    the groups one after the other. TensorFlow's grouped kernel is no faster, and on a CPU without
    AVX-512 it has no gradient and fails where a bias follows. Products are summed in float32;
    float16, which has no fast kernel without a GPU, is computed in float32 altogether there.

    Input: (n, h, w, c), c divisible by `groups`. Output: (n, h', w', filters).

    Example:
        >>> import numpy as np
        >>> from cnnkit.layers import GroupedConv2D
        >>> layer = GroupedConv2D(8, 3, groups=2)
        >>> layer(np.zeros((1, 5, 5, 4), "float32")).shape
        TensorShape([1, 3, 3, 8])
    """

    def convolution_op(self, inputs, kernel):
        if self.groups == 1 or keras.backend.backend() != "tensorflow":
            return super().convolution_op(inputs, kernel)
        return convolve(self, inputs, kernel, self.padding)


def convolve(layer: keras.layers.Conv2D, inputs, kernel, padding: str):
    """Returns what TensorFlow makes of a layer's convolution, its groups one after the other.

    Args:
        layer: Says the groups, strides, dilation and order of the axes.
        inputs: (n, h, w, c), in the dtype of the kernel.
        kernel: (h, w, c / groups, filters).
        padding: `"valid"` or `"same"`, whatever the layer's own is.
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
