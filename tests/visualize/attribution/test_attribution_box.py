import numpy as np
import pytest

from cnnkit.errors import UsageError
from cnnkit.visualize.attribution.attribution_box import attribution_box
from cnnkit.visualize.attribution.base import Attribution


def values():
    """A large weak region, and a small strong one apart from it."""
    image = np.zeros((20, 30))
    image[2:8, 3:13] = 0.5
    image[12:15, 20:24] = 1
    return image


def test_the_largest_region_counts_not_the_strongest():
    assert attribution_box(values()) == (3, 2, 13, 8)
    assert attribution_box(values(), threshold=0.6) == (20, 12, 24, 15)


def test_a_scale_does_not_count():
    assert attribution_box(values() * 1e-6) == (3, 2, 13, 8)


def test_pixels_that_touch_by_a_corner_are_one_region():
    image = np.eye(6)
    assert attribution_box(image) == (0, 0, 6, 6)


def test_a_map_of_nothing_is_the_whole_image():
    assert attribution_box(np.zeros((4, 7))) == (0, 0, 7, 4)


def test_maps_of_single_pixels_are_blurred():
    image = np.zeros((100, 100))
    image[20:60:4, 30:70:4] = 1
    assert attribution_box(Attribution("gradcam", 0, 0, 0.0, image)) == (30, 20, 31, 21)
    left, top, right, bottom = attribution_box(
        Attribution("saliency", 0, 0, 0.0, image, image[..., None])
    )
    assert 20 < left < 31 and 67 < right < 77 and 10 < top < 21 and 57 < bottom < 67


def test_the_blur_is_that_of_a_gaussian_by_its_formula():
    """exp(-d**2 / (2 * s**2)) of one pixel, with s = 0.04 * 100, falls below 0.2 after 7 pixels."""
    image = np.zeros((100, 120))
    image[50, 40] = 1
    assert 8**2 > 2 * 4**2 * np.log(5) > 7**2
    one = Attribution("saliency", 0, 0, 0.0, image, image[..., None])
    assert attribution_box(one) == (40 - 7, 50 - 7, 40 + 8, 50 + 8)


def test_a_value_at_the_threshold_counts():
    assert attribution_box(np.array([[0, 0.25, 1.0]]), threshold=0.25) == (1, 0, 3, 1)


@pytest.mark.parametrize("threshold", [0, 1, -1])
def test_thresholds_out_of_range(threshold):
    with pytest.raises(UsageError, match="more than 0 and less than 1"):
        attribution_box(values(), threshold=threshold)
