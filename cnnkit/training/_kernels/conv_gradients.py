"""Gradients of convolutions, on processors where TensorFlow's way is slow.

oneDNN computes convolutions on a CPU, and they are more than three quarters of a training step.
Where there are many channels, both gradients come in fewer products; where the maps are large, the
filters' gradient alone comes in bands. The convolution itself is left as everybody computes it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from cnnkit.training._kernels.winograd import winograd_gradients


def banded_filter_gradient(images, signal, size: int, rows: int):
    """Returns the gradient for the filters of a convolution with stride 1 and padding `"same"`.

    Args:
        images: (n, h, w, c), what was convolved.
        signal: (n, h, w, filters), the gradient for what came out.
        size: Height and width of the filters, odd.
        rows: Rows of a band.

    Returns:
        (size, size, c, filters).

    Example:
        >>> int(banded_filter_gradient(tf.ones((2, 4, 4, 1)), tf.ones((2, 4, 4, 1)), 3, 2)[1, 1, 0, 0])
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


_NAME = "CnnkitConv2D"
# Fewest products: channels times filters beside their sum, which weighs products against values to
# read and write; cells of the largest map, beyond which values leave the caches; and cells of all
# images, for which it pays to transform the filters.
_CHANNELS = 20
_MAP = 60 * 60
_CELLS = 600
# Bands: filters that oneDNN computes at a time, the bytes of the signal for them that stay in a
# cache, and the operations up to which TensorFlow's way is as fast.
_AT_A_TIME = 32
_CACHE = 2**20
_WORK = 2.6e9


@contextlib.contextmanager
def fast_conv_gradients(*, jit_compile: bool = False) -> Iterator[bool]:
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
        ...     with fast_conv_gradients():
        ...         maps = tf.nn.conv2d(images, filters, 1, "SAME")
        ...     return tf.gradients(maps, filters)[0]
        >>> gradient().numpy()[:, :, 0, 0].tolist()
        [[9.0, 12.0, 9.0], [12.0, 16.0, 12.0], [9.0, 12.0, 9.0]]
    """
    if jit_compile or not is_supported_processor():
        yield False
        return
    with tf.compat.v1.get_default_graph().gradient_override_map({"Conv2D": _NAME}):
        yield True


def is_supported_processor() -> bool:
    """Tells whether this machine computes on a CPU that is known to gain."""
    if tf.config.list_logical_devices("GPU"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return " avx2 " in flags and " avx512f " not in flags


@tf.RegisterGradient(_NAME)
def _gradients(op: tf.Operation, signal: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    images, kernel = op.inputs
    attributes = {
        name: op.get_attr(name)
        for name in ("strides", "padding", "explicit_paddings", "data_format", "dilations")
    }
    plain = _is_plain(images, kernel, attributes)
    if plain and _has_many_channels(images, kernel):
        return winograd_gradients(images, kernel, signal)
    for_images = tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.shape(images), filter=kernel, out_backprop=signal, **attributes
    )
    rows = _rows(images, kernel) if plain else 0
    if rows:
        return for_images, banded_filter_gradient(images, signal, kernel.shape[0], rows)
    return for_images, tf.raw_ops.Conv2DBackpropFilter(
        input=images, filter_sizes=tf.shape(kernel), out_backprop=signal, **attributes
    )


def _is_plain(images, kernel, attributes) -> bool:
    """Tells whether a convolution is one that the other ways can take."""
    if None in (*images.shape, *kernel.shape) or images.dtype != tf.float32:
        return False
    tall, wide, channels, _ = kernel.shape
    same = attributes["padding"] == b"SAME" and attributes["data_format"] == b"NHWC"
    dense = set(attributes["strides"]) == set(attributes["dilations"]) == {1}
    # A kernel of fewer channels is that of a group.
    whole = channels == images.shape[-1]
    return same and dense and whole and tall == wide and tall in (3, 5, 7)


def _has_many_channels(images, kernel) -> bool:
    """Tells whether the fewest products are the fastest way."""
    count, height, width, channels = images.shape
    filters = kernel.shape[-1]
    cells = height * width
    many = channels * filters >= _CHANNELS * (channels + filters)
    return many and cells <= _MAP and count * cells >= _CELLS


def _rows(images, kernel) -> int:
    """Returns the rows of a band; 0 where TensorFlow's way is as fast."""
    count, height, width, channels = images.shape
    size, _, _, filters = kernel.shape
    if 2 * count * height * width * size * size * channels * filters <= _WORK:
        return 0
    return max(1, _CACHE // (4 * _AT_A_TIME * width * count))
