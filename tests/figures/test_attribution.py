"""Explanations as images: maps over the gray image, signed pixels around gray, and figures."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest

from cnnkit.figures import draw_attribution, draw_comparison, draw_synthesized
from cnnkit.figures.attribution import explanation_pixels
from cnnkit.visualize import Attribution, AttributionComparison, SynthesizedImage
from tests.helpers.drawn_figures import drawn_by, pixels_of

IMAGE = np.full((1, 2, 3), (102, 51, 0), np.uint8)


@pytest.mark.parametrize("image", [IMAGE, np.full((1, 2, 1), 51, np.uint8)])
def test_a_map_colors_the_gray_image(image):
    """Saliency has a gradient too, and it is not what is shown."""
    signed = np.ones((1, 2, 3), np.float32)
    one = Attribution("saliency", 0, 0, 1.0, np.array([[0, 4]], np.float32), signed)
    highest = np.array(matplotlib.colormaps["inferno"](1.0)[:3])
    pixels = explanation_pixels(image, one)
    # Where the map is zero, the image has no veil.
    np.testing.assert_allclose(pixels[0, 0], 0.2, atol=1e-6)
    np.testing.assert_allclose(pixels[0, 1], 0.2 * 0.2 + 0.8 * highest, atol=1e-6)


def test_the_pixels_of_a_rule_keep_their_sign():
    signed = np.array([[[2, 0, 0], [0, -2, 0]]], np.float32)
    one = Attribution("deconvnet", 0, 0, 1.0, np.abs(signed).max(-1), signed)
    expected = [[[1, 0.5, 0.5], [0.5, 0, 0.5]]]
    np.testing.assert_allclose(explanation_pixels(IMAGE, one), expected)


def test_a_map_is_beside_its_image(tmp_path, monkeypatch):
    values = np.array([[0, 4]], np.float32)
    one = Attribution("gradcam", 0, 3, 1.25, values, None, "conv5", np.ones((13, 13), np.float32))
    figure = drawn_by(monkeypatch, draw_attribution, IMAGE, one, tmp_path / "a.png", name="cat")
    image, alone, over, bar = figure.axes
    assert [axes.get_title() for axes in (image, alone, over)] == [
        "image",
        "gradcam, cat",
        "over the image",
    ]
    np.testing.assert_allclose(pixels_of(image)[0, 1], [0.4, 0.2, 0])
    assert pixels_of(alone).tolist() == [[0, 1]]
    assert alone.get_images()[0].get_clim() == (0, 1)
    np.testing.assert_allclose(pixels_of(over), explanation_pixels(IMAGE, one))
    assert [text.get_text() for text in bar.get_yticklabels()] == ["0", "4"]
    [caption] = figure.texts
    assert caption.get_text().startswith("logit 1.25 · maps of conv5, 13 x 13 positions, bicubic")


def test_a_class_without_a_name_is_drawn_with_its_number(tmp_path, monkeypatch):
    one = Attribution("saliency", 0, 3, 1.0, np.ones((1, 2), np.float32))
    figure = drawn_by(monkeypatch, draw_attribution, IMAGE, one, tmp_path / "a.png")
    assert figure.axes[1].get_title() == "saliency, class 3"
    assert figure.texts[0].get_text().startswith("logit 1 · the 0.5% largest values")


def test_a_comparison_has_a_row_for_each_randomized_stage(tmp_path, monkeypatch):
    signed = np.zeros((2, 2, 3), np.float32)
    signed[0, 0] = [2, -2, 0]
    unsigned = np.array([[0, 1], [2, 4]], np.float32)
    result = AttributionComparison(
        ("deconvnet", "gradcam"), 1, 2.0, (signed, unsigned), ("fc8", "conv5"),
        ((signed, unsigned.T), (-signed, 0 * unsigned)),
        np.array([[1, 0.5], [-0.25, np.nan]]), 0, "conv5",
    )  # fmt: skip
    picture = np.zeros((2, 2, 3), np.uint8)
    figure = drawn_by(monkeypatch, draw_comparison, picture, result, tmp_path / "a.png", name="cat")
    grid = np.reshape(figure.axes, (3, 3))
    titles = [[axes.get_title() for axes in row] for row in grid]
    assert titles == [
        ["cat", "deconvnet", "gradcam conv5"],
        ["", "ρ = 1.00", "ρ = 0.50"],
        ["", "ρ = -0.25", "one value"],
    ]
    for row, stage in zip(grid[1:], result.stages, strict=True):
        assert [text.get_text().splitlines()[-1] for text in row[0].texts] == [f"down to {stage}"]
    firsts = [pixels_of(row[1])[0, 0].tolist() for row in grid]
    assert firsts == [[1, 0, 0.5], [1, 0, 0.5], [0, 1, 0.5]]
    np.testing.assert_allclose(pixels_of(grid[1, 2]), [[0, 0.5], [0.25, 1]], atol=0.01)
    assert pixels_of(grid[2, 2]).tolist() == [[0, 0], [0, 0]]


def test_synthesized_images_tell_their_activation(tmp_path, monkeypatch):
    made = [
        SynthesizedImage("conv5", unit, np.full((2, 2, 3), 51 * unit, np.float32), 12.5, -1.5, ())
        for unit in range(5)
    ]
    made[4] = replace(made[4], fires=False)
    figure = drawn_by(monkeypatch, draw_synthesized, made, tmp_path / "a.png")
    # Four in a row.
    places = [axes.get_position() for axes in figure.axes]
    assert places[4].y1 < places[3].y0 == places[0].y0
    for unit, axes in enumerate(figure.axes[:5]):
        np.testing.assert_allclose(pixels_of(axes), 0.2 * unit)
        shown = f"conv5 unit {unit}\n-1.5 → 12.5" + (": does not fire" if unit == 4 else "")
        assert axes.get_title() == shown
