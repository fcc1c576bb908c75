"""The first picture of a GIF file, found inside the graph.

TensorFlow decodes every picture of an animation to return the first, and a picture may be larger
than the screen that the file's header promises. So the file is cut behind its first picture.
"""

from __future__ import annotations

import tensorflow as tf

from cnnkit.export.refusing import Bytes, after, refuse_unless

# Blocks that are walked through in search of the picture's end. They hold 255 bytes each where they
# are full, as writers leave them: 4 MB.
MOST_BLOCKS = 16_384
EXTENSION, PICTURE, END = 0x21, 0x2C, b"\x3b"
SCREEN_BYTES = 13


def first_picture(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns a GIF file without what follows its first picture, and how large it is.

    Args:
        data: () string, at least `SCREEN_BYTES` long.

    Returns:
        The file, () string, and (2,) int64: height and width of what screen and picture cover.

    Raises:
        tf.errors.InvalidArgumentError: If there is no whole picture, or it has too many blocks.

    Example:
        >>> from cnnkit.export.gif import first_picture
        >>> still = bytes.fromhex("474946383961 0300 0200 00 00 00" "2c 0000 0000 0300 0200 00"
        ...                       "02 03 8c9d05 00")
        >>> first_picture(still + b"more")[0].numpy() == still + b";"
        True
    """
    file = Bytes(data)
    length = tf.size(file.values)
    screen = tf.stack([file.little(8, 2), file.little(6, 2)])

    def read(place):
        # Past the end nothing is there; what reads a zero there stops.
        return tf.where(place < length, file.at(tf.minimum(place, length - 1)), 0)

    def end_of_blocks(place, blocks):
        """Walks from the first block of a chain to the place behind its end."""
        place, blocks = tf.while_loop(
            lambda place, blocks: (read(place) > 0) & (blocks < MOST_BLOCKS),
            lambda place, blocks: (place + 1 + tf.cast(read(place), tf.int32), blocks + 1),
            (place, blocks),
        )
        return place + 1, blocks

    def is_extension(place, blocks):
        return (read(place) == EXTENSION) & (blocks < MOST_BLOCKS)

    place = SCREEN_BYTES + _table_bytes(read(10))
    place, blocks = tf.while_loop(
        is_extension,
        # Counted too, or a file of empty extensions would be walked through without end.
        lambda place, blocks: end_of_blocks(place + 2, blocks + 1),
        (place, tf.constant(0)),
    )
    found = refuse_unless(
        (read(place) == PICTURE) & (place + 10 < length), "a GIF file has no picture near its start"
    )
    place, blocks = after(found, place, blocks)
    left, top, width, height = (file.little(place + 1 + 2 * i, 2) for i in range(4))
    # Behind the picture's table of colours and the byte for its code size.
    end, blocks = end_of_blocks(place + 11 + _table_bytes(read(place + 9)), blocks)
    whole = refuse_unless(
        (end <= length) & (blocks < MOST_BLOCKS),
        "the first picture of a GIF file is not whole, or has too many blocks",
    )
    cut = tf.strings.join([tf.strings.substr(data, 0, end), END])
    return tuple(after(whole, cut, tf.maximum(screen, tf.stack([top + height, left + width]))))


def _table_bytes(packed: tf.Tensor) -> tf.Tensor:
    """Returns the bytes of a table of colours, from the byte that tells whether there is one."""
    size = tf.gather([3 * 2 ** (1 + bits) for bits in range(8)], packed % 8)
    return tf.where(packed >= 128, size, 0)
