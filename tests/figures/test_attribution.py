"""Explanations as images: maps over the gray image, and signed pixels around gray."""

import matplotlib
import numpy as np
import pytest

from cnnkit.figures.attribution import explanation_pixels
from cnnkit.visualize import Attribution

IMAGE = np.full((1, 2, 3), (102, 51, 0), np.uint8)


@pytest.mark.parametrize("image", [IMAGE, np.full((1, 2, 1), 51, np.uint8)])
def test_a_map_colors_the_gray_image(image):
    """Saliency has a gradient too, and it is not what is shown."""
    signed = np.ones((1, 2, 3), np.float32)
    one = Attribution("saliency", 0, 0, 1.0, np.array([[0, 4]], np.float32), signed)
    lowest, highest = (np.array(matplotlib.colormaps["inferno"](x)[:3]) for x in (0.0, 1.0))
    pixels = explanation_pixels(image, one)
    np.testing.assert_allclose(pixels[0, 0], 0.75 * 0.2 + 0.25 * lowest, atol=1e-6)
    np.testing.assert_allclose(pixels[0, 1], 0.15 * 0.2 + 0.85 * highest, atol=1e-6)


def test_the_pixels_of_a_rule_keep_their_sign():
    signed = np.array([[[2, 0, 0], [0, -2, 0]]], np.float32)
    one = Attribution("deconvnet", 0, 0, 1.0, np.abs(signed).max(-1), signed)
    expected = [[[1, 0.5, 0.5], [0.5, 0, 0.5]]]
    np.testing.assert_allclose(explanation_pixels(IMAGE, one), expected)
