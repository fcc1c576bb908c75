"""Image files: which are read, which are left out, and names that are not UTF-8."""

import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cnnkit.data import check_dataset, load_dataset
from cnnkit.data.sources.image_files import find_readable
from cnnkit.errors import DataError
from tests.helpers.images import encoded, load_file, noise_jpeg, png, write_files

pytestmark = pytest.mark.usefixtures("unoptimized")

CLASSES = ("a", "b")


@pytest.fixture
def hundreds(tmp_path):
    """Two classes of a hundred images."""
    return write_files(tmp_path, [f"{c}/{i}.png" for c in CLASSES for i in range(100)], png())


def torn():
    data = encoded(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), "PNG")
    return data[: len(data) // 2]


def test_a_few_files_that_are_no_images_are_left_out(hundreds):
    (hundreds / "a" / "torn.jpg").write_text("no image")
    (hundreds / "b" / "torn.png").write_bytes(torn())
    source = load_dataset(f"folder:{hundreds}")
    assert source.unreadable == ("a/torn.jpg", "b/torn.png")
    assert sum(len(split) for split in source.splits.values()) == 200

    (hundreds / "b" / "gone.png").symlink_to(hundreds / "gone.png")
    with pytest.raises(
        DataError,
        match=r"3 of 203 files .*not images.*at most 1%.*: a/torn.jpg, b/gone.png, b/torn.png\. R",
    ):
        load_dataset(f"folder:{hundreds}")


def test_too_large_files_are_left_out_unread(hundreds, monkeypatch):
    monkeypatch.setenv("CNNKIT_MAX_IMAGE_PIXELS", "100")
    for name, head in (("a/empty.jpg", b""), ("b/marks.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0")):
        with (hundreds / name).open("wb") as file:
            file.write(head)
            file.truncate(10 << 30)
            file.seek(-2, os.SEEK_END)
            file.write(b"\xff\xd9")
    (hundreds / "b" / "archive.zip").symlink_to(hundreds / "a" / "empty.jpg")
    reason = "too large (the environment variable `CNNKIT_MAX_IMAGE_PIXELS` allows more)"
    source = load_dataset(f"folder:{hundreds}")
    assert source.left_out == {
        reason: ("a/empty.jpg", "b/marks.jpg"),
        "of other types": ("b/archive.zip",),
    }
    (hundreds / "a" / "sides.png").write_bytes(png(side=11))
    message = (
        "3 of 203 files in .* too large or not.*at most 100 pixels.*a/sides.*CNNKIT_MAX_IMAGE_PIX"
    )
    with pytest.raises(DataError, match=message):
        load_dataset(f"folder:{hundreds}")
    report = check_dataset(load_dataset(f"folder:{hundreds}", max_unreadable=1.0))
    assert report.left_out[reason] == ("a/empty.jpg", "a/sides.png", "b/marks.jpg")
    # The limit of one check is not that of a later one.
    monkeypatch.delenv("CNNKIT_MAX_IMAGE_PIXELS")
    report = check_dataset(load_dataset(f"folder:{hundreds}", max_unreadable=1.0))
    assert report.left_out[reason] == ("a/empty.jpg", "b/marks.jpg")
    assert not any(split.unreadable for split in report.splits.values())


def test_files_of_other_types_are_no_broken_images(hundreds):
    write_files(hundreds, [f"a/{i}.xml" for i in range(30)], b"<annotation/>")
    source = load_dataset(f"folder:{hundreds}")
    assert source.unreadable == ()
    assert len(source.left_out["of other types"]) == 30


def test_broken_links_are_counted(tmp_path):
    write_files(tmp_path / "there", [f"{i}.png" for i in range(2)])
    for c in CLASSES:
        (tmp_path / "set" / c).mkdir(parents=True)
        for i in range(5):
            (tmp_path / "set" / c / f"{i}.png").symlink_to(tmp_path / "there" / f"{i}.png")
    with pytest.raises(
        DataError, match="6 of 10 files .* Received: a/2.png, a/3.png, a/4.png and 3"
    ):
        load_dataset(f"folder:{tmp_path / 'set'}")
    # As many as may be unreadable.
    source = load_dataset(f"folder:{tmp_path / 'set'}", max_unreadable=0.6)
    assert source.left_out == {
        "behind broken links": tuple(f"{c}/{i}.png" for c in CLASSES for i in (2, 3, 4))
    }


def test_only_files_that_are_not_whole_jpegs_are_decoded(tmp_path):
    whole = noise_jpeg(100)
    contents = {
        "whole": whole,
        "torn": whole[: len(whole) // 2],
        "padded": whole + b"\0\0\0",
        "text": b"no image",
        "empty": b"",
        "png": tf.io.encode_png(np.zeros((3, 3, 3), np.uint8)).numpy(),
        # Not noticed here, but by `check`.
        "ends": whole[:20] + b"\xff\xd9",
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    good, too_large = find_readable([str(tmp_path / name) for name in [*contents, "none"]])
    assert dict(zip([*contents, "none"], good.tolist(), strict=True)) == {
        "whole": True, "torn": False, "padded": True, "text": False, "empty": False, "png": True,
        "ends": True, "none": False,
    }  # fmt: skip
    assert not too_large.any()


def test_names_that_are_not_utf8_are_read_and_shown(tmp_path):
    root = tmp_path / "\u732b"
    write_files(root, [f"{c}/{i}.png" for c in CLASSES for i in range(4)])
    strange = [b"a/caf\xe9.png", b"a/\xff\xfe/deep.jpg", b"b/caf\xe9.png"]
    for number, name in enumerate(strange):
        file = root / os.fsdecode(name)
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (5, 7), (200, 100, 50 + number)).save(file, "PNG")
    source = load_dataset(f"folder:{root}")
    shown = {r"a/caf\xe9.png": 50, r"a/\xff\xfe/deep.jpg": 51, r"b/caf\xe9.png": 52}
    found = {}
    for split in source.splits.values():
        for index, name in enumerate(split.names):
            if name in shown:
                image = split.load_image(tf.constant(index, tf.int64)).numpy()
                assert image.shape == (7, 5, 3)
                found[name] = image[0, 0, 2]
                assert load_file(split, index).startswith(b"\x89PNG")
    assert found == shown
    assert check_dataset(source).splits["train"].unreadable == ()

    (root / os.fsdecode(b"caf\xe9")).mkdir()
    with pytest.raises(
        DataError, match=r"The name of a class folder .* must be UTF-8.*caf.*Rename"
    ):
        load_dataset(f"folder:{root}")
