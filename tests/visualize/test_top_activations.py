"""The strongest activations over a dataset against a full sort."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

from cnnkit.data import Augmentation, load_dataset
from cnnkit.errors import UsageError
from cnnkit.models.graph import build_graph
from cnnkit.visualize import find_top_activations
from cnnkit.visualize.top_activations import resize_augmentation
from tests.visualize.networks import random_images, two_layer_model


@pytest.fixture(scope="module")
def net():
    return two_layer_model()


@pytest.fixture(scope="module")
def images():
    return random_images()


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
    # Only ties, so the order is that of the images.
    assert found["b"].images[2].tolist() == [0, 1, 2, 3]


def test_the_first_of_equal_positions_counts():
    inputs = keras.Input((8, 9, 3))
    model = keras.Model(inputs, layers.Identity(name="pixels")(inputs))
    image = np.zeros((1, 8, 9, 3), "float32")
    image[0, [5, 2, 2, 5], [1, 7, 3, 8], 0] = 6
    image[0, :, 4, 1] = 2
    found = find_top_activations(model, image, ["pixels"], k=1)["pixels"]
    assert [found.position(unit, 0) for unit in (0, 1, 2)] == [(2, 3), (0, 4), (0, 0)]


def test_merging_does_not_depend_on_the_order(net, images):
    whole = find_top_activations(net, images, ["b"], k=4, batch_size=4)["b"]
    first = find_top_activations(net, images[:9], ["b"], k=4, batch_size=4)["b"]
    second = find_top_activations(net, images[9:12], ["b"], k=4, batch_size=4, first_image=9)["b"]
    third = find_top_activations(net, images[12:], ["b"], k=4, batch_size=4, first_image=12)["b"]
    for merged in (first.merge(second).merge(third), third.merge(first.merge(second))):
        np.testing.assert_array_equal(merged.images, whole.images)
        np.testing.assert_array_equal(merged.flat_positions, whole.flat_positions)
        np.testing.assert_allclose(merged.values, whole.values, rtol=1e-6)
    with pytest.raises(UsageError, match="`other` must hold activations of the same units"):
        whole.merge(find_top_activations(net, images[:3], ["a"], k=4)["a"])


def test_a_dataset_is_searched_in_shards():
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
        find_top_activations(model, split, ["c"], k=5, batch_size=32, shard=(i, 4))["c"]
        for i in range(4)
    ]
    for part, first in zip(parts, (0, 89, 179, 269), strict=True):
        assert first <= part.images.min() <= part.images.max() < first + 90
    merged = parts[2].merge(parts[0]).merge(parts[3].merge(parts[1]))
    np.testing.assert_array_equal(merged.images, whole.images)
    np.testing.assert_array_equal(merged.flat_positions, whole.flat_positions)
    np.testing.assert_allclose(merged.values, whole.values, rtol=1e-6)
    for part in ((4, 4), (-1, 4), (0, 0)):
        with pytest.raises(UsageError, match="`shard` must be"):
            find_top_activations(model, split, ["c"], shard=part)


def test_every_batch_is_reported_with_the_largest_values_of_its_images(net, images):
    seen, counts = [], []
    found = find_top_activations(
        net, images[:5], ["a", "b"], k=1, batch_size=3, first_image=40,
        progress=counts.append, observe=lambda index, largest: seen.append((index, largest)),
    )  # fmt: skip
    assert counts == [3, 2]
    assert [index.tolist() for index, _ in seen] == [[40, 41, 42], [43, 44]]
    for layer in ("a", "b"):
        maps = keras.Model(net.input, net.get_layer(layer).output)(images[:5]).numpy()
        largest = np.concatenate([values[layer] for _, values in seen])
        np.testing.assert_allclose(largest, maps.max(axis=(1, 2)), rtol=1e-5)
        assert found[layer].images.min() >= 40


def test_activations_of_other_units_are_not_merged(net, images):
    one = find_top_activations(net, images[:3], ["a"], k=2)["a"]
    for change in ({"layer": "c"}, {"width": 3}, {"values": one.values[:1]}):
        with pytest.raises(
            UsageError, match="Expected: layer a, units and images .5, 2., width 12"
        ):
            one.merge(dataclasses.replace(one, **change))


def test_a_dataset_is_resized_to_the_longer_side_of_the_network():
    def graph(*sides):
        inputs = keras.Input((*sides, 3))
        return build_graph(keras.Model(inputs, layers.Identity()(inputs)))

    assert resize_augmentation(graph(12, 16), None) == Augmentation(16)
    assert resize_augmentation(graph(12, 16), 20) == Augmentation(20)
    for sides in ((None, 16), (12, None)):
        assert resize_augmentation(graph(*sides), 20) == Augmentation(20)
        with pytest.raises(UsageError, match="`image_size` is required for a dataset"):
            resize_augmentation(graph(*sides), None)


def test_state_of_vgg16_is_small():
    # 4224 maps of its 13 convolutions, nine images each.
    from cnnkit.visualize.top_activations import _empty_activations

    units = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    states = [_empty_activations("conv", count, 9, 14) for count in units]
    assert sum(s.values.nbytes + s.images.nbytes + s.flat_positions.nbytes for s in states) < 1e6
