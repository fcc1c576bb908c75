"""Lengths of records are checked before they are read."""

import os
import struct

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit._untrusted.images import max_image_bytes
from cnnkit._untrusted.record_lengths import check_record_lengths, masked_crc
from cnnkit.errors import CnnkitError, DataError
from tests.helpers.damage import damaged


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "x.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for data in (b"first", b"", b"a" * 300):
            writer.write(data)
    return path.read_bytes()


def stating(length):
    head = struct.pack("<Q", length)
    return head + struct.pack("<I", masked_crc(head))


def test_records_of_tensorflow_pass(whole, tmp_path):
    (tmp_path / "x").write_bytes(whole)
    check_record_lengths(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"")
    check_record_lengths(tmp_path / "x")


@pytest.mark.parametrize("data", [
    stating(1 << 62), stating(2**64 - 1), stating(10**10) + bytes(100), bytes(100), b"short",
    stating(4) + b"abcd", stating(4)[:8] + b"0123" + b"abcd" + bytes(4),
])  # fmt: skip
def test_lies_are_refused_before_they_are_read(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(DataError, match="x is damaged or incomplete.*whole records"):
        check_record_lengths(tmp_path / "x")


def test_a_record_is_as_large_as_an_image_at_most(tmp_path):
    """The file has holes, so that its size costs nothing."""
    for size in (max_image_bytes(), max_image_bytes() + 1):
        with (tmp_path / "x").open("wb") as file:
            file.write(stating(size))
            file.truncate(size + 16)
        if size == max_image_bytes():
            check_record_lengths(tmp_path / "x")
    with pytest.raises(DataError, match="record that is too large.*`CNNKIT_MAX_IMAGE_PIXELS`"):
        check_record_lengths(tmp_path / "x")


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "x")
    with pytest.raises(DataError, match="must be a regular file"):
        check_record_lengths(tmp_path / "x")


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_damaged_files_are_accepted_or_refused(whole, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.tfrecord"
    path.write_bytes(data.draw(damaged(whole)))
    try:
        check_record_lengths(path)
    except CnnkitError as error:
        assert "\n" not in str(error)
