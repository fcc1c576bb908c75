"""One call for all methods: each result is that of the method's own function, or of its formula."""

import keras
import numpy as np
import pytest
from keras import layers

from cnnkit.errors import DataError, UsageError
from cnnkit.visualize import (
    EXPLANATION_METHODS,
    deconvnet,
    explain_class,
    gradcam,
    gradcam_plus_plus,
    occlusion,
    saliency,
    scorecam,
    smoothgrad,
)
from tests.helpers.evaluation_networks import SIZE, network


@pytest.fixture(scope="module")
def model():
    return network(3)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(0, 255, (2, SIZE, SIZE, 3)).astype("float32")


def test_the_maps_are_those_of_the_methods(model, images):
    own = {
        "saliency": saliency(model, images),
        "smoothgrad": smoothgrad(model, images, samples=2, seed=4),
        "gradcam": gradcam(model, images, layer="conv1"),
        "gradcam++": gradcam_plus_plus(model, images, layer="conv1"),
        "scorecam": scorecam(model, images, layer="conv1"),
    }
    for method, expected in own.items():
        found = explain_class(model, images, method=method, layer="conv1", samples=2, seed=4)
        for one, other in zip(found, expected, strict=True):
            assert (one.method, one.image, one.target) == (method, other.image, other.target)
            np.testing.assert_array_equal(one.map, other.map)


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gradient"])
def test_a_rule_projects_the_logit_of_each_images_own_class(model, images, rule):
    found = explain_class(model, images, method=rule, batch_size=1)
    targets = model(images, training=False).numpy().argmax(axis=1)
    for i, one in enumerate(found):
        assert (one.image, one.target, one.method) == (i, targets[i], rule)
        [expected] = deconvnet(model, images[i], "probabilities", int(targets[i]), rule=rule)
        np.testing.assert_allclose(one.gradient, expected.projection, rtol=1e-5, atol=1e-9)
        np.testing.assert_array_equal(one.map, np.abs(one.gradient).max(axis=-1))
        assert one.score == pytest.approx(expected.activation, rel=1e-5)


def test_occlusion_is_the_mean_drop_of_the_logit(model, images):
    [one] = explain_class(model, images[0], 2, "occlusion")
    # A seventh of 12 pixels, step 1.
    maps = occlusion(model, images[0], 2, 1, target=2, edge="clip")
    expected = np.zeros((SIZE, SIZE))
    for y, x in np.ndindex(SIZE, SIZE):
        drops = [
            maps.clean_score - maps.score[r, c]
            for r, top in enumerate(maps.rows)
            for c, left in enumerate(maps.columns)
            if top <= y < top + 2 and left <= x < left + 2
        ]
        expected[y, x] = max(0, np.mean(drops))
    np.testing.assert_allclose(one.map, expected, rtol=1e-4, atol=1e-5)
    assert one.map.max() > 0
    assert (one.target, one.gradient) == (2, None)
    assert one.score == pytest.approx(maps.clean_score, rel=1e-5)


def test_each_image_has_a_class_of_its_own(model, images):
    found = explain_class(model, images, [4, 0], "gradcam")
    assert [(one.image, one.target) for one in found] == [(0, 4), (1, 0)]
    np.testing.assert_array_equal(found[1].map, gradcam(model, images[1], 0)[0].map)
    with pytest.raises(UsageError, match="2 classes. Received: 3"):
        explain_class(model, images, [4, 0, 1], "gradcam")


def test_the_options_count_for_images_with_classes_of_their_own(model, images):
    options = {"samples": 2, "seed": 4, "layer": "conv1"}
    for method, expected in (
        ("smoothgrad", smoothgrad(model, images[0], 1, samples=2, seed=4)),
        ("gradcam", gradcam(model, images[0], 1, layer="conv1")),
    ):
        found = explain_class(model, images, [1, 3], method, **options)
        np.testing.assert_array_equal(found[0].map, expected[0].map)
    for method in EXPLANATION_METHODS:
        with pytest.raises(UsageError, match="`batch_size` must be at least 1. Received: 0"):
            explain_class(model, images, [1, 3], method, batch_size=0)
    # The rows of a single image are not images.
    with pytest.raises(UsageError, match="`target` must be one class, or one for each of several"):
        explain_class(model, images[0], [1] * SIZE)


@pytest.mark.parametrize("method", ["gradient", "deconvnet", "saliency", "smoothgrad", "gradcam"])
def test_a_map_that_is_not_finite_is_refused(method):
    """Over a black image the logits are 0, and the product of the weights overflows."""
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(2, 3, kernel_initializer="ones", name="maps")(inputs)
    for _ in range(2):
        x = layers.Conv2D(2, 1, kernel_initializer=keras.initializers.Constant(1e30))(x)
    black = np.zeros((2, 6, 6, 3), "float32")
    model = keras.Model(inputs, layers.Dense(2, "softmax")(layers.Flatten()(x)))
    with pytest.raises(DataError, match="The attribution map of image 0 is not finite"):
        explain_class(model, black, 1, method, layer="maps")


def test_an_unknown_method_is_named(model, images):
    assert len(set(EXPLANATION_METHODS)) == 9
    with pytest.raises(UsageError, match="gradcam"):
        explain_class(model, images, method="gradcan")
