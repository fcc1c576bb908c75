"""Statistics of the training images, and the crops of training and of held-out images."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.config import TrainingConfig
from cnnkit.data import (
    Augmentation,
    ColorComponents,
    Dataset,
    PCAColorNoise,
    Split,
    resize_shorter_side,
)
from cnnkit.models.preprocessing import Preprocessing
from cnnkit.training.inputs import (
    compute_input_statistics,
    held_out_augmentation,
    kept_outputs,
    training_augmentation,
)

CONFIG = TrainingConfig(image_size=8)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (4, 12, 16, 3), np.uint8)


@pytest.fixture
def dataset(images):
    names = [str(i) for i in range(len(images))]
    labels = np.zeros(len(images), np.int32)
    splits = {
        "train": Split.from_pixels(labels[:3], names[:3], images[:3]),
        "test": Split.from_pixels(labels[3:], names[3:], images[3:]),
    }
    return Dataset("made up", ("a",), splits, "")


def centers(images, side, size):
    """The central crops of the training images, rescaled to a shorter side."""
    first = (side - size) // 2
    resized = [resize_shorter_side(tf.constant(image), side).numpy() for image in images[:3]]
    return np.stack(resized)[:, first : first + size, first : first + size].astype(float)


def test_the_mean_is_that_of_the_training_images_at_their_size(images, dataset):
    found = compute_input_statistics(CONFIG, dataset)
    assert found.keys() == {"mean"}
    np.testing.assert_allclose(found["mean"], centers(images, 8, 8).mean((0, 1, 2)), rtol=1e-5)
    imagenet = dataclasses.replace(CONFIG, mean="imagenet")
    found = compute_input_statistics(imagenet, dataset)
    np.testing.assert_allclose(found["mean"], [123.68, 116.779, 103.939])


@pytest.mark.parametrize(("scale", "side"), [(None, 8), ((9, 12), 10)])
def test_the_mean_image_is_that_of_held_out_crops(images, dataset, scale, side):
    config = dataclasses.replace(CONFIG, mean="pixel", scale=scale)
    mean = compute_input_statistics(config, dataset)["mean"]
    np.testing.assert_allclose(mean, centers(images, side, 8).mean(axis=0), atol=1e-3)
    assert held_out_augmentation(config).scales == (side, side)


def test_color_components_are_those_of_the_crops(images, dataset):
    found = compute_input_statistics(dataclasses.replace(CONFIG, pca_color="std"), dataset)
    covariance = np.cov(centers(images, 8, 8).reshape(-1, 3).T, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    np.testing.assert_allclose(found["eigenvalues"], values[::-1], rtol=1e-4)
    np.testing.assert_allclose(
        np.abs(np.sum(found["eigenvectors"] * vectors[:, ::-1], axis=0)), 1, atol=1e-4
    )


def test_weights_of_others_bring_their_mean_and_their_deviation(dataset):
    initial = Preprocessing((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    found = compute_input_statistics(CONFIG, dataset, initial)
    assert {name: values.tolist() for name, values in found.items()} == {
        "mean": [1, 2, 3],
        "std": [4, 5, 6],
    }
    own_mean = dataclasses.replace(CONFIG, mean="imagenet")
    found = compute_input_statistics(own_mean, dataset, initial)
    assert found["mean"][0] == 123.68 and found["std"].tolist() == [4, 5, 6]
    without = compute_input_statistics(CONFIG, dataset, Preprocessing((1.0, 2.0, 3.0)))
    assert without.keys() == {"mean"}


def test_crops_follow_the_configuration():
    config = dataclasses.replace(CONFIG, scale=(9, 12), crop="random", fast_decode=True)
    assert training_augmentation(config, {}).fast_decode
    assert held_out_augmentation(config).fast_decode
    flipped = dataclasses.replace(
        config, flip=True, central_square=True, pca_color="eig01", fast_decode=False
    )
    components = {"eigenvalues": np.arange(3.0), "eigenvectors": np.eye(3)}
    assert training_augmentation(flipped, components) == Augmentation(
        8, scale=(9, 12), crop="random", flip=True, central_square=True,
        color=PCAColorNoise(ColorComponents.from_arrays(np.arange(3.0), np.eye(3)), "eig01"),
    )  # fmt: skip
    assert not training_augmentation(CONFIG, {}).fast_decode
    assert not held_out_augmentation(CONFIG).fast_decode


@pytest.mark.parametrize(("draws", "epochs", "kept"), [(None, 9, 1), (2, 9, 7), (4, 2, 7)])
def test_outputs_are_kept_for_each_draw_that_there_is_an_epoch_for(dataset, draws, epochs, kept):
    config = dataclasses.replace(CONFIG, augmentation_draws=draws, epochs=epochs)
    assert kept_outputs(config, dataset) == kept
