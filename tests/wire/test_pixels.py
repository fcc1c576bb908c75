"""The legal values of pixels, against a loop over them."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cnnkit.wire.pixels import find_invalid_pixel

VALUES = st.sampled_from([0, 255, -64, 319, -64.5, 319.5, 1e5, 3e38, math.inf, -math.inf, math.nan])


@given(st.lists(st.lists(VALUES, min_size=4, max_size=4), max_size=4))
def test_the_first_invalid_pixel_of_the_first_image_that_has_one(rows):
    found = find_invalid_pixel(np.array(rows, np.float32).reshape(len(rows), 2, 2, 1))
    wrong = [
        (index, np.float32(value))
        for index, row in enumerate(rows)
        for value in row
        if math.isnan(value) or not -64 <= value <= 319
    ]
    if not wrong:
        assert found is None
    else:
        index, value = wrong[0]
        text = "pixels must be in 0..255 (-64 to 319 is accepted), received"
        assert found == f"images[{index}]: {text} {value:g}"


def test_integers_and_empty_batches():
    assert find_invalid_pixel(np.zeros((0, 4, 4, 3))) is None
    assert find_invalid_pixel(np.full((2, 4, 4, 3), 255, np.uint8)) is None
    assert find_invalid_pixel(np.full((2, 4, 4, 3), 65535, np.uint16)).endswith("received 65535")
