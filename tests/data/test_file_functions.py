"""Checks of image files before they are decoded."""

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.data import Decoding, decode_image, file_functions
from cnnkit.data.decode import traced_decode_image
from tests.helpers.image_formats import FORMATS, turned_jpeg
from tests.helpers.images import jpeg

pytestmark = pytest.mark.usefixtures("unoptimized")


def test_a_jpeg_file_of_many_scans_is_not_decoded():
    """Each scan is as much work as the whole image: 300 kB took 43 seconds."""
    data = jpeg(np.zeros((64, 64, 3), np.uint8), progressive=True)
    scans = data.count(b"\xff\xda")
    empty = b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x10"
    assert decode_image(tf.constant(data[:-2] + empty * (40 - scans) + data[-2:])).shape[0] == 64
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than 40 scans"):
        decode_image(tf.constant(data[:-2] + empty * (41 - scans) + data[-2:]))


def test_the_orientation_is_found_behind_a_thumbnail():
    """The first start of a scan is in the segment before the EXIF data."""
    thumbnail = b"\xff\xec\x00\x20" + b"\xff\xda" * 15
    assert thumbnail in (data := turned_jpeg(6, before=thumbnail))
    np.testing.assert_array_equal(decode_image(data), decode_image(turned_jpeg(6)))


def test_what_runs_eagerly_is_never_called_by_python(monkeypatch):
    """TensorFlow's thread that calls Python waits for another one, and one core has no other."""
    called = []
    call = tf.numpy_function

    def count(*given, **options):
        called.append(given)
        return call(*given, **options)

    monkeypatch.setattr(tf, "numpy_function", count)
    file_functions._trace.cache_clear()
    decoding = Decoding(background=(1, 2, 3))
    for data in (*FORMATS.values(), turned_jpeg(6)):
        decode_image(data, decoding)
        traced_decode_image(tf.constant(data), decoding)
    assert called == []
    # A pipeline has threads of its own.
    files = tf.data.Dataset.from_tensors(turned_jpeg(6))
    files.map(lambda data: traced_decode_image(data, decoding))
    assert called
