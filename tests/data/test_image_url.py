"""Images as data URLs."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from cnnkit._html.elements import DataUrl
from cnnkit.data.image_url import image_url, pictures_html
from tests._html.test_elements import read


def decode(url):
    assert isinstance(url, DataUrl)
    kind, content = url.removeprefix("data:").split(";base64,")
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        return kind, np.asarray(image)


def test_every_pixel_is_kept(rng):
    pixels = rng.integers(0, 256, (5, 7, 3), np.uint8)
    for given in (pixels, pixels / 255):
        kind, found = decode(image_url(given, photo=True))
        assert kind == "image/png"
        np.testing.assert_array_equal(found, pixels)
    kind, found = decode(image_url(pixels[..., :1]))
    np.testing.assert_array_equal(found, pixels[..., 0])


@pytest.mark.parametrize("as_float", [False, True])
def test_a_large_photo_is_reduced_and_compressed(as_float):
    pixels = np.full((400, 200, 3), 100, np.uint8)
    kind, found = decode(image_url(pixels / 255 if as_float else pixels, photo=True, side=100))
    assert kind == "image/jpeg"
    assert found.shape == (100, 50, 3)
    assert np.abs(found.astype(int) - 100).max() <= 2


def test_a_reduced_image_counts_every_pixel():
    """Of every four rows the two in the middle are white."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[1::4] = pixels[2::4] = 255
    _, found = decode(image_url(pixels, side=16))
    assert 100 < found[4:-4].min() <= found[4:-4].max() < 200
    _, found = decode(image_url(np.full_like(pixels, 255), side=16))
    assert (found == 255).all()


def test_floats_outside_of_their_range_are_clipped():
    _, found = decode(image_url(np.array([[[1.5, -0.5, 0.5]]])))
    assert found.tolist() == [[[255, 0, 128]]]


def test_pictures_stand_beside_each_other_with_captions():
    found = read(
        pictures_html("a <b>", [(np.zeros((2, 2, 3)), "c <i>"), (np.ones((2, 2, 3)), "d")])
    )
    assert found.tags.count("img") == 2
    assert "".join(found.texts) == "a <b>c <i>d"
    assert "img" not in pictures_html("none", [])
