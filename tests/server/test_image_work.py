"""The work of decoding images is estimated before they are decoded."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cnnkit.export.invalid_inputs import large_png
from cnnkit.server.image_work import decoding_work
from tests.helpers.held_server import error_of, probabilities_of, send, served


def encoded(kind, mode="RGB", **options):
    file = io.BytesIO()
    pixels = np.zeros(
        (40, 50) if mode == "I;16" else (40, 50, 3), np.uint16 if mode == "I;16" else np.uint8
    )
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def interlaced():
    """Returns a PNG file that Pillow, which writes none, reads: 1 x 1, interlaced."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 1)
    rest = chunk(b"IDAT", zlib.compress(bytes(2))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rest


@pytest.mark.parametrize(
    ("kind", "options", "times"),
    [
        ("JPEG", {}, 1),
        ("JPEG", {"progressive": True}, 10),
        ("PNG", {}, 6),
        ("PNG", {"mode": "I;16"}, 20),
        ("GIF", {}, 10),
        ("BMP", {}, 4),
        ("WebP", {}, 6),
        ("WebP", {"lossless": True}, 6),
    ],
)
def test_a_pixel_counts_by_its_format(kind, options, times):
    assert decoding_work([encoded(kind, **options)] * 3) == 3 * 40 * 50 * times


def test_scans_and_interlacing_count():
    file = encoded("JPEG", progressive=True)
    last = file[file.rfind(b"\xff\xda") : -2]
    assert decoding_work([file[:-2] + 1000 * last + file[-2:]]) == 40 * 50 * 1010
    assert decoding_work([interlaced()]) == 10


def test_a_size_behind_too_many_segments_counts_as_the_largest():
    file = encoded("JPEG")
    for count, work in [(9_000, 40 * 50), (10_001, 65_535**2)]:
        assert decoding_work([file[:2] + b"\xff\xe0\0\x02" * count + file[2:]]) == work
    # Bytes between segments are skipped, as by libjpeg.
    assert decoding_work([file[:2] + b"junk\xff\xff" + file[2:]]) == 40 * 50


def jpeg(*segments):
    """Returns a JPEG file of 2 x 3 pixels behind some segments, up to the width."""
    return b"\xff\xd8" + b"".join(segments) + b"\xff\xc0\0\x11\x08\0\x02\0\x03"


@pytest.mark.parametrize(
    ("file", "work"),
    [
        (jpeg(), 6),
        # Cut in the width.
        (jpeg()[:-1], 0),
        # A comment of three bytes, one that holds a size, and markers without a length.
        (jpeg(b"\xff\xfe\0\x05abc"), 6),
        (jpeg(b"\xff\xfe\0\x0b" + jpeg()[2:]), 6),
        (jpeg(b"\xff\x01", b"\xff\0", b"\xff\xd0"), 6),
        # The image begins, or ends, before its size.
        (jpeg(b"\xff\xda\0\x02"), 0),
        (jpeg(b"\xff\xd9"), 0),
        (jpeg(*[b"\xff\xe0\0\x02"] * 9_999), 6),
        (jpeg(*[b"\xff\xe0\0\x02"] * 10_000), 65_535**2),
        (b"no image", 0),
        (b"", 0),
    ],
)
def test_the_size_in_a_jpeg_file(file, work):
    assert decoding_work([file]) == work


def test_damaged_files_count_nothing_or_something():
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WebP"):
        file = encoded(kind)
        for length in range(0, min(len(file), 200)):
            assert decoding_work([file[:length]]) >= 0


def test_a_request_of_too_many_pixels_is_refused_before_the_graph_runs(colors_folder, png, gate):
    """64 files of 44 kB kept a server busy for 38 s."""
    files = [large_png(5000, 4000)] * 9
    assert sum(map(len, files)) < 100_000
    gate.open.set()
    with served(colors_folder, gate) as (_, channel):
        code, text = error_of(send(channel, files, "serving_bytes"))
        assert code == "INVALID_ARGUMENT"
        assert "have 1080000000 pixels" in text and "may have 1000000000" in text
        assert not gate.shapes
        assert probabilities_of(send(channel, [png(1, 2, 3)], "serving_bytes")).shape == (1, 4)
