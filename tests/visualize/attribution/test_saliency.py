"""Saliency and SmoothGrad against a gradient tape."""

import numpy as np
import pytest

from cnnkit.visualize import saliency, smoothgrad
from tests.visualize.attribution.networks import NETWORKS, SHAPE, reference_values, target_logits


@pytest.mark.parametrize("label", [None, 2])
def test_saliency_equals_the_gradient_of_a_tape(model, images, label):
    tape, x, _, logits = reference_values(model, images)
    with tape:
        targets, scores = target_logits(logits, label)
    gradient = tape.gradient(scores, x).numpy()
    found = saliency(model, images, label, batch_size=2)
    assert [one.image for one in found] == [0, 1, 2]
    scale = np.abs(gradient).max()
    assert scale > 1e-5
    for one, target, score, expected in zip(found, targets, scores, gradient, strict=True):
        assert one.target == target
        assert one.score == pytest.approx(float(score), rel=1e-5)
        np.testing.assert_allclose(one.gradient, expected, rtol=0, atol=1e-6 * scale)
        np.testing.assert_array_equal(one.map, np.abs(one.gradient).max(axis=2))
        assert one.grid is None


def test_smoothgrad_is_the_mean_over_noisy_copies(example_model, images):
    model = example_model
    images = images[:2]
    found = smoothgrad(model, images, samples=5, noise=0.2, seed=7, batch_size=3)
    for i, (one, image) in enumerate(zip(found, images, strict=True)):
        random = np.random.default_rng((7, i))
        deviation = 0.2 * (image.max() - image.min())
        copies = np.stack([image + random.normal(0, deviation, SHAPE) for _ in range(5)])
        expected = sum(copy.gradient for copy in saliency(model, copies, one.target)) / 5
        np.testing.assert_allclose(
            one.gradient, expected, rtol=0, atol=1e-5 * np.abs(expected).max()
        )
        np.testing.assert_array_equal(one.map, np.abs(one.gradient).max(axis=2))
        # The class is that of the image without noise.
        assert one.target == saliency(model, image)[0].target


def test_smoothgrad_depends_on_its_seed_only(images):
    model = NETWORKS["ours"]()
    state = np.random.get_state()[1].copy()
    one, same, other = (smoothgrad(model, images[:1], samples=2, seed=s)[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(one.gradient, same.gradient)
    assert (one.gradient != other.gradient).any()
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    [still] = smoothgrad(model, images[:1], samples=2, noise=0)
    [expected] = saliency(model, images[:1])
    np.testing.assert_allclose(
        still.gradient, expected.gradient, rtol=0, atol=1e-6 * expected.map.max()
    )
