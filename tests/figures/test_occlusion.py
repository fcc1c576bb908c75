"""The figure of occlusion: its colors and numbers, also for a class that stays near 100 %."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest

from cnnkit.figures import draw_occlusion
from cnnkit.figures.occlusion import OPACITY
from cnnkit.visualize import Box, OcclusionMaps, Projection
from tests.helpers.drawn_figures import drawn_by

IMAGE = np.full((40, 60, 3), (102, 51, 0), np.uint8)


@pytest.fixture
def maps():
    values = np.zeros((40, 60, 3), np.float32)
    values[5, 7] = 1
    whole = Box(0, 0, 40, 60)
    own = Projection("conv5", 4, 0, (1, 2), 5.0, values, "deconvnet", whole, whole)
    probability = np.linspace(0.99994, 0.99998, 12, dtype=np.float32).reshape(3, 4)
    return OcclusionMaps(
        probability, probability, np.arange(12).reshape(3, 4) // 10, 1000 + 100 * probability,
        np.arange(3) * 8, np.arange(4) * 8, (16, 16), np.full(3, 128, np.float32), 0, "conv5", 4,
        (40, 60), 0.99999, 9.0, 0, 1234.0, own, "plain",
    )  # fmt: skip


def colors(axes):
    """The image under a map, and the map."""
    below, above = axes.get_images()
    np.testing.assert_allclose(below.get_array(), 0.2, rtol=1e-6)
    assert above.get_alpha() == OPACITY
    return above


def bar_of(axes):
    [bar] = axes.child_axes
    return [text.get_text() for text in bar.get_yticklabels()]


def test_a_probability_near_one_is_not_one_color(maps, tmp_path, monkeypatch):
    figure = drawn_by(
        monkeypatch, draw_occlusion, IMAGE, maps, tmp_path / "a.png", names=["cat", "dog"]
    )
    covered, activity, _, probability, labels = figure.axes[:5]
    shown = colors(probability)
    assert shown.get_clim() == (pytest.approx(0.99994), pytest.approx(0.99998))
    ends = shown.to_rgba(maps.probability)[[0, -1], [0, -1], :3]
    viridis = matplotlib.colormaps["viridis"]
    np.testing.assert_allclose(ends, [viridis(0.0)[:3], viridis(1.0)[:3]])
    texts = bar_of(probability)
    assert len(set(texts)) == 4
    assert (texts[0], texts[-1]) == ("0.999940", "0.999980")
    assert probability.get_title() == "(d) P(cat)\nwhole image: 0.999990"
    assert activity.get_title() == "(b) sum of conv5 unit 4\nwhole image: 1,234"
    assert [text.get_text() for text in labels.get_legend().get_texts()] == ["cat, 83%", "dog, 17%"]
    # The square is where the class is least probable: at the first place.
    assert covered.get_images()[0].get_array()[0, 0, 0] == pytest.approx(128 / 255)
    for axes in figure.axes[:5]:
        assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 59.5), (39.5, -0.5))


def test_a_map_of_one_value_has_one_number(maps, tmp_path, monkeypatch):
    maps = replace(maps, probability=np.ones((3, 4), np.float32))
    names = ["a class with a name that is long"] * 2
    figure = drawn_by(monkeypatch, draw_occlusion, IMAGE, maps, tmp_path / "a.png", names=names)
    assert bar_of(figure.axes[3]) == ["1.0"]
    assert figure.axes[3].get_title().startswith("(d) P(a class with a name\u2026)")


def test_projections_of_other_images_are_beside_the_own_one(maps, tmp_path, monkeypatch):
    others = [replace(maps.projection, image=n) for n in range(3)]
    figure = drawn_by(monkeypatch, draw_occlusion, IMAGE, maps, tmp_path / "a.png", others=others)
    insets = figure.axes[2].child_axes
    assert [one.spines["left"].get_linewidth() for one in insets] == [2.5, 0.3, 0.3, 0.3]
    assert figure.axes[2].get_title() == "(c) conv5 unit 4, projected\nhere (framed), in 3 others"
