"""Texts of figures: names are drawn as they are, not as formulas."""

import numpy as np
import pytest
from matplotlib.text import Text

from cnnkit.figures import canvas, draw_confusion
from cnnkit.figures.canvas import new_figure, plain_name, save_figure

# No formula, a formula, an escape sequence with a line, and a name that a legend would leave out.
NAMES = (r"$\frac{$", "$x^2$ for $5", "cat\x1b[2J\ndog", "_hidden")


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures = []

    def save(figure, path, *, dpi):
        save_figure(figure, path, dpi=dpi)
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
