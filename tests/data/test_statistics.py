"""Mean color, mean image and color components against NumPy and scikit-learn."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.decomposition import PCA

from cnnkit.data import (
    color_components,
    decode_image,
    load_dataset,
    mean_color,
    mean_image,
    resize_shorter_side,
)
from cnnkit.errors import DataError
from tests.helpers.images import split_of


def test_mean_color(image_folder):
    split = load_dataset(f"folder:{image_folder}").splits["train"]
    images = [
        resize_shorter_side(split.load_image(tf.constant(i, tf.int64)), 16).numpy()
        for i in range(len(split))
    ]
    expected = np.mean(images, axis=(0, 1, 2))
    np.testing.assert_allclose(mean_color(split, image_size=16), expected, rtol=1e-5)


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


def test_gray_images_have_one_component_and_no_negative_variance(rng):
    images = [np.repeat(rng.integers(0, 256, (8, 8, 1), np.uint8), 3, axis=2) for _ in range(3)]
    found = color_components(split_of(images), image_size=8)
    assert found.eigenvalues[0] > 1000
    assert 0 <= found.eigenvalues[2] <= found.eigenvalues[1] < 1e-6
    np.testing.assert_allclose(np.array(found.eigenvectors)[:, 0], [3**-0.5] * 3, rtol=1e-6)


def test_images_of_one_color_have_no_components():
    flat = split_of([np.full((8, 8, 3), 90, np.uint8)] * 3)
    with pytest.raises(
        DataError, match="only one color, so it has no components.*RGB .90.0, 90.0, 90.0."
    ):
        color_components(flat, image_size=8)
