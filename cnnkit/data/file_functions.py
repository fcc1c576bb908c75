"""Functions of the bytes of image files as one operation of a graph, and checks before decoding."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from cnnkit._untrusted.limits import MAX_JPEG_SCANS
from cnnkit.data.graph_checks import assert_or_invalid_argument, check_sides, with_dependencies
from cnnkit.data.png import check_png_chunks, png_sides

START_OF_SCAN = b"\xff\xda"

# A function of the bytes of a file, () string.
OfBytes = Callable[[tf.Tensor], tf.Tensor]
# Functions that stay traced: one takes a megabyte or two.
TRACED_FUNCTIONS = 128
# Whether the function that is being traced may hold no call of Python. TensorFlow makes such a call
# in a thread of its pool, and the function that Python calls there needs another one: with as many
# of them as the pool has threads, one on a single core, all wait for ever.
_without_python = contextvars.ContextVar("without_python", default=False)


def call_traced(function: Callable[..., Any], *inputs: tf.Tensor) -> list[tf.Tensor]:
    """Call a function of an image as one operation of the graph, and return its outputs.

    The function is traced once in a process. An input pipeline, which is prepared again for every
    epoch, would otherwise trace and optimize some 600 operations each time.

    Args:
        function: The function, at the top level of a module or cached. Its graph depends on the
            shapes and types of the inputs alone.
        inputs: Its arguments.
    """
    tensors = [tf.convert_to_tensor(value) for value in inputs]
    signature = tuple(tf.TensorSpec(one.shape, one.dtype) for one in tensors)
    concrete = _trace(function, signature, tf.executing_eagerly() or _without_python.get())
    if tf.executing_eagerly():
        return tf.nest.flatten(concrete(*tensors))
    # A branch that is not inlined, unlike a call.
    return tf.raw_ops.Case(
        branch_index=0,
        input=tensors,
        Tout=[output.dtype for output in concrete.outputs],
        branches=[concrete],
        output_shapes=[output.shape for output in concrete.outputs],
    )


def call_function(function: OfBytes, data: tf.Tensor, *, portable: bool) -> tf.Tensor:
    """Call a function of the bytes of a file as one operation of the graph.

    Args:
        function: The function, as in `call_traced`.
        data: () string.
        portable: Whether the operation can be saved. Otherwise Python calls the function in an
            input pipeline, which suits a rare format: its graph would be larger than the rest.
    """
    if portable or tf.executing_eagerly() or _without_python.get():
        return call_traced(function, data)[0]
    concrete = _trace(function, (tf.TensorSpec((), tf.string),), True)
    [output] = concrete.outputs

    def call(value: bytes) -> np.ndarray:
        try:
            with tf.device("CPU:0"):
                return concrete(tf.constant(value)).numpy()
        except tf.errors.InvalidArgumentError as error:
            # TensorFlow makes an InvalidArgumentError of it again.
            raise ValueError(error.message) from error

    result = tf.numpy_function(call, [data], output.dtype, stateful=False)
    return tf.ensure_shape(result, output.shape)


@functools.lru_cache(TRACED_FUNCTIONS)
def _trace(
    function: Callable[..., Any], signature: tuple[tf.TensorSpec, ...], without_python: bool
) -> tf.types.experimental.ConcreteFunction:
    before = _without_python.set(without_python)
    try:
        # Outside of the graph and the device of the first caller, which later ones may not share.
        with tf.init_scope(), tf.device(None):
            return tf.function(function, autograph=False).get_concrete_function(*signature)
    finally:
        _without_python.reset(before)


def contains(data: tf.Tensor, text: bytes) -> tf.Tensor:
    """Return () bool: True if a text is in a string, which may hold any bytes."""
    pieces = tf.raw_ops.StringSplitV2(input=data[None], sep=text, maxsplit=1).values
    return tf.size(pieces) > 1


def split_scans(data: tf.Tensor) -> tf.Tensor:
    """Return what is before the first scan of a JPEG file, and pieces for the scans."""
    splits = MAX_JPEG_SCANS + 1
    return tf.raw_ops.StringSplitV2(input=data[None], sep=START_OF_SCAN, maxsplit=splits).values


@functools.cache
def jpeg_check(max_pixels: int) -> OfBytes:
    """Return a function that returns a JPEG file whose pixels and scans are not too many.

    The file is its result because TensorFlow drops a stateless operation without one that is used,
    also where others have to wait for it.
    """

    def check(data: tf.Tensor) -> tf.Tensor:
        few_scans = assert_or_invalid_argument(
            tf.size(split_scans(data)) <= MAX_JPEG_SCANS + 1,
            f"the JPEG file has more than {MAX_JPEG_SCANS} scans",
        )
        sides = check_sides(tf.io.extract_jpeg_shape(data)[:2], max_pixels)
        return with_dependencies([few_scans, sides], data)[0]

    return check


@functools.cache
def png_check(max_pixels: int) -> OfBytes:
    """Return a function that returns a PNG file with whole chunks and not too many pixels."""

    def check(data: tf.Tensor) -> tf.Tensor:
        sides = check_sides(png_sides(data), max_pixels)
        return with_dependencies([sides, check_png_chunks(data)], data)[0]

    return check
