"""The figure of a learning-rate sweep."""

import numpy as np
import pytest

from cnnkit.errors import UsageError
from cnnkit.figures import draw_learning_rate_sweep, learning_rates


def test_rates_are_numbers_and_the_chosen_one_is_marked(monkeypatch):
    """Powers of ten were printed as the source of formulas."""
    kept = []
    monkeypatch.setattr(learning_rates, "save_figure", lambda figure, *_, **__: kept.append(figure))
    rates = np.geomspace(1e-6, 1, 7)
    losses = [2.0, 2.0, 1.0, 0.5, 1.0, 30.0, 900.0]
    draw_learning_rate_sweep(rates, losses, 1e-4, "x.png")
    [axes] = kept[0].axes
    axes.set_xlim(1e-6, 1)
    kept[0].draw_without_rendering()
    shown = [text.get_text() for text in axes.get_xticklabels() if text.get_text()]
    assert {"0.001", "1"} <= set(shown)
    assert not any("$" in text for text in shown)
    line, mark = axes.lines
    np.testing.assert_array_equal(line.get_xydata(), np.column_stack((rates, losses)))
    assert list(mark.get_xdata()) == [1e-4, 1e-4]
    # A loss that explodes does not hide the others.
    assert axes.get_ylim()[1] < 10
    with pytest.raises(UsageError, match="`losses` must have a number for each of `rates`"):
        draw_learning_rate_sweep([], [], 0.1, "x.png")
