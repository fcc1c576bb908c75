"""Arrays as pixels: signs around gray, maps as heat."""

import numpy as np
import pytest

from cnnkit._pixels import as_rgb, center_on_gray, distinguishing_digits, heat, to_unit_range


def test_signed_values_lie_around_gray():
    values = np.array([[[-2.0], [0.0], [1.0]]])
    np.testing.assert_allclose(center_on_gray(values)[..., 0], [[0, 0.5, 0.75]])
    assert center_on_gray(values).shape == (1, 3, 3)
    assert (center_on_gray(0 * values) == 0.5).all()


def test_a_gray_image_has_three_channels():
    np.testing.assert_allclose(as_rgb(np.array([[[51.0], [300.0]]])), [[[0.2] * 3, [1] * 3]])


def test_a_map_is_scaled_by_its_largest_values():
    values = np.r_[np.zeros(1000), np.linspace(0.01, 1, 1000), 50.0].reshape(1, -1)
    scaled = to_unit_range(values)
    assert (scaled == 1).sum() == 6  # half a percent of the 1,001 positive values
    assert (to_unit_range(np.zeros((2, 2))) == 0).all()


def test_heat_is_black_red_yellow_white():
    np.testing.assert_allclose(
        heat(np.array([[0, 1, 2, 3.0, 3, 3] + 994 * [3.0]]))[0, :4],
        [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]],
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("values", "digits"),
    [
        ([0.9998, 1.0], 5), ([9, 1000], 0), ([0, 10], 0), ([0, 9.99], 1), ([0, 1], 1),
        ([0.25, 0.25], 2), ([0, 0], 1), ([-40, -40], 0), ([0, 1e-12], 8),
    ],
)  # fmt: skip
def test_numbers_beside_a_map_have_the_digits_that_tell_its_values_apart(values, digits):
    assert distinguishing_digits(np.array(values)) == digits
