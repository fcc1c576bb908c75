"""Figures of the strongest activations: the top nine, over epochs, and of second layers."""

import keras
import matplotlib.image
import numpy as np
from keras import layers

from cnnkit.figures import draw_feature_evolution, draw_second_layer, draw_top9
from cnnkit.figures.top_activations import _field_tiles
from cnnkit.visualize import (
    Box,
    FeatureEvolution,
    Filters,
    Projection,
    ReceptiveField,
    SecondLayerFilters,
    UnitExamples,
    find_top_activations,
    project_top,
    top9,
)
from tests.helpers.drawn_figures import drawn_by, pixels_of


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


def examples(unit, value, patch, box=None):
    """Returns the strongest activation of a unit whose receptive field is a patch of 4 pixels."""
    if value is None:
        return UnitExamples("conv2", unit, (), np.zeros((0, 4, 4, 3), np.float32))
    box = box or Box(2, 2, 6, 6)
    values = np.zeros((8, 8, 3), np.float32)
    values[3, 3] = value
    one = Projection("conv2", unit, 0, (1, 1), 2.0, values, "deconvnet", box, Box(2, 2, 6, 6))
    return UnitExamples("conv2", unit, (one,), np.full((1, 4, 4, 3), patch, np.float32))


def test_evolution_has_a_column_for_each_epoch(tmp_path, monkeypatch):
    """The receptive field is shown; a unit that is silent at an epoch says so."""
    rows = [
        FeatureEvolution("conv2", 0, (1, 5), (examples(0, 1, 0), examples(0, -1, 0))),
        FeatureEvolution("conv2", 7, (1, 5), (examples(7, None, 0), examples(7, 2, 0))),
    ]
    figure = drawn_by(monkeypatch, draw_feature_evolution, {"conv2": rows}, tmp_path / "a.png")
    grid = np.reshape(figure.axes, (2, 2))
    assert [axes.get_title() for axes in grid[0]] == ["epoch 1", "epoch 5"]
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["conv2\nunit 0", "conv2\nunit 7"]
    for axes, value in ((grid[0, 0], 1), (grid[0, 1], 0), (grid[1, 1], 1)):
        pixels = pixels_of(axes)
        assert pixels.shape == (4, 4, 3)
        assert pixels[1, 1].tolist() == [value] * 3
        assert pixels[0, 0].tolist() == [0.5] * 3
    assert not grid[1, 0].get_images()
    assert [text.get_text() for text in grid[1, 0].texts] == ["never\nactive"]
    assert figure.texts[0].get_text().startswith("deconvnet of the strongest activation")


def test_beyond_the_image_a_tile_is_white():
    """A field of 6 pixels of which 2 rows lie above an image of 8 x 9, and 1 column left of it."""
    values = np.zeros((8, 9, 3), np.float32)
    values[0, 0] = 2
    box, field = Box(0, 0, 4, 5), Box(-2, -1, 4, 5)
    one = Projection("conv2", 0, 0, (0, 0), 2.0, values, "deconvnet", box, field)
    patch = np.full((6, 6, 3), 128, np.float32)
    patch[2:, 1:] = 51
    projection, pixels = _field_tiles(one, patch)
    expected = np.ones((6, 6))
    expected[2:, 1:] = 0.5
    np.testing.assert_allclose(pixels, np.where(expected == 1, 1, 0.2)[..., None].repeat(3, 2))
    expected[2, 1] = 1
    np.testing.assert_allclose(projection, expected[..., None].repeat(3, 2))


def test_a_field_larger_than_the_image_is_shown_as_the_image():
    """The image fills the tile, not a ninth of it."""
    image = np.arange(4 * 4 * 3, dtype=np.float32).reshape(4, 4, 3)
    field = Box(-4, -3, 8, 9)
    patch = np.full((12, 12, 3), 128, np.float32)
    patch[4:8, 3:7] = image
    one = Projection("conv5", 0, 0, (0, 0), 2.0, image - 24, "deconvnet", Box(0, 0, 4, 4), field)
    projection, pixels = _field_tiles(one, patch, 0.0)
    np.testing.assert_allclose(pixels, image / 255, rtol=1e-6)
    np.testing.assert_allclose(projection, 0.5 + (image - 24) / 48, rtol=1e-6)


def test_second_layers_are_below_each_other_with_their_counts(tmp_path, monkeypatch):
    dead = np.array([False, True, True])
    filters = Filters("conv1", np.zeros((3, 7, 5, 3)), np.ones(3), dead, ~dead, 1)
    field = ReceptiveField("conv2", (4, 4), (2, 2), (0, 0), (8, 8), np.zeros((1, 2)), None)
    networks = [
        SecondLayerFilters(
            name,
            filters,
            (1,),
            "conv2",
            5,
            (3, 4),
            known,
            (examples(0, 1, 255), examples(3, None, 0)),
        )  # fmt: skip
        for name, known in (("zfnet", field), ("alexnet", None))
    ]
    figure = drawn_by(monkeypatch, draw_second_layer, networks, tmp_path / "a.png")
    named = drawn_by(
        monkeypatch, draw_second_layer, networks, tmp_path / "b.png", names=["one", "two"]
    )
    assert [axes.get_title().splitlines()[0] for axes in named.axes[::2]] == ["one", "two"]
    left, right, other, _ = figure.axes
    first = "conv1: 3 kernels of 7 x 5, 2 dead, 1 silent\nconv2: 2 of 5 silent"
    assert left.get_title() == f"zfnet\n{first}, one every 2 pixels"
    assert other.get_title() == f"alexnet\n{first}"
    # Each tile has the number of its unit.
    assert [[text.get_text() for text in axes.texts] for axes in (left, right)] == [["0"], ["0"]]
    assert right.get_title() == "image patches"
    assert pixels_of(left)[1, 1].tolist() == [1] * 3
    assert pixels_of(left)[0, 0].tolist() == [0.5] * 3
    assert pixels_of(right)[:4, :4].min() == 1
    assert figure.texts[0].get_text().startswith("deconvnet of units' strongest activation")
