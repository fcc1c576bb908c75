"""Decoding against Pillow, and windows of files against the whole files."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cnnkit.data import Augmentation, decode_image, resize_shorter_side
from cnnkit.data.augmentation import sample_augmentation
from cnnkit.data.crops import augment_image
from cnnkit.data.decode import augment_bytes, file_window_reader
from tests.helpers.graph_order import unordered_checks
from tests.helpers.image_formats import FORMATS, ROUNDING, pillow_rgb, turned_jpeg
from tests.helpers.images import augmented, encoded, jpeg, smooth, split_of


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(kind, mode) for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP") for mode in ("RGB", "L")]
    + [(kind, "RGBA") for kind in ("PNG", "BMP", "WEBP")],
)
def test_decodes_what_pillow_wrote(kind, mode):
    y, x = np.mgrid[0:40, 0:30]
    rgb = np.stack([x * 4, y * 4, (x + y) * 2], -1).astype(np.uint8)
    data = encoded(rgb, kind, mode)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float)
    image = decode_image(tf.constant(data)).numpy()
    assert image.dtype == np.uint8
    # Lossless formats are equal; two JPEG or WebP decoders differ by rounding.
    tolerance = 0 if kind in ("PNG", "BMP", "GIF") else 8
    assert np.abs(image - expected).max() <= tolerance


def test_no_image_is_an_error():
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(tf.constant(b"no image"))


@pytest.mark.parametrize("name", FORMATS)
def test_images_of_too_many_pixels_are_not_decoded(name, monkeypatch):
    monkeypatch.setenv("CNNKIT_MAX_IMAGE_PIXELS", str(64 * 64 - 1))
    data = tf.constant(FORMATS[name])
    with pytest.raises(tf.errors.InvalidArgumentError, match="the image has 64 x 64 pixels"):
        decode_image(data)
    # The limit of an exported network is its own.
    assert decode_image(data, max_pixels=64 * 64).shape == (64, 64, 3)


def test_every_reader_of_files_has_the_limit(monkeypatch):
    monkeypatch.setenv("CNNKIT_MAX_IMAGE_PIXELS", "100")
    for kind in ("PNG", "JPEG"):
        data = tf.constant(encoded(np.zeros((20, 20, 3), np.uint8), kind))
        with pytest.raises(tf.errors.InvalidArgumentError, match="20 x 20 pixels"):
            augment_bytes(data, Augmentation(8), {})
        with pytest.raises(tf.errors.InvalidArgumentError, match="20 x 20 pixels"):
            file_window_reader(data)


@pytest.mark.parametrize("portable", [False, True])
def test_no_file_is_decoded_beside_a_check_of_it(portable):
    def decode(data):
        return augment_bytes(data, Augmentation(8), {}, portable=portable)

    assert unordered_checks(decode, tf.TensorSpec((), tf.string)) == []


def test_resize_shorter_side_crops_the_center():
    image = np.zeros((50, 100, 3), np.uint8)
    image[:, 25:75] = 200
    np.testing.assert_allclose(
        resize_shorter_side(tf.constant(image), 50), np.full((50, 50, 3), 200.0)
    )
    tall = resize_shorter_side(tf.constant(image.transpose(1, 0, 2)), 25).numpy()
    assert tall.shape == (25, 25, 3)
    assert tall[2:-2].min() == pytest.approx(200, abs=0.01)


def test_resize_shorter_side_equals_pillow_when_it_shrinks(rng):
    image = rng.integers(0, 256, (90, 60, 3), np.uint8)
    ours = resize_shorter_side(tf.constant(image), 20).numpy()
    theirs = np.asarray(Image.fromarray(image).resize((20, 30), Image.Resampling.BILINEAR), float)
    assert np.abs(ours - theirs[5:25]).max() < 1.0


def test_resize_shorter_side_is_the_augmentation_without_randomness(rng):
    image = smooth(rng, 72, 104)
    [shown] = augmented(split_of([image]), Augmentation(48), batch_size=1).values()
    np.testing.assert_array_equal(shown, resize_shorter_side(tf.constant(image), 48))


FILES = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"subsampling": 2, "progressive": True},
    "gray": {"gray": True},
}


@pytest.mark.parametrize("kind", FILES)
def test_a_window_of_a_file_has_the_pixels_of_the_whole(rng, kind):
    options = dict(FILES[kind])
    image = smooth(rng, 152, 208)[:147, :203]
    image = image[..., 0] if options.pop("gray", False) else image
    data = tf.constant(jpeg(image, **options))
    whole = decode_image(data)
    for scale, size in ((147, 100), (64, 40), (200, 96)):
        how = Augmentation(size, scale=(scale, scale), crop="random", flip=True)
        for row in range(6):
            choices = {
                name: tf.constant(rows[row]) for name, rows in sample_augmentation(how, 6).items()
            }
            # Equal pixels; the filter's weights are rounded elsewhere.
            difference = augment_bytes(data, how, choices) - augment_image(whole, how, choices)
            assert np.abs(difference).max() < 0.02


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fast", [False, True])
def test_windows_of_a_turned_file_are_those_of_the_upright_image(rng, orientation, fast):
    image = smooth(rng, 168, 216, grain=24)[:147, :203]
    data = tf.constant(turned_jpeg(orientation, image=image))
    whole = decode_image(data)
    difference = np.abs(whole.numpy().astype(int) - pillow_rgb(data.numpy()))
    assert difference.max() <= ROUNDING
    how = Augmentation(40, scale=(64, 64), crop="random", flip=True, fast_decode=fast)
    choices = sample_augmentation(how, 6)
    for row in range(6):
        of_row = {name: tf.constant(rows[row]) for name, rows in choices.items()}
        turned = augment_bytes(data, how, of_row)
        expected = augment_image(whole, how, of_row)
        assert np.abs(turned - expected).mean() < (8 if fast else 0.02)


@pytest.mark.parametrize("sides", [(147, 203), (600, 410)])
def test_fast_decode_is_nearly_the_same(rng, sides):
    image = smooth(rng, *sides, grain=max(sides) // 6)
    options = {"image_size": 56, "scale": (64, 64), "crop": "random", "flip": True}
    for encode in (jpeg, lambda image: tf.io.encode_png(image).numpy()):
        split = split_of([image] * 6, encode)
        exact = augmented(split, Augmentation(**options), batch_size=6)
        fast = augmented(split, Augmentation(**options, fast_decode=True), batch_size=6)
        for i in exact:
            assert 0 < np.abs(exact[i] - fast[i]).mean() < 3
