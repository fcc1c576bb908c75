"""The figure of images with boxes."""

import numpy as np
import pytest

from cnnkit.errors import UsageError
from cnnkit.evaluation import FileLocalization, LocatedObject
from cnnkit.figures import draw_localizations
from tests.helpers.drawn_figures import drawn_by


def results():
    image = np.full((20, 30, 3), 90, np.uint8)
    cat = LocatedObject("cat", 0, 0.75, (2.0, 4.0, 12.0, 18.0))
    dog = LocatedObject("_d\nog", 1, 0.25, (0.0, 0.0, 30.0, 20.0))
    return [
        FileLocalization("photos/one.png", (cat, dog), image),
        FileLocalization("x" * 50 + ".png", (dog,), image),
    ]


def boxes(axes):
    return [
        (*one.get_xy(), one.get_width(), one.get_height(), one.get_linestyle())
        for one in axes.patches
    ]


def test_every_box_is_drawn_at_its_pixels(monkeypatch, tmp_path):
    known = [np.array([[1.0, 2.0, 3.0, 5.0]]), np.zeros((0, 4))]
    figure = drawn_by(monkeypatch, draw_localizations, results(), tmp_path / "a.png", known=known)
    first, second = figure.axes
    # The first pixel goes from -0.5 to 0.5; a known box is dashed.
    assert boxes(first) == [
        (0.5, 1.5, 2, 3, "--"),
        (1.5, 3.5, 10, 14, "-"),
        (-0.5, -0.5, 30, 20, "-"),
    ]
    assert boxes(second) == [(-0.5, -0.5, 30, 20, "-")]
    texts = [text.get_text() for text in first.texts if text.get_text() != "■"]
    assert texts[0] == "■ cat 0.75" and "0.25" in texts[1]
    assert first.get_title() == "one.png" and second.get_title().startswith("...")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_every_row_has_the_height_of_its_image_and_texts(monkeypatch, tmp_path):
    sizes = []
    for columns in (1, 2):
        path = tmp_path / f"{columns}.png"
        figure = drawn_by(monkeypatch, draw_localizations, results(), path, columns=columns)
        sizes.append(figure.get_size_inches())
    (width, height), (width_of_two, height_of_one) = sizes
    assert (width_of_two, height) == pytest.approx((2 * width, 2 * height_of_one))
    assert height_of_one > width


def test_a_picture_that_exists_is_kept(tmp_path):
    (tmp_path / "a.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match="must be a new file"):
        draw_localizations(results(), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"mine"
