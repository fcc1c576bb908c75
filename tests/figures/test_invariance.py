"""Figures of invariance and correspondence: curves, transformed images, bars."""

import numpy as np
import pytest

from cnnkit.figures import draw_correspondence, draw_invariance
from cnnkit.visualize import Box, Correspondence, Invariance
from tests.helpers.drawn_figures import drawn_by, pixels_of


def test_each_transformation_has_a_row_of_curves(tmp_path, monkeypatch):
    """The images at the least, the middle and the largest amount are beside their curves."""
    images = np.zeros((2, 4, 4, 3), np.uint8)
    images[0, 1], images[1, 2] = 255, 255
    amounts = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    distances = np.arange(20.0).reshape(2, 2, 5)
    # The features of one image are zero: nothing is divided.
    norms = np.array([[2.0, 4.0], [5.0, 0.0]])
    relative = np.array([distances[0] / [[2], [4]], [distances[1, 0] / 5, np.zeros(5)]])
    probabilities = np.linspace(0, 1, 10).reshape(2, 5)
    row = Invariance(
        "translation",
        amounts,
        ("conv1", "fc7"),
        distances,
        norms,
        np.zeros(2),
        probabilities,
    )
    figure = drawn_by(
        monkeypatch, draw_invariance, images, [row], tmp_path / "a.png", names=["cat", "dog"],
        fill=51,
    )  # fmt: skip
    mosaic, first, second, probability = figure.axes
    assert mosaic.get_title() == "translation: -1, 0, 1"
    shown = pixels_of(mosaic)
    # A white line is between two images.
    assert shown.shape == (9, 14, 3)
    assert (shown[4] == 1).all() and (shown[:, [4, 9]] == 1).all()
    # One pixel up, as it is, one pixel down; what comes in from outside is 51 of 255.
    white = [np.flatnonzero(shown[:4, 5 * i, 0] == 1).tolist() for i in range(3)]
    assert white == [[0], [1], [2]]
    assert np.flatnonzero(shown[5:, 5, 0] == 1).tolist() == [2]
    np.testing.assert_allclose([shown[3, 0, 0], shown[0, 10, 0]], 0.2)
    assert [axes.get_title() for axes in (first, second, probability)] == [
        "conv1: relative distance",
        "fc7: relative distance",
        "probability of the class",
    ]
    for axes, curves in zip((first, second, probability), (*relative, probabilities), strict=True):
        assert axes.get_xlabel() == "vertical translation (pixels)"
        assert axes.get_ylim()[0] == 0
        for line, curve in zip(axes.get_lines(), curves, strict=True):
            np.testing.assert_allclose(line.get_xydata(), np.stack([amounts, curve], 1))
    assert probability.get_ylim() == (0, 1.02)
    # One scale, so that the layers can be compared: 1.05 of 9 / 4.
    assert first.get_ylim() == second.get_ylim() == (0, pytest.approx(1.05 * relative.max()))
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["cat", "dog"]


def test_bars_are_means_and_deviations_of_each_part(tmp_path, monkeypatch):
    """The distances of the pairs are 0.1 and 0.3: mean 0.2, deviation 0.1."""
    images = np.full((2, 6, 6, 3), 255, np.uint8)
    boxes = {"eye": [Box(0, 0, 2, 2), Box(2, 2, 4, 4)]}
    pairs = (np.array([0.1, 0.3]), np.array([0.4, 0.4]))
    found = {
        layer: Correspondence(layer, ("eye", "random"), pairs, (0.0, 0.0), 8)
        for layer in ("conv5", "fc7")
    }
    figure = drawn_by(
        monkeypatch, draw_correspondence, images, boxes, found, tmp_path / "a.png", fill=0
    )
    *pictures, bars = figure.axes
    assert [axes.get_ylabel() for axes in pictures[::2]] == ["whole", "eye"]
    hidden = [np.argwhere(pixels_of(axes)[..., 0] == 0).tolist() for axes in pictures]
    squares = [[[r, c] for r in range(n, n + 2) for c in range(n, n + 2)] for n in (0, 2)]
    assert hidden == [[], [], *squares]
    heights = [bar.get_height() for bar in bars.patches]
    assert heights == pytest.approx([0.2, 0.4, 0.2, 0.4])
    centers = [bar.get_x() + bar.get_width() / 2 for bar in bars.patches]
    assert centers == pytest.approx([-0.2, 0.8, 0.2, 1.2])
    errors = [container.errorbar.lines[2][0].get_segments() for container in bars.containers
              if getattr(container, "errorbar", None)]  # fmt: skip
    assert errors[0][0][:, 1].tolist() == pytest.approx([0.1, 0.3])
    assert [text.get_text() for text in bars.get_xticklabels()] == ["eye", "random"]
    assert bars.get_ylabel() == "Δ, part of the units"
    assert [text.get_text() for text in bars.get_legend().get_texts()] == ["conv5", "fc7"]
