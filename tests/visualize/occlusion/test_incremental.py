"""Incremental occlusion, its segments and affected regions against the plain sweep."""

import itertools

import numpy as np
import pytest

from cnnkit import alexnet, zfnet
from cnnkit.models.graph import build_graph
from cnnkit.visualize import occlusion
from cnnkit.visualize.occlusion.incremental import incremental_occlusion
from cnnkit.visualize.occlusion.occlusion import plain_occlusion
from tests.visualize.occlusion.networks import (
    BODIES,
    METHODS,
    classifier,
    normalizing_activation,
    normalizing_layer,
    random_image,
)

pytestmark = pytest.mark.usefixtures("unoptimized")


@pytest.mark.parametrize("body", BODIES)
def test_incremental_equals_plain(body):
    model = classifier(body)
    image = random_image()
    one, other = (
        occlusion(model, image, (7, 9), (5, 4), (0.5, 1, 1.5), method, 7, edge="clip")
        for method in METHODS
    )
    assert (one.method, other.method) == METHODS
    assert np.ptp(one.probability) > 1e-3
    assert one.probability.max() < 0.9
    np.testing.assert_allclose(other.probability, one.probability, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(other.label, one.label)
    np.testing.assert_allclose(other.activity, one.activity, rtol=1e-5, atol=1e-5)
    assert other.clean_probability == pytest.approx(one.clean_probability, abs=1e-6)
    assert (other.layer, other.unit) == (one.layer, one.unit)


@pytest.mark.parametrize("body", BODIES)
def test_every_map_equals_that_of_the_plain_sweep(body):
    nodes = build_graph(classifier(body)).nodes
    image = random_image()
    random = np.random.default_rng(8)
    corners = random.integers(0, (29, 37), (40, 2))
    ends = np.minimum(corners + random.integers(1, 12, (40, 2)), (29, 37))
    rectangles = np.stack([corners, ends], axis=-1)
    wanted = [(node, None) for node in nodes]
    filled = np.full_like(image, 3)
    one, other = (
        sweep(nodes, image, filled, wanted)(rectangles, 9)
        for sweep in (plain_occlusion, incremental_occlusion)
    )
    for expected, got, (node, _) in zip(one, other, wanted, strict=True):
        assert np.ptp(expected, axis=0).max() > 1e-3, "the squares are seen"
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5, err_msg=node.layer.name)


@pytest.mark.parametrize("body", [normalizing_activation, normalizing_layer])
def test_an_activation_that_looks_across_the_map_is_computed_plainly(body):
    model = classifier(body)
    image = random_image()
    grid = occlusion(model, image, 8, 8, 1)
    predicted = []
    for row, column in itertools.product(grid.rows, grid.columns):
        covered = image.copy()
        covered[row : row + 8, column : column + 8] = 1
        predicted.append(covered)
    expected = model(np.stack(predicted), training=False).numpy()[:, grid.target]
    np.testing.assert_allclose(grid.probability.ravel(), expected, rtol=0, atol=1e-6)
    assert np.ptp(expected) > 1e-3


@pytest.mark.parametrize("build", [alexnet, zfnet])
def test_incremental_equals_plain_in_alexnet_and_zfnet(build):
    model = build(input_shape=(96, 96, 3), classes=4, initializer="glorot", hidden_units=16)
    image = np.random.default_rng(1).uniform(0, 255, (96, 96, 3))
    one, other = (occlusion(model, image, 16, 16, method=method) for method in METHODS)
    assert one.layer == "pool5"
    assert 0.05 < one.probability.min() < one.probability.max() < 0.95
    np.testing.assert_allclose(other.probability, one.probability, rtol=0, atol=1e-5)
    np.testing.assert_allclose(other.activity, one.activity, rtol=1e-4)
    assert one.projection.unit == one.unit
    assert one.projection.projection.shape == (96, 96, 3)
