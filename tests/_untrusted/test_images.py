"""The size of images by their headers, against Pillow, and the limits."""

import io
import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnkit._untrusted.images import (
    ENVIRONMENT_VARIABLE,
    check_image_file,
    is_too_large,
    max_image_bytes,
    max_image_pixels,
    read_image_sides,
    sides_in_head,
)
from cnnkit._untrusted.limits import MAX_IMAGE_PIXELS
from cnnkit.errors import DataError, UsageError
from tests.helpers.image_formats import FORMATS, segment
from tests.helpers.images import png


@pytest.mark.parametrize("name", FORMATS)
def test_the_sides_are_those_of_pillow(name):
    with Image.open(io.BytesIO(FORMATS[name])) as image:
        assert read_image_sides(io.BytesIO(FORMATS[name])) == (image.height, image.width)


def test_the_scale_of_a_lossy_webp_file_is_no_part_of_its_sides():
    file = io.BytesIO()
    Image.new("RGB", (50, 30)).save(file, "WEBP")
    data = bytearray(file.getvalue())
    # Two bits above the fourteen of each side ask a viewer to enlarge the image.
    data[26:30] = struct.pack("<HH", 50 | 1 << 14, 30 | 3 << 14)
    assert read_image_sides(io.BytesIO(data)) == (30, 50)


def test_segments_before_the_size_of_a_jpeg_file_are_skipped():
    file = io.BytesIO()
    Image.new("RGB", (50, 30)).save(file, "JPEG")
    data = file.getvalue()
    long = data[:2] + segment(0xE2, bytes(65_000)) * 20 + b"\xff\xff\x01" + data[2:]
    assert read_image_sides(io.BytesIO(long)) == read_image_sides(io.BytesIO(data))
    endless = data[:2] + b"\xff\xe5\0\2" * 5000 + data[2:]
    assert read_image_sides(io.BytesIO(endless)) is None
    # The size is in the last one of a thousand segments, each behind a mark without a length.
    before = data.index(b"\xff\xc0")
    for count, sides in ((499, (30, 50)), (500, None)):
        many = data[:2] + b"\xff\xe5\0\2\xff\x01" * count + b"\xff\x01" + data[before:]
        assert read_image_sides(io.BytesIO(many)) == sides


@pytest.mark.parametrize("mark", [0xD9, 0xDA, 0xC4])
def test_the_size_of_a_jpeg_file_is_in_its_head(mark):
    """Behind the end, or in a scan, there is none; tables of Huffman codes are no size."""
    data = b"\xff\xd8\xff" + bytes([mark]) + b"\0\x09" + struct.pack(">BHH", 8, 30, 50) + bytes(9)
    assert read_image_sides(io.BytesIO(data[:2] + data[2:])) is None
    data = data.replace(b"\xff" + bytes([mark]), b"\xff\xc2", 1)
    assert read_image_sides(io.BytesIO(data)) == (30, 50)


def test_a_head_that_is_too_short_has_no_size():
    data = png(side=20)
    assert read_image_sides(io.BytesIO(data[:30])) == (20, 20)
    assert read_image_sides(io.BytesIO(data[:29])) is None
    assert sides_in_head(data[:29]) == (20, 20)
    assert sides_in_head(data[:28]) is sides_in_head(b"BM") is sides_in_head(b"GIF89a") is None
    assert sides_in_head(b"RIFF....WEBPVP8?" + bytes(20)) is None


@pytest.mark.parametrize("head", [b"", b"\xff\xd8\xff\xe0\0\x10JFIF\0"], ids=["none", "JPEG"])
def test_a_sparse_file_of_10_gb_is_refused_by_its_size(tmp_path, head):
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.write(head)
        file.truncate(10 << 30)
    expected = (
        r"sparse.jpg is too large.*50,000,000 pixels.*10,737,418,240 bytes.*CNNKIT_MAX_IMAGE_PIX"
    )
    with pytest.raises(DataError, match=expected):
        check_image_file(path)


def test_the_largest_image_and_one_pixel_more(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(png(side=20))
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "400")
    check_image_file(path)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "399")
    with pytest.raises(DataError, match="a.png is too large.* 20 x 20 pixels"):
        check_image_file(path)


def test_the_largest_file_and_one_byte_more(tmp_path):
    path = tmp_path / "a"
    for size, large in ((max_image_bytes(), False), (max_image_bytes() + 1, True)):
        path.write_bytes(b"")
        os.truncate(path, size)
        with path.open("rb") as file:
            assert is_too_large(file) is large


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match="regular file"):
        check_image_file(tmp_path / "a.png")


def test_the_environment_sets_the_limit(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    assert (max_image_pixels(), max_image_bytes()) == (MAX_IMAGE_PIXELS, 4 * MAX_IMAGE_PIXELS)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "200000000")
    assert (max_image_pixels(), max_image_bytes()) == (200_000_000, 800_000_000)


@pytest.mark.parametrize("value", ["1", "9999999999"])
def test_the_smallest_and_the_largest_limit(value, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, value)
    assert max_image_pixels() == int(value)
    assert max_image_bytes() == max(64 << 20, 4 * int(value))


@pytest.mark.parametrize("value", ["", "0", "-1", "1e9", "many", "9" * 11, "\u0665"])
def test_a_limit_that_is_no_number_is_refused(value, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, value)
    with pytest.raises(UsageError, match="must be a number of pixels"):
        max_image_pixels()


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(FORMATS)),
    changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
    cut=st.none() | st.integers(0, 200),
)
def test_changed_headers_have_sides_or_none(name, changes, cut):
    data = bytearray(FORMATS[name])
    for place, value in changes:
        data[place % len(data)] = value
    sides = read_image_sides(io.BytesIO(bytes(data[:cut])))
    assert sides is None or min(sides) >= 0


def test_sides_of_bmp_headers():
    info = struct.pack("<IiiHHIIiiII", 40, -30_000, -(2**31), 1, 24, 0, 0, 0, 0, 0, 0)
    header = b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info
    assert read_image_sides(io.BytesIO(header)) == (2**31, 30_000)
