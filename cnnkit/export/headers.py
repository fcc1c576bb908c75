"""How large an image is, read from the first bytes of its file inside the graph.

A decoder allocates what the header promises. So the header is read here first, byte by byte, and
what is too large, too short or of another format never reaches a decoder. The texts of these errors
hold numbers and words of ours, never bytes of the request: gRPC's clients expect UTF-8.
"""

from __future__ import annotations

import tensorflow as tf

from cnnkit.export.gif import first_picture
from cnnkit.export.limits import LONGEST_SIDE, Limits
from cnnkit.export.refusing import Bytes, after, refuse_unless

# Bytes of a file that are looked at; only JPEG and GIF keep their size further back.
HEAD = 64

# Of the formats, in this order, the least bytes that hold the size.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WebP")
HEADER_BYTES = (4, 33, 13, 54, 30)

BMP_INFO_BYTES = 40
BMP_BITS = (8, 24, 32)
# Uncompressed, with or without masks for the colours: TensorFlow reads no other, but would try.
BMP_PLAIN = (0, 3)


def checked(data: tf.Tensor, limits: Limits) -> tf.Tensor:
    """Returns the bytes of an image file, once it is sure that decoding them is cheap.

    To be called while a graph is traced. Of an animated GIF only the first picture is left, because
    TensorFlow would decode all of them to return one.

    Args:
        data: () string.
        limits: What is refused.

    Returns:
        () string, which depends on every check.

    Raises:
        tf.errors.InvalidArgumentError: When the graph runs, if the file is too large, of another
            format, too short for its header, without pixels or with too many.

    Example:
        >>> import tensorflow as tf
        >>> from cnnkit.export import Limits
        >>> from cnnkit.export.headers import checked
        >>> png = tf.io.encode_png(tf.zeros((4, 6, 3), tf.uint8))
        >>> bool(tf.function(lambda data: checked(data, Limits()))(png) == png)
        True
    """
    length = tf.strings.length(data)
    small = refuse_unless(
        length <= limits.file_bytes,
        "an image file has too many bytes; it has, and may have:",
        length,
        limits.file_bytes,
    )
    [data] = after(small, data)
    # Continued by zeros, so that no read goes past the end: TensorFlow's error for that would quote
    # the bytes.
    start = tf.strings.join([tf.strings.substr(data, 0, HEAD), b"\0" * HEAD])
    head = Bytes(tf.strings.substr(start, 0, HEAD))
    kind = _kind(head)
    known = refuse_unless(
        tf.reduce_any(kind), f"an image file is none of {', '.join(FORMATS[:-1])} and {FORMATS[-1]}"
    )
    which = tf.argmax(kind, output_type=tf.int32)
    least = tf.gather(HEADER_BYTES, which)
    whole = refuse_unless(
        length >= least,
        "an image file is too short for its header; its bytes, and at least:",
        length,
        least,
    )
    data, which = after([known, whole], data, which)
    data, sides = tf.switch_case(
        which,
        [
            lambda: (data, tf.cast(tf.io.extract_jpeg_shape(data)[:2], tf.int64)),
            lambda: (data, tf.stack([head.big(20, 4), head.big(16, 4)])),
            lambda: first_picture(data),
            lambda: (data, _bmp(head)),
            lambda: (data, _webp(head)),
        ],
    )
    fits = refuse_unless(
        (tf.reduce_min(sides) >= 1)
        & (tf.reduce_max(sides) <= LONGEST_SIDE)
        & (tf.reduce_prod(sides) <= limits.pixels),
        f"an image has no pixels, a side above {LONGEST_SIDE}, or too many pixels; its height, "
        "its width, and the pixels it may have:",
        sides[0],
        sides[1],
        limits.pixels,
    )
    return after(fits, data)[0]


def _kind(head: Bytes) -> tf.Tensor:
    """Returns which of `FORMATS` the file begins like, (5,) bool, none or one of them true."""
    return tf.stack(
        [
            head.has(0, b"\xff\xd8\xff"),
            head.has(0, b"\x89PNG\r\n\x1a\n") & head.has(12, b"IHDR"),
            head.has(0, b"GIF87a") | head.has(0, b"GIF89a"),
            head.has(0, b"BM"),
            head.has(0, b"RIFF") & head.has(8, b"WEBP"),
        ]
    )


def _bmp(head: Bytes) -> tf.Tensor:
    readable = refuse_unless(
        (head.little(14, 4) >= BMP_INFO_BYTES)
        & tf.reduce_any(head.little(28, 2) == BMP_BITS)
        & tf.reduce_any(head.little(30, 4) == BMP_PLAIN),
        "a BMP file is compressed, or has not 8, 24 or 32 bits a pixel; its bits, and compression:",
        head.little(28, 2),
        head.little(30, 4),
    )
    # The height is below zero where the rows begin at the top.
    height, width = head.signed(22), head.signed(18)
    return after(readable, tf.stack([tf.abs(height), width]))[0]


def _webp(head: Bytes) -> tf.Tensor:
    """Returns the height and width that a WebP file tells in one of its three ways."""
    lossy = head.has(12, b"VP8 ") & head.has(23, b"\x9d\x01\x2a")
    lossless = head.has(12, b"VP8L") & head.has(20, b"\x2f")
    extended = head.has(12, b"VP8X")
    bits, fourteen = head.little(21, 4), 2**14
    sides = tf.where(
        lossy,
        [head.little(28, 2) % fourteen, head.little(26, 2) % fourteen],
        tf.where(
            lossless,
            [bits // fourteen % fourteen + 1, bits % fourteen + 1],
            # The decoder refuses pictures inside that are of another size.
            [head.little(27, 3) + 1, head.little(24, 3) + 1],
        ),
    )
    told = refuse_unless(lossy | lossless | extended, "a WebP file does not tell its size")
    return after(told, sides)[0]
