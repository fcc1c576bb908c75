"""The filters of the first layer, and their picture."""

import keras
import matplotlib.image
import numpy as np
import pytest

from cnnkit import alexnet, zfnet
from cnnkit.cli.main import main
from cnnkit.errors import UsageError
from cnnkit.visualize import filters


def test_dead_and_dominating_filters_are_found():
    model = zfnet(include_top=False)
    conv1 = model.get_layer("conv1")
    kernel, bias = conv1.get_weights()
    kernel[..., 3] *= 0.01
    kernel[..., 40] *= 9
    conv1.set_weights([kernel, bias])
    found = filters(model)
    np.testing.assert_array_equal(found.kernels[5], kernel[..., 5])
    np.testing.assert_array_equal(np.flatnonzero(found.dead), [3])
    np.testing.assert_array_equal(np.flatnonzero(found.dominating), [40])
    by_hand = np.sqrt(np.sum(kernel[..., 7] ** 2) / (7 * 7 * 3))
    assert found.rms[7] == pytest.approx(by_hand, rel=1e-5)
    assert (found.layer, found.towers) == ("conv1", 1)
    assert filters(alexnet(include_top=False)).towers == 2


def test_the_limits_are_a_tenth_and_three_times_the_median():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(7, 3, name="c")(inputs))
    sizes = np.array([1, 1, 1, 0.095, 0.105, 2.9, 3.1])
    model.get_layer("c").set_weights([np.ones((3, 3, 3, 7)) * sizes, np.zeros(7)])
    found = filters(model)
    assert found.dead.tolist() == [False] * 3 + [True] + [False] * 3
    assert found.dominating.tolist() == [False] * 6 + [True]


def test_a_model_without_a_graph_has_filters():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = keras.layers.Conv2D(2, 3, name="first")

        def call(self, images):
            return self.first(images)

    model = Own()
    model(np.zeros((1, 8, 8, 3), "float32"))
    assert (filters(model).layer, filters(model).towers) == ("first", 1)


def test_gray_and_nested_models():
    inner = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3, name="c")])
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.RandomFlip(), inner])
    found = filters(model)
    assert (found.layer, found.kernels.shape) == ("c", (2, 3, 3, 1))
    expected = inner.get_layer("c").kernel.numpy()[..., 1]
    np.testing.assert_array_equal(found.kernels[1], expected)


def test_a_model_without_colors_is_refused():
    inputs = keras.Input((8, 8, 5))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs), name="spectral")
    with pytest.raises(UsageError, match="Model 'spectral' has no filters over the colors"):
        filters(model)


def test_filters_command_draws_every_filter(tmp_path, capsys):
    model = alexnet(include_top=False)
    kernel, bias = model.get_layer("conv1").get_weights()
    kernel[...] = np.where(np.arange(96) < 48, 1.0, -1.0)
    model.get_layer("conv1").set_weights([kernel, bias])
    model.save(tmp_path / "model.keras")
    picture = tmp_path / "conv1.png"
    assert main(["visualize", "filters", str(tmp_path), "--output", str(picture)]) == 0
    assert "96 kernels of conv1, 0 dead, 0 dominating" in capsys.readouterr().out
    # All white kernels of the first tower, then all black ones of the second, 48 of each.
    pixels = matplotlib.image.imread(picture)[..., :3].mean(axis=-1)
    black = pixels < 0.01
    rows = np.flatnonzero(black.mean(axis=1) > 0.5)
    assert rows.min() > 0.45 * len(pixels)
    edges = np.diff(black[rows[len(rows) // 2]].astype(int))
    assert (edges == 1).sum() == 16
    assert main(["visualize", "filters", str(tmp_path), "--output", "x.jpg"]) == 2
