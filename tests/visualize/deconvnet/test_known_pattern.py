"""The deconvnet in a model built by hand for a known pattern."""

import numpy as np
import pytest

from cnnkit.visualize import deconvnet, find_top_activations, top9
from tests.visualize.networks import SIZE, corner, corner_detector


@pytest.fixture(scope="module")
def detector():
    return corner_detector()


@pytest.mark.parametrize("place", [(3, 4), (8, 2), (0, 0)])
@pytest.mark.parametrize("layer", ["conv2", "pool2", "any", "top"])
def test_the_projection_is_the_pattern_at_its_place(detector, place, layer):
    image = corner(*place)
    [seen] = deconvnet(detector, image, layer, unit=0)
    factor = 2 if layer == "top" else 1
    np.testing.assert_array_equal(seen.projection, factor * image)
    assert seen.activation == factor * 1
    if layer == "conv2":
        assert seen.position == (place[0], place[1] + 1)


def test_the_image_with_the_pattern_has_the_strongest_activation(detector):
    images = np.zeros((5, SIZE, SIZE, 3), "float32")
    images[1, 5, 3:9, 0] = 1  # red alone
    images[2, 5:9, 3, 1] = 1  # green alone
    images[3] = corner(9, 7)
    # A unit that fires for one image has one projection, not nine of noise.
    [top] = top9(detector, images, ["conv2"])["conv2"]
    assert [one.image for one in top.projections] == [3]
    np.testing.assert_array_equal(top.projections[0].projection, images[3])
    without = np.delete(images, 3, axis=0)
    assert find_top_activations(detector, without, ["conv2"])["conv2"].dead.all()
