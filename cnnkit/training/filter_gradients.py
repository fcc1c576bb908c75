"""Gradients for the filters of convolutions, on processors where TensorFlow's way is slow.

oneDNN computes convolutions on a CPU. Without AVX-512 its code for this gradient is a fifth to a
half slower than that for the convolution itself, and it is a third of a training step. But the
gradient is a convolution too: of the images with the signal from above for filters, where images
and channels have changed places. It is made of bands of rows, of which the signal stays in a core's
cache, and which are summed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

_NAME = "CnnkitConv2D"
# Filters that oneDNN computes at a time, and the bytes of the signal for them that stay in a cache.
_AT_A_TIME = 32
_CACHE = 2**20
# More bands, fewer images or less work than this, or images that do not fill oneDNN's blocks of
# eight, and TensorFlow's way is as fast.
_BANDS = 8
_IMAGES = 16
_WORK = 3e9


@contextlib.contextmanager
def fast_filter_gradients(*, jit_compile: bool = False) -> Iterator[bool]:
    """Has `tf.gradients` take the fast way through the convolutions of a block, where there is one.

    Only for `tf.gradients`, inside a `tf.function`: a tape does not ask.

    Args:
        jit_compile: Whether XLA, whose convolutions are not oneDNN's, compiles the function.

    Yields:
        Whether there is a fast way on this machine.

    Example:
        >>> images, filters = tf.ones((1, 4, 4, 1)), tf.ones((3, 3, 1, 1))
        >>> @tf.function
        ... def gradient():
        ...     with fast_filter_gradients():
        ...         maps = tf.nn.conv2d(images, filters, 1, "SAME")
        ...     return tf.gradients(maps, filters)[0]
        >>> gradient().numpy()[:, :, 0, 0].tolist()
        [[9.0, 12.0, 9.0], [12.0, 16.0, 12.0], [9.0, 12.0, 9.0]]
    """
    if jit_compile or not is_of_use():
        yield False
        return
    with tf.compat.v1.get_default_graph().gradient_override_map({"Conv2D": _NAME}):
        yield True


def is_of_use() -> bool:
    """Tells whether this machine computes on a CPU that is known to gain."""
    if tf.config.list_logical_devices("GPU"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return " avx2 " in flags and " avx512f " not in flags


def in_bands(images, signal, size: int, rows: int):
    """Returns the gradient for the filters of a convolution with stride 1 and padding `"same"`.

    Args:
        images: (n, h, w, c), what was convolved.
        signal: (n, h, w, filters), the gradient for what came out.
        size: Height and width of the filters, odd.
        rows: Rows of a band.

    Returns:
        (size, size, c, filters).

    Example:
        >>> int(in_bands(tf.ones((2, 4, 4, 1)), tf.ones((2, 4, 4, 1)), 3, 2)[1, 1, 0, 0])
        32
    """
    half = size // 2
    padded = tf.pad(images, [(0, 0), (half, half), (half, half), (0, 0)])
    turned, filters = tf.transpose(padded, (3, 1, 2, 0)), tf.transpose(signal, (1, 2, 0, 3))
    bands = [
        tf.nn.conv2d(turned[:, i : i + rows + 2 * half], filters[i : i + rows], 1, "VALID")
        for i in range(0, images.shape[1], rows)
    ]
    return tf.transpose(tf.add_n(bands), (1, 2, 0, 3))


@tf.RegisterGradient(_NAME)
def _gradients(op: tf.Operation, signal: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    images, kernel = op.inputs
    attributes = {
        name: op.get_attr(name)
        for name in ("strides", "padding", "explicit_paddings", "data_format", "dilations")
    }
    for_images = tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.shape(images), filter=kernel, out_backprop=signal, **attributes
    )
    rows = _rows(images, kernel, signal, attributes)
    if rows:
        return for_images, in_bands(images, signal, kernel.shape[0], rows)
    return for_images, tf.raw_ops.Conv2DBackpropFilter(
        input=images, filter_sizes=tf.shape(kernel), out_backprop=signal, **attributes
    )


def _rows(images, kernel, signal, attributes) -> int:
    """Returns the rows of a band; 0 where TensorFlow's way is as fast, or the only one."""
    sizes = [*images.shape, *kernel.shape]
    if None in sizes or images.dtype != tf.float32:
        return 0
    count, height, width, channels, tall, wide, _, filters = sizes
    plain = set(attributes["strides"]) == set(attributes["dilations"]) == {1}
    same = attributes["padding"] == b"SAME" and attributes["data_format"] == b"NHWC"
    # A kernel of fewer channels is that of a group.
    if not (plain and same) or tall != wide or tall % 2 == 0 or tall == 1:
        return 0
    if channels != kernel.shape[2] or count < _IMAGES or count % 8:
        return 0
    rows = _CACHE // (4 * _AT_A_TIME * width * count)
    work = 2 * count * height * width * tall * wide * channels * filters
    return rows if work > _WORK and rows * _BANDS >= height else 0
