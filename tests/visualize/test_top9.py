"""The strongest activations of a dataset: against a full sort, in parts, in batches."""

import keras
import numpy as np
import pytest
from keras import layers

from cnnkit.data import load_dataset
from cnnkit.errors import DataError, UsageError
from cnnkit.visualize import find_top_activations, project_top, top9


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((12, 14, 3))
    x = layers.Conv2D(5, 3, activation="relu", name="a")(inputs)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="b")(layers.MaxPooling2D(2)(x))
    x = layers.Dense(3, name="top")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x)
    kernel, bias = model.get_layer("b").get_weights()
    bias[2] = -1e6
    model.get_layer("b").set_weights([kernel, bias])
    return model


@pytest.fixture(scope="module")
def images():
    images = np.random.default_rng(1).uniform(0, 255, (23, 12, 14, 3)).astype("float32")
    # Equal images are equally strong: the first one counts as the stronger.
    images[17] = images[4]
    images[11] = images[2]
    return images


def test_equals_a_full_sort(net, images):
    found = find_top_activations(net, images, ["a", "b", "top"], k=4, batch_size=5)
    for layer in ("a", "b", "top"):
        maps = keras.Model(net.input, net.get_layer(layer).output)(images).numpy()
        maps = maps.reshape(len(images), -1, maps.shape[-1])
        best = maps.max(axis=1)
        for unit in range(maps.shape[-1]):
            order = sorted(range(len(images)), key=lambda i: (-best[i, unit], i))[:4]
            np.testing.assert_allclose(found[layer].values[unit], best[order, unit], rtol=1e-5)
            if best[order[0], unit] > 0:
                assert found[layer].images[unit].tolist() == order
                first = maps[order[0], :, unit].argmax()
                width = found[layer].width
                assert found[layer].position(unit, 0) == (divmod(first, width) if width else ())
    assert np.flatnonzero(found["b"].dead).tolist() == [2]
    # Nothing but ties, so nothing but the order of the images.
    assert found["b"].images[2].tolist() == [0, 1, 2, 3]


def test_of_equal_places_the_first_row_by_row_counts():
    inputs = keras.Input((8, 9, 3))
    model = keras.Model(inputs, layers.Identity(name="pixels")(inputs))
    image = np.zeros((1, 8, 9, 3), "float32")
    image[0, [5, 2, 2, 5], [1, 7, 3, 8], 0] = 6
    image[0, :, 4, 1] = 2
    found = find_top_activations(model, image, ["pixels"], k=1)["pixels"]
    assert [found.position(unit, 0) for unit in (0, 1, 2)] == [(2, 3), (0, 4), (0, 0)]


def test_parts_merge_in_any_order(net, images):
    whole = find_top_activations(net, images, ["b"], k=4, batch_size=4)["b"]
    first = find_top_activations(net, images[:9], ["b"], k=4, batch_size=4)["b"]
    second = find_top_activations(net, images[9:12], ["b"], k=4, batch_size=4, first_image=9)["b"]
    third = find_top_activations(net, images[12:], ["b"], k=4, batch_size=4, first_image=12)["b"]
    for merged in (first.merge(second).merge(third), third.merge(first.merge(second))):
        np.testing.assert_array_equal(merged.images, whole.images)
        np.testing.assert_array_equal(merged.flat_positions, whole.flat_positions)
        np.testing.assert_allclose(merged.values, whole.values, rtol=1e-6)
    with pytest.raises(UsageError, match="Only the same units"):
        whole.merge(find_top_activations(net, images[:3], ["a"], k=4)["a"])


def test_a_dataset_is_searched_in_parts():
    inputs = keras.Input((16, 16, 3))
    keras.utils.set_random_seed(6)
    model = keras.Model(inputs, layers.Conv2D(3, 5, name="c")(inputs))
    split = load_dataset("digits").splits["test"]
    heard = []
    whole = find_top_activations(model, split, ["c"], k=5, batch_size=50, progress=heard.append)[
        "c"
    ]
    assert sum(heard) == len(split) == 359
    parts = [
        find_top_activations(model, split, ["c"], k=5, batch_size=32, part=(i, 4))["c"]
        for i in range(4)
    ]
    for part, first in zip(parts, (0, 89, 179, 269), strict=True):
        assert first <= part.images.min() <= part.images.max() < first + 90
    merged = parts[2].merge(parts[0]).merge(parts[3].merge(parts[1]))
    np.testing.assert_array_equal(merged.images, whole.images)
    np.testing.assert_array_equal(merged.flat_positions, whole.flat_positions)
    np.testing.assert_allclose(merged.values, whole.values, rtol=1e-6)
    for part in ((4, 4), (-1, 4), (0, 0)):
        with pytest.raises(UsageError, match="no such part"):
            find_top_activations(model, split, ["c"], part=part)


def test_state_of_vgg16_is_small():
    # 4224 maps of its 13 convolutions, nine images each.
    from cnnkit.visualize.top_activations import _none

    units = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    states = [_none("conv", count, 9, 14) for count in units]
    assert sum(s.values.nbytes + s.images.nbytes + s.flat_positions.nbytes for s in states) < 1e6


def test_winners_are_projected_beside_their_patches(net, images):
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
            # The patch holds the image where there is one, and gray beside it.
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


def test_a_changed_dataset_is_noticed(net, images):
    found = find_top_activations(net, images, ["a"], k=2)
    with pytest.raises(DataError, match="Unit 0 of a answers image .* otherwise"):
        top9(net, images[::-1], ["a"], k=2, found=found)


def test_wrong_requests(net, images):
    with pytest.raises(UsageError, match="'a' has no unit 5. Expected: 0 to 4"):
        top9(net, images, ["a"], units=[5])
    with pytest.raises(UsageError, match="k of 1 or more"):
        find_top_activations(net, images, ["a"], k=0)
    with pytest.raises(
        UsageError, match=r"`images` must have the shape .* Received: \(7, 11, 14, 3\)"
    ):
        find_top_activations(net, images[:, 1:], ["a"], batch_size=7)
    with pytest.raises(DataError, match="no images"):
        find_top_activations(net, images[:0], ["a"])
    broken = images.copy()
    broken[7] = np.inf
    with pytest.raises(DataError, match="Image 7 of the source has pixels that are not finite"):
        find_top_activations(net, broken, ["top"], batch_size=4)
    kernel, bias = net.get_layer("b").get_weights()
    astray = keras.models.clone_model(net)
    astray.get_layer("b").set_weights([kernel * np.nan, bias])
    # The rectifier hides it: the unit would be called dead.
    with pytest.raises(DataError, match="Layer 'b' has weights that are not finite"):
        find_top_activations(astray, images, ["top"])
    find_top_activations(astray, images, ["a"])
    inputs = keras.Input((12, 14, 3))
    huge = keras.Model(inputs, layers.Rescaling(3e38, name="huge")(inputs))
    with pytest.raises(DataError, match="'huge' answers image 0 with values that are not finite"):
        find_top_activations(huge, images, ["huge"])
