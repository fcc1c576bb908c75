"""PASCAL VOC: the layout of its folders, and damaged ones."""

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.data import load_dataset
from cnnkit.data.sources.voc import load_voc
from cnnkit.errors import DataError, UsageError
from tests.helpers.voc_folder import CLASSES, write_voc_folder

pytestmark = pytest.mark.usefixtures("unoptimized")


@pytest.fixture(scope="module")
def voc_folder(tmp_path_factory):
    return write_voc_folder(tmp_path_factory.mktemp("VOC2007"))


def test_the_layout(voc_folder):
    voc = load_voc(voc_folder)
    assert voc.class_names == CLASSES
    assert list(voc.splits) == ["trainval", "test"]
    assert voc.voc_labels["test"].shape == (30, 3)
    text = (voc_folder / "ImageSets" / "Main" / "car_test.txt").read_text().split()
    assert voc.splits["test"].names == tuple(text[::2])
    assert voc.voc_labels["test"][:, 1].tolist() == [int(word) for word in text[1::2]]
    image = voc.splits["test"].load_image(tf.constant(3, tf.int64)).numpy()
    file = tf.io.read_file(str(voc_folder / "JPEGImages" / f"{text[6]}.jpg"))
    np.testing.assert_array_equal(image, tf.io.decode_jpeg(file).numpy())
    with pytest.raises(UsageError, match="several classes per image.*cnnkit transfer"):
        load_dataset(f"voc:{voc_folder}")


def test_too_large_images_are_refused(voc_folder, monkeypatch):
    monkeypatch.setenv("CNNKIT_MAX_IMAGE_PIXELS", "15")
    with pytest.raises(DataError, match="JPEGImages/.* is too large.*at most 15 pixels"):
        load_voc(voc_folder)


def test_torn_layouts(voc_folder, tmp_path):
    with pytest.raises(UsageError, match="No folder"):
        load_voc(tmp_path / "none")
    with pytest.raises(DataError, match="is not a folder of PASCAL VOC"):
        load_voc(tmp_path)
    main = tmp_path / "ImageSets" / "Main"
    main.mkdir(parents=True)
    (tmp_path / "JPEGImages").symlink_to(voc_folder / "JPEGImages")
    good = {file.name: file.read_text() for file in (voc_folder / "ImageSets" / "Main").iterdir()}
    for name, text, message in [
        ("car_test.txt", None, "none for car"),
        ("car_test.txt", good["car_test.txt"].replace("000041", "000001"), "other images"),
        ("car_test.txt", good["car_test.txt"] + "000041 2\n", "Line 31 .* -1, 0 or 1"),
        ("car_test.txt", good["car_test.txt"] + "000041 1\n", "Line 31 .* once"),
        (None, None, None),
    ]:
        for file, whole in good.items():
            (main / file).write_text(whole)
        if name is None:
            continue
        (main / name).unlink() if text is None else (main / name).write_text(text)
        with pytest.raises(DataError, match=message):
            load_voc(tmp_path)
    for file in good:
        (main / file).write_text("\n")
    with pytest.raises(DataError, match="No images in .*trainval.txt"):
        load_voc(tmp_path)
    for file, whole in good.items():
        (main / file).write_text(whole)
    whole = load_voc(tmp_path)
    text = good["car_test.txt"]
    for encoded in (text.encode("utf-8-sig"), f"{text}\n\n".replace("\n", "\r\n").encode("utf-16")):
        (main / "car_test.txt").write_bytes(encoded)
        assert load_voc(tmp_path).fingerprint == whole.fingerprint
    (tmp_path / "JPEGImages").unlink()
    with pytest.raises(DataError, match="No image .*000000.jpg"):
        load_voc(tmp_path)
