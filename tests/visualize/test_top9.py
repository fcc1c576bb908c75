"""Projections of the strongest activations."""

import keras
import numpy as np
import pytest
from keras import layers

from cnnkit.data import load_dataset
from cnnkit.errors import DataError, UsageError
from cnnkit.visualize import find_top_activations, project_top, top9
from tests.visualize.networks import random_images, two_layer_model


@pytest.fixture(scope="module")
def net():
    return two_layer_model()


@pytest.fixture(scope="module")
def images():
    return random_images()


def test_projections_have_the_patches_of_their_images(net, images):
    tops = top9(net, images, ["b"], k=3, batch_size=4)["b"]
    assert [top.unit for top in tops] == [0, 1, 2, 3]
    assert tops[2].projections == ()
    found = find_top_activations(net, images, ["b"], k=3)["b"]
    for top in tops:
        for rank, result in enumerate(top.projections):
            assert result.image == found.images[top.unit, rank]
            assert result.position == found.position(top.unit, rank)
            outside = result.projection.copy()
            outside[result.box.slices] = 0
            assert not outside.any()
            # The patch holds the image, and gray beyond its border.
            box, wide = result.box, result.unclipped
            inside = (
                slice(box.top - wide.top, box.bottom - wide.top),
                slice(box.left - wide.left, box.right - wide.left),
            )
            patch = top.patches[rank]
            np.testing.assert_array_equal(patch[inside], images[result.image][box.slices])
            beside = np.ones(patch.shape[:2], bool)
            beside[inside] = False
            reaches = wide.bottom <= 12 and wide.right <= 14 and wide.top >= 0 and wide.left >= 0
            assert beside.any() != reaches or wide == box
    assert any(top.projections and top.projections[0].projection.any() for top in tops)


def test_units_by_layer_and_one_by_one(net, images):
    found = find_top_activations(net, images, ["a", "b"], k=3)
    both = top9(net, images, ["a", "b"], k=3, units={"a": [4, 1], "b": [0]}, found=found)
    assert [[top.unit for top in both[layer]] for layer in ("a", "b")] == [[4, 1], [0]]
    one_by_one = project_top(net, images, found["a"])
    assert [next(one_by_one).unit for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(UsageError, match="'b' has no unit 4"):
        next(project_top(net, images, found["b"], [4]))


def test_a_dataset_is_read_by_index():
    model = keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(2, 5, name="c")])
    source = load_dataset("digits")
    [top] = top9(model, source, ["c"], k=2, units=[1], batch_size=64)["c"]
    assert len(top.projections) == 2
    assert top.projections[0].activation >= top.projections[1].activation
    assert top.projections[0].image < len(source.splits["test"])


def test_the_rule_and_the_size_of_the_images_are_those_asked_for():
    model = keras.Sequential([
        keras.Input((None, None, 3)),
        layers.Conv2D(2, 3, activation="relu"),
        layers.Conv2D(2, 3, name="c"),
    ])  # fmt: skip
    source = load_dataset("digits")
    options = {"k": 1, "units": [1], "image_size": 12, "batch_size": 200}
    for rule in ("guided", "gradient"):
        [top] = top9(model, source, ["c"], rule=rule, **options)["c"]
        [one] = top.projections
        assert (one.rule, one.projection.shape) == (rule, (12, 12, 3))
    found = find_top_activations(model, source, ["c"], 1, image_size=12, batch_size=200)["c"]
    [top] = project_top(model, source, found, [1], rule="guided", image_size=12)
    assert (top.projections[0].rule, top.projections[0].unit) == ("guided", 1)


def test_a_changed_dataset_is_an_error(net, images):
    found = find_top_activations(net, images, ["a"], k=2)
    with pytest.raises(
        DataError, match="Unit 0 of a has another activation for image .* than `found` says"
    ):
        top9(net, images[::-1], ["a"], k=2, found=found)


def test_invalid_arguments(net, images):
    with pytest.raises(UsageError, match="'a' has no unit 5. Expected: 0 to 4"):
        top9(net, images, ["a"], units=[5])
    with pytest.raises(UsageError, match="`k` must be at least 1. Received: 0"):
        find_top_activations(net, images, ["a"], k=0)
    with pytest.raises(
        UsageError, match=r"`images` must have the shape .* Received: \(7, 11, 14, 3\)"
    ):
        find_top_activations(net, images[:, 1:], ["a"], batch_size=7)
    with pytest.raises(DataError, match="`source` must hold at least one image"):
        find_top_activations(net, images[:0], ["a"])
    broken = images.copy()
    broken[7] = np.inf
    with pytest.raises(DataError, match="Image 7 of the source has pixels that are not finite"):
        find_top_activations(net, broken, ["top"], batch_size=4)
    kernel, bias = net.get_layer("b").get_weights()
    astray = keras.models.clone_model(net)
    astray.get_layer("b").set_weights([kernel * np.nan, bias])
    # The ReLU hides it: the unit would count as dead.
    with pytest.raises(DataError, match="Layer 'b' has weights that are not finite"):
        find_top_activations(astray, images, ["top"])
    find_top_activations(astray, images, ["a"])
    inputs = keras.Input((12, 14, 3))
    huge = keras.Model(inputs, layers.Rescaling(3e38, name="huge")(inputs))
    with pytest.raises(DataError, match="'huge' has values for image 0 that are not finite"):
        find_top_activations(huge, images, ["huge"])
