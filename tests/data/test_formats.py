"""Every format and kind of file against Pillow: the pixels of training, evaluation and exports."""

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.config import TrainingConfig
from cnnkit.data import Augmentation, Decoding, Split, batches, decode_image
from cnnkit.data.multi_crop import CropSpec, crop_batches
from cnnkit.errors import DataError, UsageError
from cnnkit.export import export
from tests.helpers.exported_network import LABELS, skip_output_check, small_alexnet
from tests.helpers.image_formats import FORMATS, ROUNDING, pillow_rgb

pytestmark = pytest.mark.usefixtures("unoptimized")

DECODINGS = {
    "default": Decoding(),
    "green, as stored": Decoding(background=(0, 200, 10), exif_orientation=False),
    "opacity ignored": Decoding(background=None),
}


def expected(name, decoding):
    image = pillow_rgb(FORMATS[name], decoding.background, decoding.exif_orientation).astype(int)
    if decoding.background is None and name == "GIF, small picture":
        # Pillow fills the rest with the transparent color. It has no color of its own: black.
        image = np.pad(image[9:57, 5:53], ((9, 7), (5, 11), (0, 0)))
    return image


def assert_pillow(name, image, decoding):
    difference = np.abs(np.asarray(image, int) - expected(name, decoding)).max()
    assert difference <= (ROUNDING if "lossy" in name else 0), name


@pytest.fixture(scope="module")
def split():
    files = list(FORMATS.values())
    table = tf.constant(files)
    return Split.from_files(np.zeros(len(files), np.int32), list(FORMATS), lambda i: table[i])


@pytest.mark.parametrize("decoding", DECODINGS)
def test_training_and_evaluation_see_what_pillow_shows(split, decoding):
    decoding = DECODINGS[decoding]
    split = split.decoded(decoding)
    for batch, name in zip(
        batches(split, augmentation=Augmentation(64), batch_size=1), FORMATS, strict=True
    ):
        assert_pillow(name, batch["images"][0], decoding)
    for (crop,), name in zip(
        crop_batches(split, [CropSpec(64, 64)], batch_size=1), FORMATS, strict=True
    ):
        assert_pillow(name, crop[0, 0], decoding)


@pytest.mark.parametrize("name", FORMATS)
def test_python_sees_what_pillow_shows(name):
    for decoding in DECODINGS.values():
        assert_pillow(name, decode_image(tf.constant(FORMATS[name]), decoding), decoding)


@pytest.mark.parametrize("pixels", [1, 100, 64 * 13])
def test_an_image_is_blended_some_rows_at_a_time(pixels, monkeypatch):
    monkeypatch.setattr("cnnkit.data.formats.BLENDED_PIXELS", pixels)
    for name in (name for name in FORMATS if name.startswith("PNG")):
        for decoding in DECODINGS.values():
            assert_pillow(name, decode_image(tf.constant(FORMATS[name]), decoding), decoding)


@pytest.mark.parametrize("decoding", ["default", "green, as stored"])
def test_exports_see_what_pillow_shows(tmp_path, decoding, monkeypatch):
    skip_output_check(monkeypatch)
    decoding = DECODINGS[decoding]
    model = small_alexnet()
    folder = export(
        model, LABELS, tmp_path / "net", signatures=["classify_bytes", "explain_bytes"],
        decoding=decoding, warmup=0,
    )  # fmt: skip
    loaded = tf.saved_model.load(str(folder))
    files = tf.constant(list(FORMATS.values()))
    images = loaded.signatures["explain_bytes"](image_bytes=files)["image"]
    for name, image in zip(FORMATS, images, strict=True):
        assert_pillow(name, image, decoding)
    # Exactly the pixels of Python, so the same answers.
    decoded = np.stack([decode_image(data, decoding) for data in files]).astype("float32")
    np.testing.assert_array_equal(images, decoded)
    answers = loaded.signatures["classify_bytes"](image_bytes=files)["scores"][:, 0]
    np.testing.assert_allclose(
        answers, model(decoded, training=False).numpy().max(axis=1), atol=1e-5
    )


@pytest.mark.parametrize("background", [(1, 2), (0, 0, 256), "white", [0, 0, 0]])
def test_the_background_is_a_color(background):
    with pytest.raises(UsageError, match="`background` must be None or three integers"):
        Decoding(background=background)


@pytest.mark.parametrize("background", [[0, 0, 256], [0, 0], [0, 0, -1], "white", 7])
def test_a_stored_background_is_a_color(background):
    stored = {"background": background, "exif_orientation": True}
    with pytest.raises(DataError, match="background"):
        Decoding.from_dict(stored, "run.json")
    color = {"background": [0, 0, 255], "exif_orientation": False}
    assert Decoding.from_dict(color).to_dict() == color


def test_the_configuration_names_the_background():
    config = TrainingConfig(background="#0a0B00", exif_orientation=False)
    assert Decoding.from_config(config) == Decoding((10, 11, 0), exif_orientation=False)
    assert Decoding.from_config(TrainingConfig(background="none")).background is None
    assert Decoding.from_config(TrainingConfig()) == Decoding()
    with pytest.raises(UsageError, match="`background` must be white, black, none"):
        TrainingConfig(background="blue")
