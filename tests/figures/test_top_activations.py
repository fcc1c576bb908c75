"""The figure of the top nine images: order, sizes, patches beside projections."""

import keras
import matplotlib.image
import numpy as np
from keras import layers

from cnnkit.figures import draw_top9
from cnnkit.visualize import find_top_activations, project_top, top9


def test_many_units_are_drawn_small_and_in_order(tmp_path):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Conv2D(30, 1, use_bias=False, name="c")(inputs))
    kernel = np.zeros((1, 1, 3, 30))
    kernel[..., 0, :29], kernel[..., 1, 29] = 1, 1
    model.set_weights([kernel])
    images = np.full((9, 8, 8, 3), 200.0) - np.arange(9)[:, None, None, None]
    found = find_top_activations(model, images, ["c"])["c"]
    draw_top9(project_top(model, images, found), tmp_path / "c.png", units=30)
    pixels = matplotlib.image.imread(tmp_path / "c.png")[..., :3]
    red, green = (
        np.nonzero(np.abs(pixels - color).max(axis=-1) < 0.03)
        for color in ((1, 0.5, 0.5), (0.5, 1, 0.5))
    )
    # Eight in a row: the last of them is the sixth of the fourth row.
    height, width = pixels.shape[:2]
    assert 5 < 8 * green[1].mean() / width < 6
    assert green[0].min() > 0.7 * height
    assert red[0].min() < 0.2 * height


def test_top9_shows_patches_beside_projections(tmp_path):
    # One unit that sees the red of a pixel; of nine images the first is the reddest.
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 1, use_bias=False, name="c")(inputs))
    kernel = np.zeros((1, 1, 3, 2))
    kernel[..., 0, 0] = 1
    model.set_weights([kernel])
    images = np.zeros((9, 8, 8, 3))
    images[np.arange(9), 3, 3, 0] = 255 - np.arange(9)
    tops = top9(model, images, ["c"])["c"]
    assert [one.image for one in tops[0].projections] == list(range(9))
    draw_top9(tops, tmp_path / "c.png")
    pixels = matplotlib.image.imread(tmp_path / "c.png")[..., :3]
    # A red projection is red above gray; right of it are the red patches; the other unit is dead.
    projections, patches = (
        np.nonzero(np.abs(pixels - color).max(axis=-1) < 0.03)[1]
        for color in ((1, 0.5, 0.5), (1, 0, 0))
    )
    assert 0 < projections.min() < projections.max() < patches.min()
    assert patches.max() < pixels.shape[1] / 2
