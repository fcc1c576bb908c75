"""The learning curve: error bars of one standard deviation."""

import numpy as np

from cnnkit.figures import draw_learning_curve
from cnnkit.transfer import SplitScore, TransferScore


def test_the_bars_are_one_deviation(monkeypatch, tmp_path):
    from matplotlib.axes import Axes

    drawn = []
    monkeypatch.setattr(
        Axes, "errorbar", lambda self, x, y, **rest: drawn.append((x, y, rest["yerr"]))
    )
    monkeypatch.setattr(Axes, "legend", lambda self, **rest: None)

    def scored(per_class, *recalls):
        splits = (SplitScore(i, 1.0, r, (r,), per_class, 4, None) for i, r in enumerate(recalls))
        return TransferScore("fc7", "svm", per_class, tuple(splits))

    scores = [scored(15, 0.5, 0.7), scored(5, 0.2, 0.4)]
    draw_learning_curve(scores, tmp_path / "a.png")
    [(x, y, bars)] = drawn
    assert x == [5, 15]
    np.testing.assert_allclose(y, [30, 60])
    np.testing.assert_allclose(bars, [10 * np.sqrt(2), 10 * np.sqrt(2)])
