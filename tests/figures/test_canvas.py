"""Texts of figures are drawn as they are, not as formulas; files of figures in three formats."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from cnnkit import figures
from cnnkit.errors import UsageError
from cnnkit.figures import canvas, draw_confusion
from cnnkit.figures.canvas import (
    check_picture,
    new_figure,
    plain_name,
    save_figure,
    text_height,
    tile_pictures,
    wrap_text,
)

# No formula, a formula, an escape sequence with a line, and a name that a legend would leave out.
NAMES = (r"$\frac{$", "$x^2$ for $5", "cat\x1b[2J\ndog", "_hidden")


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures = []

    def save(figure, path, **picture):
        save_figure(figure, path, **picture)
        figures.append(figure)

    monkeypatch.setattr("cnnkit.figures.evaluation.save_figure", save)
    return figures


def test_names_are_no_formulas_wherever_they_are_drawn(tmp_path, drawn):
    draw_confusion(np.eye(4, dtype=int), NAMES, tmp_path / "a.png", title=NAMES[0])
    axes = drawn[0].axes[0]
    expected = [r"$\frac{$", "$x^2$ for $5", r"cat\x1b[2J\ndog", " _hidden"]
    assert [label.get_text() for label in axes.get_xticklabels()] == expected
    assert axes.get_title() == NAMES[0]
    assert not any(text.get_parse_math() for text in drawn[0].findobj(Text))
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_control_characters_are_drawn_as_escapes_and_long_texts_shortened(tmp_path):
    figure = new_figure(2, 2)
    text = figure.text(0, 0, "two\nlines\r\u202e" + "a" * 10**6)
    save_figure(figure, tmp_path / "a.png", dpi=20)
    assert text.get_text().startswith("two\nlines\\r\\u202ea")
    assert len(text.get_text()) < canvas._MAX_TEXT + 100


def test_a_name_of_a_legend_is_never_left_out():
    figure = new_figure(2, 2)
    axes = figure.add_subplot()
    for name in NAMES:
        axes.plot([0], [0], label=plain_name(name))
    assert [text.get_text() for text in axes.legend().get_texts()] == list(map(plain_name, NAMES))


def test_the_ending_of_the_name_chooses_the_format(tmp_path):
    for ending, begins in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")):
        files = [tmp_path / "new" / f"{name}{ending}" for name in ("one", "two")]
        for file in files:  # in a folder that is made
            draw_confusion(np.eye(2, dtype=int), "ab", file, title="<script>&")
        one, two = (file.read_bytes() for file in files)
        assert one.startswith(begins)
        assert one == two  # neither a date nor random names
    assert b"<script" not in (tmp_path / "new" / "one.svg").read_bytes()


def test_the_resolution_is_that_of_the_figure_or_the_given_one(tmp_path):
    for name, dpi, expected in (("own", None, 150), ("fine", 60, 60)):
        save_figure(new_figure(2, 1), tmp_path / f"{name}.png", dpi=dpi)
        with Image.open(tmp_path / f"{name}.png") as written:
            assert written.size == (2 * expected, expected)


def test_a_picture_is_replaced_only_if_that_is_said(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"mine")
    for picture in ({}, {"overwrite": False}):
        with pytest.raises(UsageError, match=r"`path` must be a new file.* `overwrite=True` repl"):
            draw_confusion(np.eye(2, dtype=int), "ab", path, **picture)
    assert path.read_bytes() == b"mine"
    draw_confusion(np.eye(2, dtype=int), "ab", path, overwrite=True)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("path", "picture", "text"),
    [
        ("a.jpg", {}, "`path` must end in .png, .svg or .pdf. Received: a.jpg"),
        ("", {}, "`path` must end in .png, .svg or .pdf. Received: no name"),
        (
            "file/a.png",
            {},
            "`path` must be in a folder that you may write to. Received: file/a.png in",
        ),
        ("folder.png", {}, "`path` must be a file. Received: the folder folder.png"),
        ("a.png", {"dpi": 9}, "`dpi` must be 10 to 1200. Received: 9"),
        ("a.png", {"dpi": 1201}, "`dpi` must be 10 to 1200. Received: 1201"),
    ],
)
def test_a_file_that_cannot_be_written_is_told_in_one_line(
    tmp_path, monkeypatch, path, picture, text
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=text):
        check_picture(path, **picture)


def test_a_picture_too_large_for_the_memory_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"200,000,000 pixels. Expected: at most 707 dpi"):
        save_figure(new_figure(20, 20), tmp_path / "a.png", dpi=1200)
    assert not list(tmp_path.iterdir())


def test_every_figure_takes_the_resolution_and_overwrite():
    for name in figures.__all__:
        if name.startswith("draw_"):
            parameters = inspect.signature(getattr(figures, name)).parameters
            assert parameters["picture"].annotation == "Unpack[PictureOptions]", name


def test_texts_of_figures_are_readable():
    """No text is smaller than nine points: a fiftieth of the height of a slide."""
    found = 0
    for file in Path(figures.__file__).parent.glob("*.py"):
        source = file.read_text()
        sizes = [
            float(getattr(canvas, size, None) or size)
            for value in re.findall(r"(?:font|label)size=([^,)\n]+)", source)
            for size in re.findall(r"TITLE|TEXT|TICKS|\d+\.?\d*", re.sub(r" \+ \d+", "", value))
        ]
        assert min(sizes, default=9) >= 9, file
        found += len(sizes)
    assert found > 40
    assert canvas.DEFAULT_DPI >= 150


def test_a_text_is_as_wide_as_it_is_wrapped(tmp_path):
    """Beside the renderer of matplotlib, which measures the letters."""
    words = "Euclidean distance from the features of the image as it is, divided by their length; "
    for size in (9, 11, 12):
        figure = new_figure(4, 3)
        text = figure.text(0, 0, wrap_text(3 * words, 4, size), fontsize=size)
        save_figure(figure, tmp_path / f"{size}.png")
        figure.draw_without_rendering()
        box = text.get_window_extent()
        assert 3.2 < box.width / figure.dpi < 4.2
        assert box.height / figure.dpi < text_height(text.get_text(), size)


def test_pictures_are_tiled_with_white_between_them():
    shown = tile_pictures([np.full((4, 4, 3), 0.1 * n) for n in range(3)], 2)
    assert shown.shape == (9, 9, 3)
    places = [(slice(0, 4), slice(0, 4)), (slice(0, 4), slice(5, 9)), (slice(5, 9), slice(0, 4))]
    for n, place in enumerate(places):
        np.testing.assert_allclose(shown[place], 0.1 * n)
        shown[place] = 1
    assert (shown == 1).all()
