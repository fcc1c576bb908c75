"""Broken, large and foreign image files are refused before a decoder runs."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnkit.data import animation as animation_module
from cnnkit.data import decode_image
from cnnkit.data.animation import first_gif_frame
from cnnkit.data.graph_checks import assert_or_invalid_argument, failed_check, fits
from cnnkit.export import ImageLimits
from cnnkit.export.image_header import FORMATS, validate_image_bytes
from cnnkit.export.invalid_inputs import TRUNCATED_FILES, large_png
from tests.helpers.graph_order import unordered_checks

LIMITS = ImageLimits(file_bytes=1 << 20, pixels=1_000_000)
ONE_FILE = [tf.TensorSpec((), tf.string)]


@pytest.fixture(scope="module")
def guarded():
    """A function that checks and decodes a file, as the signatures do."""
    return tf.function(
        lambda data: decode_image(validate_image_bytes(data, LIMITS)[0]),
        input_signature=ONE_FILE,
        autograph=False,
    )


def test_the_reason_of_a_check_is_told_apart_from_texts_of_tensorflow():
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        assert_or_invalid_argument(tf.constant(False), "the side is {}, at most {}", 3, 2)
    assert failed_check(caught.value) == "the side is 3, at most 2"
    assert failed_check(tf.errors.InvalidArgumentError(None, None, "Bad PNG [op]")) is None


@pytest.fixture(scope="module")
def guard():
    return tf.function(
        lambda data: validate_image_bytes(data, LIMITS), input_signature=ONE_FILE, autograph=False
    )


def encoded(kind, mode="RGB", size=(50, 30), **options):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


GOOD = {
    "jpeg": encoded("JPEG"),
    "progressive jpeg": encoded("JPEG", progressive=True),
    "gray jpeg": encoded("JPEG", "L"),
    "png": encoded("PNG"),
    "png with a palette": encoded("PNG", "P"),
    "gif": encoded("GIF"),
    "gif with a comment": encoded("GIF", comment=b"x" * 700),
    "bmp": encoded("BMP"),
    "lossy webp": encoded("WEBP"),
    "lossless webp": encoded("WEBP", lossless=True),
    "webp with alpha": encoded("WEBP", "RGBA", exif=b"Exif\0\0x"),
}


@pytest.mark.parametrize("name", GOOD)
def test_valid_images_pass_unchanged(guarded, name):
    image = guarded(tf.constant(GOOD[name]))
    np.testing.assert_array_equal(image, decode_image(tf.constant(GOOD[name])))
    assert image.shape == (30, 50, 3)


def refusal(function, data):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        function(tf.constant(data))
    text = caught.value.message
    # A byte of the file in the text would be a surrogate or a replacement character.
    assert text.encode().decode() == text
    assert "\ufffd" not in text
    return text


def as_png(height, width):
    return GOOD["png"][:16] + struct.pack(">II", width, height) + GOOD["png"][24:]


def as_jpeg(height, width):
    return GOOD["jpeg"].replace(struct.pack(">HH", 30, 50), struct.pack(">HH", height, width), 1)


def as_webp(kind, height, width):
    data = bytearray(GOOD[kind])
    if kind == "lossy webp":
        data[26:30] = struct.pack("<HH", width, height)
    elif kind == "lossless webp":
        data[21:25] = struct.pack("<I", width - 1 | (height - 1) << 14)
    else:
        data[24:30] = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return bytes(data)


def as_gif(screen=(30, 50), picture=(30, 50)):
    data = bytearray(GOOD["gif"])
    data[6:10] = struct.pack("<HH", *screen[::-1])
    place = data.index(b"," + struct.pack("<HHHH", 0, 0, 50, 30))
    data[place + 5 : place + 9] = struct.pack("<HH", *picture[::-1])
    return bytes(data)


def as_bmp(height, width):
    return GOOD["bmp"][:18] + struct.pack("<ii", width, height) + GOOD["bmp"][26:]


@pytest.mark.parametrize(
    ("data", "sides"),
    [
        (large_png(20_000, 20_000), "20000 x 20000"),
        (large_png(1, 65_536), "1 x 65536"),
        (as_png(2**32 - 1, 5), "4294967295 x 5"),
        (as_png(5, 0), "5 x 0"),
        (as_jpeg(20_000, 30_000), "20000 x 30000"),
        (as_gif(screen=(9_000, 8_000)), "9000 x 8000"),
        (as_gif(picture=(60_000, 50_000)), "60000 x 50000"),
        (as_bmp(20_000, 30_000), "20000 x 30000"),
        (as_bmp(-20_000, 30_000), "20000 x 30000"),
        (as_bmp(30, -50), "30 x -50"),
        (as_webp("lossy webp", 9_000, 16_000), "9000 x 16000"),
        (as_webp("lossless webp", 9_000, 16_000), "9000 x 16000"),
        (as_webp("webp with alpha", 9_000, 70_000), "9000 x 70000"),
    ],
)  # fmt: skip
def test_sides_are_read_before_anything_is_decoded(guard, data, sides):
    text = refusal(guard, data)
    most = "and may have 1 to 65535 on a side and 1000000 in all"
    assert f"[the image has {sides} pixels (height x width), {most}]" in text


def test_the_largest_image_and_one_pixel_more(guard, guarded):
    assert guard(tf.constant(as_png(1, 65_535)))[1] == 65_535
    assert guarded(tf.constant(large_png(1000, 1000))).shape == (1000, 1000, 3)
    refusal(guarded, large_png(1000, 1001))


def test_a_webp_canvas_of_another_size_is_refused(guarded):
    """The decoder refuses a WebP file whose frame is larger than its canvas."""
    assert refusal(guarded, as_webp("webp with alpha", 5, 5))


def test_a_file_is_checked_before_it_is_measured_or_decoded():
    assert unordered_checks(lambda data: validate_image_bytes(data, LIMITS), *ONE_FILE) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_a_short_header_is_refused(guard, kind):
    # A JPEG file has its size anywhere, so libjpeg searches it.
    text = "Invalid JPEG data" if kind == "JPEG" else "too few for its header of"
    assert text in refusal(guard, TRUNCATED_FILES[kind])


@pytest.mark.parametrize(
    ("name", "least"),
    [("jpeg", 4), ("png", 33), ("gif", 13), ("bmp", 26), ("lossy webp", 30)],
)
def test_the_shortest_header_of_each_format(guard, name, least):
    text = f"the file has {least - 1} bytes, too few for its header of {least}]"
    assert text in refusal(guard, GOOD[name][: least - 1])
    try:
        guard(tf.constant(GOOD[name][:least]))
    except tf.errors.InvalidArgumentError as error:
        assert "too few" not in error.message


@pytest.mark.parametrize("name", GOOD)
def test_truncated_files_are_refused_or_decoded_as_ever(guarded, name):
    data = GOOD[name]
    for length in (0, 1, 3, 8, 12, 20, 31, len(data) // 4, len(data) // 2):
        try:
            guarded(tf.constant(data[:length]))
        except tf.errors.InvalidArgumentError as error:
            assert "\ufffd" not in error.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        bytes(range(256)),
        b"\xff\x0a" + bytes(90),
        encoded("TIFF"),
        b"<svg></svg>" * 9,
        b"RIFF\x40\x00\x00\x00WAVEfmt " + bytes(90),
        b"JUNK\x40\x00\x00\x00WEBPVP8 " + bytes(90),
        b"\x89PNG\r\n\x1a\n" + bytes(90),
        bytes(12) + b"IHDR" + bytes(90),
    ],
    ids=["nothing", "a byte", "all bytes", "jpeg xl", "tiff", "svg", "wave", "junk", "png", "ihdr"],
)
def test_other_formats_are_refused(guard, data):
    assert "none of JPEG, PNG, GIF, BMP and WebP" in refusal(guard, data)


def test_files_of_too_many_bytes_are_refused(guard):
    largest = GOOD["png"].ljust(1 << 20, b"\0")
    assert guard(tf.constant(largest))[1] == 30 * 50
    assert "[the file has 1048577 bytes" in refusal(guard, largest + b"\0")
    text = refusal(guard, GOOD["png"] + bytes(1 << 20))
    assert f"[the file has {len(GOOD['png']) + (1 << 20)} bytes, and may have 1048576]" in text


@pytest.mark.parametrize(("place", "value"), [(30, 1), (30, 4), (28, 2), (28, 48), (14, 16)])
def test_bmp_files_of_an_unknown_kind_are_refused(guard, place, value):
    data = bytearray(GOOD["bmp"])
    data[place] = value
    assert "the BMP file is of an unsupported kind" in refusal(guard, bytes(data))


def animation(**options):
    random = np.random.default_rng(0)
    frames = [
        Image.fromarray(random.integers(0, 256, (30, 50, 3), np.uint8)).convert("P")
        for _ in range(4)
    ]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=50, **options)
    return file.getvalue()


def test_animations_are_cut_after_their_first_frame(guarded):
    data = animation(loop=0)
    cut, _, _, sides, _ = first_gif_frame(tf.constant(data))
    assert len(cut.numpy()) < len(data) / 3
    assert sides.numpy().tolist() == [30, 50]
    with Image.open(io.BytesIO(cut.numpy())) as image:
        assert image.n_frames == 1
    np.testing.assert_array_equal(guarded(tf.constant(data)), decode_image(tf.constant(data)))


def test_later_frames_are_never_decoded(guarded):
    """TensorFlow would allocate memory for every frame of the animation."""
    data = animation()
    first = first_gif_frame(tf.constant(data))[0].numpy()[:-1]
    bomb = first + b"," + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\x02\x01\x4c\x00;"
    np.testing.assert_array_equal(guarded(tf.constant(bomb)), decode_image(tf.constant(data)))


def test_a_gif_of_too_many_blocks_is_refused(guard, monkeypatch):
    monkeypatch.setattr(animation_module, "MAX_BLOCKS", 50)
    impatient = tf.function(
        lambda data: validate_image_bytes(data, LIMITS), input_signature=ONE_FILE, autograph=False
    )
    start = GOOD["gif"][:6] + struct.pack("<HH", 5, 5) + bytes(3)
    assert "no picture near its start" in refusal(impatient, start + b"!\xf9\x00" * 100)
    picture = start + b"," + struct.pack("<HHHHB", 0, 0, 5, 5, 0) + b"\x02"
    assert "too many blocks" in refusal(impatient, picture + b"\x01x" * 100 + b"\x00;")
    assert "is not whole" in refusal(impatient, picture + b"\xffx")


@settings(max_examples=150)
@given(
    name=st.sampled_from(sorted(GOOD)),
    changes=st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), max_size=4),
    cut=st.none() | st.integers(0, 400),
)
def test_changed_headers_are_answered_or_invalid(guarded, name, changes, cut):
    data = bytearray(GOOD[name])
    for place, value in changes:
        data[place] = value
    try:
        image = guarded(tf.constant(bytes(data[:cut])))
    except tf.errors.InvalidArgumentError as error:
        assert "\ufffd" not in error.message
    else:
        assert np.prod(image.shape[:2]) <= LIMITS.pixels


@settings(max_examples=150)
@given(beginning=st.sampled_from([b"", *TRUNCATED_FILES.values()]), rest=st.binary(max_size=300))
def test_random_bytes_are_invalid(guarded, beginning, rest):
    try:
        guarded(tf.constant(beginning + rest))
    except tf.errors.InvalidArgumentError as error:
        assert "\ufffd" not in error.message


@pytest.mark.parametrize(
    ("sides", "largest", "fit"),
    [
        ((65_535, 1), 65_535, True),
        ((1, 65_536), 1 << 20, False),
        ((20, 20), 400, True),
        ((20, 20), 399, False),
        ((0, 20), 400, False),
        ((65_535, 65_535), 1 << 33, True),
    ],
)
def test_sides_fit_up_to_their_limits(sides, largest, fit):
    assert bool(fits(tf.constant(sides), largest)) is fit
