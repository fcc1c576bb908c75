"""Augmentation against Pillow and NumPy, and against itself in other batches."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.decomposition import PCA

from cnnkit.data import (
    Augmentation,
    ColorComponents,
    PCAColorNoise,
    Split,
    batches,
    color_components,
    decode_image,
    load_dataset,
    mean_image,
    resize_shorter_side,
)
from cnnkit.data.augmentation import sample_augmentation
from cnnkit.data.crops import augment_image
from cnnkit.data.decode import augment_bytes
from cnnkit.data.pipeline import epoch_order
from cnnkit.errors import DataError, UsageError

# The colors of ImageNet as they are usually quoted: variances of pixels in 0..1.
QUOTED = np.array([0.2175, 0.0188, 0.0045])
USUAL = ColorComponents(
    tuple(QUOTED * 255**2),
    ((0.5675, 0.7192, 0.4009), (0.5808, -0.0045, -0.8140), (0.5836, -0.6948, 0.4203)),
)


def smooth(rng, height, width, grain=8):
    """Returns an image without sharp edges, (height, width, 3) uint8."""
    small = rng.integers(0, 256, (height // grain, width // grain, 3), np.uint8)
    small = Image.fromarray(small)
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def split_of(images, encode=None):
    labels = np.arange(len(images), dtype=np.int32)
    names = [str(i) for i in labels]
    if encode:
        table = tf.constant([encode(image) for image in images])
        return Split.from_files(labels, names, lambda i: table[i])
    table = tf.ragged.constant([image.tobytes() for image in images])
    sides = tf.constant([image.shape for image in images])
    return Split(
        labels, tuple(names), lambda i: tf.reshape(tf.io.decode_raw(table[i], tf.uint8), sides[i])
    )


def jpeg(image, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


def augmented(split, augmentation, **options):
    """Returns the images by index, whatever the order."""
    order = options.pop("order", np.arange(len(split)))
    found = {}
    for batch in batches(split, augmentation=augmentation, order=order, **options):
        rows = batch["weights"].numpy() == 1
        found |= dict(
            zip(batch["labels"][rows].numpy(), batch["images"][rows].numpy(), strict=True)
        )
    return found


def pillow(image, scale, top, left, size):
    """Rescales the shorter side with Pillow and cuts out."""
    height, width = image.shape[:2]
    ratio = scale / min(height, width)
    sides = max(scale, round(width * ratio)), max(scale, round(height * ratio))
    scaled = Image.fromarray(image).resize(sides, Image.Resampling.BILINEAR)
    return np.asarray(scaled, np.float32)[top : top + size, left : left + size]


@pytest.mark.parametrize("sides", [(120, 90), (75, 140), (64, 64), (40, 48)])
def test_random_crops_are_windows_of_the_rescaled_image(rng, sides):
    image = smooth(rng, *sides)
    options = Augmentation(48, scale=(64, 64), crop="random", flip=True)
    choices = sample_augmentation(options, 12, seed=3, epoch=2)
    shown = augmented(split_of([image] * 12), options, batch_size=4, seed=3, epoch=2)
    ratio = 64 / min(sides)
    play = np.array([max(64, round(side * ratio)) - 48 for side in sides])
    corners = set()
    for i in range(12):
        top, left = (choices["position"][i] * (play + 1)).astype(int)
        expected = pillow(image, 64, top, left, 48)
        expected = expected[:, ::-1] if choices["mirror"][i] else expected
        # Pillow rounds to whole levels, twice; enlarging, it also weighs a little differently.
        assert np.abs(shown[i] - expected).max() < 1.6
        corners.add((top, left))
    assert len(corners) > 6


def test_random_crops_reach_every_place_equally():
    options = Augmentation(8, scale=(10, 10), crop="random")
    position = sample_augmentation(options, 9000)["position"]
    counts = np.histogram2d(*(position * 3).astype(int).T, bins=(3, 3))[0]
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000 * 8 / 9)
    y, x = np.mgrid[0:10, 0:10].astype(np.float32)
    image = np.stack([y, x, y], -1)
    for place in ((0, 0), (0.999, 0), (0.4, 0.999)):
        crop = augment_image(
            tf.constant(image), options, {"position": tf.constant(place, tf.float64)}
        )
        np.testing.assert_allclose(crop[0, 0, :2], np.floor(np.array(place) * 3), atol=1e-5)


def test_jitter_draws_every_side_of_its_range():
    drawn = sample_augmentation(Augmentation(224, scale=(256, 512)), 20_000, seed=1)["scale"]
    assert (drawn.min(), drawn.max()) == (256, 512)
    counts = np.bincount(drawn - 256)
    assert len(counts) == 257
    assert np.abs(counts - 20_000 / 257).max() < 6 * np.sqrt(20_000 / 257)


def test_jitter_rescales_the_shorter_side(rng):
    image = smooth(rng, 96, 160)
    options = Augmentation(32, scale=(40, 90))
    sides = sample_augmentation(options, 6)["scale"]
    shown = augmented(split_of([image] * 6), options, batch_size=6)
    for i, side in enumerate(sides):
        width = max(side, round(160 * side / 96))
        expected = pillow(image, side, (side - 32) // 2, (width - 32) // 2, 32)
        assert np.abs(shown[i] - expected).max() < 1.6


@pytest.mark.parametrize("square", [False, True])
def test_the_ten_crops_are_the_ten(square):
    y, x = np.mgrid[0:32, 0:48]
    image = np.stack([y, x, np.zeros_like(x)], -1).astype(np.uint8)
    options = Augmentation(24, scale=(32, 32), crop="ten", central_square=square)
    shown = augmented(split_of([image] * 500), options, batch_size=100, seed=7)
    left, right = (8, 16) if square else (0, 24)
    tops_and_lefts = [(0, left), (0, right), (8, left), (8, right), (4, 12)]
    ten = [image[t : t + 24, f : f + 24].astype(np.float32) for t, f in tops_and_lefts]
    ten += [crop[:, ::-1] for crop in ten]
    counts = np.zeros(10, int)
    for crop in shown.values():
        [which] = [i for i, one in enumerate(ten) if np.abs(one - crop).max() < 1e-3]
        counts[which] += 1
    assert counts.sum() == 500
    assert counts.min() > 50 - 5 * np.sqrt(45)


def test_square_stays_inside_the_central_square():
    image = np.zeros((32, 96, 3), np.uint8)
    image[:, 32:64] = 200
    options = {"image_size": 24, "scale": (32, 32), "crop": "random"}
    split = split_of([image] * 50)
    inside = augmented(split, Augmentation(**options, central_square=True), batch_size=50)
    assert min(crop.min() for crop in inside.values()) == 200
    anywhere = augmented(split, Augmentation(**options), batch_size=50)
    assert min(crop.max() for crop in anywhere.values()) == 0


@pytest.mark.parametrize(
    ("mode", "expected"), [("std", (11.9, 3.5, 1.71)), ("eig01", (5.55, 0.48, 0.11))]
)
def test_color_noise_has_the_known_deviations(mode, expected):
    options = Augmentation(4, color=PCAColorNoise(USUAL, mode))
    shift = sample_augmentation(options, 200_000)["shift"]
    along = shift @ np.linalg.inv(np.array(USUAL.eigenvectors)).T
    np.testing.assert_allclose(along.std(axis=0), expected, rtol=0.01, atol=0.006)
    np.testing.assert_allclose(along.mean(axis=0), 0, atol=0.06)
    assert np.abs(np.corrcoef(along.T) - np.eye(3)).max() < 0.01


def test_color_noise_is_one_color_for_the_whole_image(rng):
    image = rng.integers(0, 256, (20, 30, 3), np.uint8)
    plain = Augmentation(16, scale=(20, 20), crop="random", flip=True)
    noisy = Augmentation(
        16, scale=(20, 20), crop="random", flip=True, color=PCAColorNoise(USUAL, deviation=0.5)
    )
    split = split_of([image] * 4)
    without, noise = (augmented(split, options, batch_size=4) for options in (plain, noisy))
    shift = sample_augmentation(noisy, 4)["shift"]
    for i in range(4):
        # The noise moves neither the crop nor the mirror, and nothing is clipped.
        np.testing.assert_allclose(noise[i] - without[i], np.broadcast_to(shift[i], (16, 16, 3)),
                                   atol=1e-4)  # fmt: skip
    assert min(image.min() for image in noise.values()) < 0


@pytest.mark.parametrize("encode", [None, jpeg], ids=["pixels", "jpeg"])
def test_an_image_is_augmented_the_same_in_any_batch(rng, encode):
    split = split_of([smooth(rng, 72 + 8 * i, 96) for i in range(12)], encode)
    options = Augmentation(32, scale=(36, 50), crop="random", flip=True, color=PCAColorNoise(USUAL))
    drawn = {"seed": 5, "epoch": 3}
    first = augmented(split, options, batch_size=12, **drawn)
    order = epoch_order(12, 1, 1)
    for again in (
        augmented(split, options, batch_size=5, replicas=2, order=order, **drawn),
        augmented(split, options, batch_size=1, order=order[::-1], **drawn),
        augmented(split, options, batch_size=4, first_step=2, **drawn),
    ):
        for i, image in again.items():
            np.testing.assert_array_equal(image, first[i])
    assert sorted(again) == [8, 9, 10, 11]
    for other in ({"seed": 6, "epoch": 3}, {"seed": 5, "epoch": 4}):
        changed = augmented(split, options, batch_size=12, **other)
        assert not any(np.array_equal(changed[i], first[i]) for i in first)


def test_choices_do_not_depend_on_the_number_of_images():
    options = Augmentation(8, scale=(9, 20), crop="ten", color=PCAColorNoise(USUAL))
    few, many = (sample_augmentation(options, count, seed=2, epoch=9) for count in (7, 1000))
    assert sorted(few) == ["mirror", "position", "scale", "shift"]
    for name, rows in few.items():
        np.testing.assert_array_equal(rows, many[name][:7])


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


def test_fit_is_the_center_of_the_augmentation(rng):
    image = smooth(rng, 72, 104)
    [shown] = augmented(split_of([image]), Augmentation(48), batch_size=1).values()
    np.testing.assert_array_equal(shown, resize_shorter_side(tf.constant(image), 48))


def test_mean_image(image_folder):
    split = load_dataset(f"folder:{image_folder}").splits["train"]
    images = [decode_image(split.load_bytes(tf.constant(i, tf.int64))) for i in range(len(split))]
    expected = np.mean(
        [resize_shorter_side(image, 16) for image in images], axis=0, dtype=np.float64
    )
    mean = mean_image(split, 16)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, expected, atol=1e-3)
    inner = np.mean(
        [resize_shorter_side(image, 20)[2:18, 2:18] for image in images], axis=0, dtype=np.float64
    )
    np.testing.assert_allclose(mean_image(split, 16, scale=20), inner, atol=1e-3)


def test_color_components_are_the_pca_of_the_pixels(rng):
    mixing = rng.normal(size=(3, 3)) * 20
    images = [
        np.clip(128 + rng.normal(size=(24, 24, 3)) @ mixing, 0, 255).astype(np.uint8)
        for _ in range(70)
    ]
    found = color_components(split_of(images), image_size=24)
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]).astype(float)
    pca = PCA().fit(pixels)
    covariance = np.cov(pixels.T, bias=True)
    np.testing.assert_allclose(found.eigenvalues, np.linalg.eigvalsh(covariance)[::-1], rtol=1e-6)
    vectors = np.array(found.eigenvectors)
    np.testing.assert_allclose(np.abs(vectors.T @ pca.components_.T), np.eye(3), atol=1e-6)
    assert all(column[np.argmax(np.abs(column))] > 0 for column in vectors.T)
    some = color_components(split_of(images), image_size=24, max_images=7)
    chosen = np.concatenate([image.reshape(-1, 3) for image in images[::10]]).astype(float)
    np.testing.assert_allclose(
        some.eigenvalues, np.linalg.eigvalsh(np.cov(chosen.T, bias=True))[::-1], rtol=1e-6
    )


def test_images_of_one_color_have_no_components():
    flat = split_of([np.full((8, 8, 3), 90, np.uint8)] * 3)
    with pytest.raises(
        DataError, match="only one color, so it has no components.*RGB .90.0, 90.0, 90.0."
    ):
        color_components(flat, image_size=8)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"image_size": 0}, "`image_size` must be positive. Expected: at least 1. Received: 0"),
        ({"image_size": 8, "crop": "centr"}, "Unknown crop 'centr'.*Did you mean center"),
        ({"image_size": 8, "crop": "ten", "flip": True}, "mirrored already"),
        ({"image_size": 8, "scale": (7, 9)}, "too small for the crop. Expected: at least 8"),
        (
            {"image_size": 8, "scale": (12, 9)},
            "`scale` must be an ascending range.*Received: .12, 9.",
        ),
    ],
)
def test_wrong_augmentation(fields, text):
    with pytest.raises(UsageError, match=text):
        Augmentation(**fields)


@pytest.mark.parametrize(
    ("fields", "text"),
    [({"mode": "eig"}, "Unknown mode of color noise 'eig'"), ({"deviation": -1}, "at least 0"),
     ({"deviation": float("nan")}, "at least 0")],
)  # fmt: skip
def test_wrong_color_noise(fields, text):
    with pytest.raises(UsageError, match=text):
        PCAColorNoise(USUAL, **fields)
