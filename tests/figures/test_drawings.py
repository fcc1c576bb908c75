"""What each figure shows, of results made by hand."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from cnnkit.features import Neighbor
from cnnkit.figures import (
    draw_filters,
    draw_neighbors,
    draw_projection,
    draw_rules,
    draw_training_curves,
)
from cnnkit.visualize import Box, Filters, Projection
from tests.helpers.drawn_figures import drawn_by, pixels_of


def image(*color):
    return np.full((6, 8, 3), color, np.uint8)


def test_kernels_are_in_rows_and_towers(tmp_path, monkeypatch):
    """Gray is zero; dead kernels have a blue frame and dominating ones a red one."""
    kernels = np.zeros((6, 3, 3, 3))
    kernels[:, 1, 1, 0] = [1, -1, 2, 0, 4, 5]
    dead, dominating = np.arange(6) == 3, np.arange(6) == 5
    found = Filters("conv1", kernels, np.ones(6), dead, dominating, 2)
    figure = drawn_by(monkeypatch, draw_filters, found, tmp_path / "a.png", columns=2)
    places = [axes.get_position() for axes in figure.axes]
    assert len(places) == 6
    # Two in a row: the third one is below the first one, and the second tower below a gap.
    assert places[0].y0 == places[1].y0 and places[0].x0 == places[2].x0 == places[3].x0
    steps = -np.diff([places[i].y1 for i in (0, 2, 3, 5)])
    assert (steps > 0).all() and steps[1] > 1.2 * steps[0] == pytest.approx(1.2 * steps[2])
    for axes, value in zip(figure.axes, (1, 0, 1, 0.5, 1, 1), strict=True):
        assert pixels_of(axes)[1, 1].tolist() == [value, 0.5, 0.5]
        assert pixels_of(axes)[0, 0].tolist() == [0.5] * 3
    assert [axes.get_frame_on() for axes in figure.axes] == [False] * 3 + [True, False, True]
    colors = [axes.spines["left"].get_edgecolor()[:3] for axes in figure.axes]
    assert (colors[3], colors[5]) == (to_rgb("blue"), to_rgb("red"))
    [caption] = figure.texts
    assert "1 dead (blue), 1 dominating (red) · 2 towers" in caption.get_text()


def test_curves_are_of_both_splits(tmp_path, monkeypatch):
    lines = [
        {"epoch": 1 + i, "loss": 2 - i, "accuracy": 0.25 * i, "val_loss": 3 - i,
         "val_accuracy": 0.2 * i, "learning_rate": rate}
        for i, rate in enumerate((0.1, 0.1, 0.05))
    ]  # fmt: skip
    figure = drawn_by(
        monkeypatch, draw_training_curves, {"one": lines, "_two": lines[:1]}, tmp_path / "a.png"
    )
    loss, error = figure.axes
    assert [axes.get_ylabel() for axes in (loss, error)] == ["loss", "error (%)"]
    assert [axes.get_xlabel() for axes in (loss, error)] == ["epoch"] * 2
    for axes, train, held_out in (
        (loss, [2, 1, 0], [3, 2, 1]),
        (error, [100, 75, 50], [100, 80, 60]),
    ):
        first, second, other, _, fall = axes.get_lines()
        assert (first.get_linestyle(), second.get_linestyle()) == ("--", "-")
        np.testing.assert_allclose(first.get_xydata(), np.stack([[1, 2, 3], train], 1))
        np.testing.assert_allclose(second.get_ydata(), held_out)
        # A single epoch is a dot, and the fall of the learning rate lies before its epoch.
        assert (first.get_marker(), other.get_marker()) == ("None", "o")
        assert fall.get_xdata()[0] == 2.5
        assert axes.get_ylim()[0] == 0
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", " _two"]


def test_neighbors_are_beside_their_query(tmp_path, monkeypatch):
    near = [[Neighbor(4, "d", "dog", 0.25), Neighbor(2, "e", "elk", 1.5)], []]
    pictures = [[image(0, 0, 255), image(0, 255, 0)], []]
    queries = [image(255, 0, 0), image(255, 255, 255)]
    figure = drawn_by(
        monkeypatch, draw_neighbors, queries, ["cat", "fox"], near, pictures,
        tmp_path / "a.png", caption="of fc7",
    )  # fmt: skip
    shown = [axes for axes in figure.axes if axes.get_images()]
    # An empty column separates the query.
    assert [figure.axes.index(axes) for axes in shown] == [0, 2, 3, 4]
    titles = [axes.get_title() for axes in shown]
    assert titles == ["cat", "dog\n0.25", "elk\n1.5", "fox"]
    colors = [pixels_of(axes)[0, 0].tolist() for axes in shown]
    assert colors == [[1, 0, 0], [0, 0, 1], [0, 1, 0], [1, 1, 1]]
    assert [text.get_text() for text in figure.texts] == ["of fc7"]


@pytest.fixture
def projection():
    values = np.zeros((6, 8, 3))
    values[1, 2] = [2, -4, 0]
    box = Box(1, 2, 3, 5)
    return Projection("conv5", 7, 0, (1, 2), 12.5, values, "deconvnet", box, box)


def test_a_projection_is_beside_its_image(projection, tmp_path, monkeypatch):
    figure = drawn_by(
        monkeypatch, draw_projection, image(255, 0, 0), projection, tmp_path / "a.png"
    )
    left, right = figure.axes
    assert pixels_of(left)[0, 0].tolist() == [1, 0, 0]
    assert pixels_of(right)[1, 2].tolist() == [0.75, 0, 0.5]
    assert (left.get_title(), right.get_title()) == ("image", "deconvnet, conv5 unit 7")
    [caption] = figure.texts
    assert caption.get_text().startswith(f"activation 12.5{projection.position_text} · ")
    assert caption.get_text().endswith("black and white are ∓4")


def test_rules_are_beside_the_receptive_field(projection, tmp_path, monkeypatch):
    picture = image(0, 0, 0)
    picture[1, 2] = 255
    rows = [[projection, projection]]
    figure = drawn_by(monkeypatch, draw_rules, picture, rows, tmp_path / "a.png")
    assert [axes.get_title() for axes in figure.axes] == ["conv5 unit 7: 12.5"] + ["deconvnet"] * 2
    field, first, _ = map(pixels_of, figure.axes)
    assert field.shape == first.shape == (*np.zeros((6, 8))[projection.box.slices].shape, 3)
    assert field[0, 0].tolist() == [1, 1, 1]
    assert first[0, 0].tolist() == [0.75, 0, 0.5]
