"""Faster gradients of convolutions on CPUs for which oneDNN is slow, and the choice between them.

oneDNN computes convolutions on a CPU, and they are more than three quarters of a training step.
Three methods compute the gradients:

- Winograd's minimal filtering (`winograd`), for both gradients, with many channels;
- bands of rows, for the gradient of the filters alone, with large maps. oneDNN takes up to three
  times as long for it on a CPU without AVX-512. The gradient is a convolution of the images with
  the output gradient as filters, where images and channels have changed places. It is computed in
  bands of rows whose output gradient stays in the cache of a core, and the bands are summed;
- TensorFlow's operations otherwise.

The forward convolution is always TensorFlow's, in training as in evaluation and serving.

The gradient is registered with `tf.RegisterGradient` when this module is imported, under a name of
its own: it changes no other graph. TensorFlow applies it inside `gradient_override_map` only, and
`tf.gradients` obeys that map where `tf.GradientTape` does not. This is the only file that uses
these three and the `raw_ops` of convolutions.

The environment variable `CNNKIT_CONV_GRADIENTS` chooses: `auto`, the default, uses the fast methods
on processors that gain; `framework` always uses TensorFlow's operations.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from cnnkit.errors import UsageError
from cnnkit.training._kernels.winograd import winograd_gradients

ENVIRONMENT_VARIABLE = "CNNKIT_CONV_GRADIENTS"

_NAME = "CnnkitConv2D"
# Winograd: least channels * filters / (channels + filters), the ratio of products to values that
# are read and written; most positions of a map, beyond which values leave the caches; and fewest
# positions of all images, for which the filters are worth transforming.
_CHANNELS = 20
_MAP = 60 * 60
_CELLS = 600
# Bands: filters that oneDNN computes at a time; bytes of their output gradient that stay in a
# cache; and operations up to which TensorFlow is as fast.
_AT_A_TIME = 32
_CACHE = 2**20
_WORK = 2.6e9


@contextlib.contextmanager
def fast_conv_gradients(*, jit_compile: bool = False) -> Iterator[bool]:
    """Use the fast gradients for the convolutions of a block if this machine gains from them.

    Only `tf.gradients` inside a `tf.function` uses them; `tf.GradientTape` does not.

    Args:
        jit_compile: Whether XLA, whose convolutions are not oneDNN's, compiles the function.

    Yields:
        Whether the fast gradients are used.

    Raises:
        UsageError: If the environment variable CNNKIT_CONV_GRADIENTS has an unknown value.

    Example:
        >>> images, filters = tf.ones((1, 4, 4, 1)), tf.ones((3, 3, 1, 1))
        >>> @tf.function
        ... def gradient():
        ...     with fast_conv_gradients():
        ...         maps = tf.nn.conv2d(images, filters, 1, "SAME")
        ...     return tf.gradients(maps, filters)[0]
        >>> gradient().numpy()[:, :, 0, 0].tolist()
        [[9.0, 12.0, 9.0], [12.0, 16.0, 12.0], [9.0, 12.0, 9.0]]
    """
    if conv_gradient_mode() == "framework" or jit_compile or not is_supported_processor():
        yield False
        return
    with tf.compat.v1.get_default_graph().gradient_override_map({"Conv2D": _NAME}):
        yield True


def conv_gradient_mode() -> str:
    """Return the value of the environment variable CNNKIT_CONV_GRADIENTS, `auto` or `framework`.

    Raises:
        UsageError: If it has another value.
    """
    value = os.environ.get(ENVIRONMENT_VARIABLE, "auto")
    if value not in ("auto", "framework"):
        raise UsageError(
            f"The environment variable {ENVIRONMENT_VARIABLE} must be `auto` or `framework`",
            received=value,
        )
    return value


def is_supported_processor() -> bool:
    """Return True if convolutions run on a CPU that is known to gain: AVX2 without AVX-512."""
    if tf.config.list_logical_devices("GPU"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return " avx2 " in flags and " avx512f " not in flags


def banded_filter_gradient(
    images: tf.Tensor, output_gradient: tf.Tensor, size: int, rows: int
) -> tf.Tensor:
    """Return the filter gradient of a convolution with stride 1 and padding `"same"`, in bands.

    Args:
        images: (n, h, w, c), the input of the convolution.
        output_gradient: (n, h, w, filters), the gradient of the loss for its output.
        size: Height and width of the filters, odd.
        rows: Number of rows of a band.

    Returns:
        (size, size, c, filters).

    Example:
        >>> maps = tf.ones((2, 4, 4, 1))
        >>> int(banded_filter_gradient(maps, maps, 3, 2)[1, 1, 0, 0])
        32
    """
    half = size // 2
    padded = tf.pad(images, [(0, 0), (half, half), (half, half), (0, 0)])
    swapped = tf.transpose(padded, (3, 1, 2, 0))
    filters = tf.transpose(output_gradient, (1, 2, 0, 3))
    bands = [
        tf.nn.conv2d(swapped[:, i : i + rows + 2 * half], filters[i : i + rows], 1, "VALID")
        for i in range(0, images.shape[1], rows)
    ]
    return tf.transpose(tf.add_n(bands), (1, 2, 0, 3))


@tf.RegisterGradient(_NAME)
def _gradients(op: tf.Operation, output_gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    images, kernel = op.inputs
    attributes = {
        name: op.get_attr(name)
        for name in ("strides", "padding", "explicit_paddings", "data_format", "dilations")
    }
    plain = _is_plain(images, kernel, attributes)
    if plain and _gains_from_winograd(images, kernel):
        return winograd_gradients(images, kernel, output_gradient)
    image_gradient = tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.shape(images), filter=kernel, out_backprop=output_gradient, **attributes
    )
    rows = _band_rows(images, kernel) if plain else 0
    if rows:
        size = kernel.shape[0]
        return image_gradient, banded_filter_gradient(images, output_gradient, size, rows)
    return image_gradient, tf.raw_ops.Conv2DBackpropFilter(
        input=images, filter_sizes=tf.shape(kernel), out_backprop=output_gradient, **attributes
    )


def _is_plain(images: tf.Tensor, kernel: tf.Tensor, attributes: Mapping[str, Any]) -> bool:
    """Return True if both fast methods support the convolution."""
    if None in (*images.shape, *kernel.shape) or images.dtype != tf.float32:
        return False
    height, width, channels, _ = kernel.shape
    same = attributes["padding"] == b"SAME" and attributes["data_format"] == b"NHWC"
    dense = set(attributes["strides"]) == set(attributes["dilations"]) == {1}
    # In a grouped convolution the kernel has fewer channels than the images.
    ungrouped = channels == images.shape[-1]
    return same and dense and ungrouped and height == width and height in (3, 5, 7)


def _gains_from_winograd(images: tf.Tensor, kernel: tf.Tensor) -> bool:
    """Return True if Winograd's method is the fastest."""
    count, height, width, channels = images.shape
    filters = kernel.shape[-1]
    cells = height * width
    many = channels * filters >= _CHANNELS * (channels + filters)
    return many and cells <= _MAP and count * cells >= _CELLS


def _band_rows(images: tf.Tensor, kernel: tf.Tensor) -> int:
    """Return the number of rows of a band, or 0 if TensorFlow is as fast."""
    count, height, width, channels = images.shape
    size, _, _, filters = kernel.shape
    if 2 * count * height * width * size * size * channels * filters <= _WORK:
        return 0
    return max(1, _CACHE // (4 * _AT_A_TIME * width * count))
