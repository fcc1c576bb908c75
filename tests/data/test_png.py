"""Chunks of PNG files that declare more bytes than there are."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cnnkit.data import decode_image
from cnnkit.data.png import check_png_chunks
from tests.helpers.images import png

GOOD = png(value=9, side=30)
END = GOOD.index(b"IEND") - 4


def chunk(kind, data, length=None):
    size = len(data) if length is None else length
    return struct.pack(">I", size) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("length", [50, 0x7FFFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize("place", [33, END])
def test_a_chunk_longer_than_the_file_is_refused(place, length):
    """libpng reserves the declared length, and TensorFlow fills it: 2 GB."""
    bomb = GOOD[:place] + chunk(b"tEXt", b"a", length) + GOOD[place:][:20]
    with pytest.raises(tf.errors.InvalidArgumentError, match="the PNG file is not whole"):
        decode_image(tf.constant(bomb))


def test_files_of_many_chunks_and_with_bytes_behind_the_end(monkeypatch):
    place = GOOD.index(b"IDAT") - 4
    [size] = struct.unpack_from(">I", GOOD, place)
    pixels = GOOD[place + 8 : place + 8 + size]
    parts = b"".join(chunk(b"IDAT", pixels[i : i + 3]) for i in range(0, size, 3))
    many = GOOD[:place] + chunk(b"tEXt", b"a\0IDAT") + parts + GOOD[END:] + b"more"
    expected = np.asarray(Image.open(io.BytesIO(GOOD)).convert("RGB"))
    for data in (GOOD, many, GOOD + bytes(20)):
        np.testing.assert_array_equal(decode_image(tf.constant(data)), expected)
    monkeypatch.setattr("cnnkit.data.png.MAX_PNG_CHUNKS", 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="too many chunks"):
        check_png_chunks(tf.constant(many))


@pytest.mark.parametrize("length", range(0, len(GOOD), 5))
def test_cut_files_are_refused(length):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(tf.constant(GOOD[:length]))
