"""Max pooling whose last window may overhang."""

import keras
import numpy as np
import pytest

from cnnkit import load_model
from cnnkit.errors import UsageError
from cnnkit.layers import CeilMaxPooling2D
from cnnkit.layers.max_pooling import IndexedMaxPooling2D, max_pooling


def test_ceil_pooling_is_pooling_over_a_map_continued_by_minus_infinity(rng):
    for side in (5, 6, 7, 110, 55):
        x = -rng.uniform(1, 2, (1, side, side, 2)).astype("float32")
        outputs = np.asarray(CeilMaxPooling2D(3, 2)(x))
        positions = 1 + -(-(side - 3) // 2)
        assert outputs.shape == CeilMaxPooling2D(3, 2).compute_output_shape(x.shape)
        assert outputs.shape[1] == positions
        for r, c in [(0, 0), (positions - 1, 0), (positions - 1, positions - 1)]:
            window = x[0, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3]
            np.testing.assert_array_equal(outputs[0, r, c], window.max(axis=(0, 1)))


@pytest.mark.parametrize(
    ("size", "stride"), [(2, 3), (1, 4), (3, 2), (2, 2), (3, 1), ((3, 2), (2, 5))]
)
def test_positions_and_maxima_are_those_of_a_loop(size, stride, rng):
    """A window that would begin beyond the map is left out, as in PyTorch's `ceil_mode`."""
    layer = CeilMaxPooling2D(size, stride)
    (high, wide), (down, across) = layer.pool_size, layer.strides
    for height, width in [(5, 6), (6, 7), (7, 8), (8, 5), (9, 9)]:
        x = rng.normal(-5, 1, (1, height, width, 1)).astype("float32")
        rows = [r for r in range(0, height, down) if r == 0 or r + high < height + down]
        columns = [c for c in range(0, width, across) if c == 0 or c + wide < width + across]
        expected = [[x[0, r : r + high, c : c + wide].max() for c in columns] for r in rows]
        outputs = np.asarray(layer(x))
        np.testing.assert_array_equal(outputs[0, ..., 0], expected)
        assert layer.compute_output_shape(x.shape) == outputs.shape


@pytest.mark.parametrize(
    ("name", "value"), [("padding", "same"), ("data_format", "channels_first")]
)
def test_arguments_of_keras_that_the_layer_does_not_follow_are_refused(name, value):
    with pytest.raises(UsageError, match=f"`{name}` of CeilMaxPooling2D must be.*{value}"):
        CeilMaxPooling2D(3, 2, **{name: value})


def test_a_file_of_jax_is_loaded_with_the_pooling_of_keras(tmp_path, rng):
    """`cnnkit.visualize` and the exports know that one, and compute with it."""
    model = keras.Sequential([keras.Input((7, 8, 2)), IndexedMaxPooling2D(3, 2, name="pool1")])
    model.save(tmp_path / "jax.keras")
    loaded = load_model(tmp_path / "jax.keras")
    expected = max_pooling(3, 2, name="pool1")
    assert type(loaded.get_layer("pool1")) is type(expected) is keras.layers.MaxPooling2D
    assert loaded.get_layer("pool1").get_config() == expected.get_config()
    x = rng.normal(size=(2, 7, 8, 2)).astype("float32")
    np.testing.assert_array_equal(loaded(x), expected(x))
