"""`cnnkit plot`: curves of runs. Results of evaluations are in tests/figures/test_evaluation.py."""

import numpy as np
import pytest
from PIL import Image

from cnnkit.cli.commands import plot
from cnnkit.cli.main import main
from cnnkit.data import load_dataset
from cnnkit.errors import DataError
from tests.helpers.run_folders import write_metrics_run, write_two_runs


def test_curves_of_two_runs_are_drawn(tmp_path, capsys):
    """A falling curve: ink above on the left, and below on the right, in both panels."""
    one, other = write_two_runs(tmp_path / "runs")
    picture = tmp_path / "curves.png"
    assert main(["plot", str(one.path), str(other.path), "--output", str(picture)]) == 0
    assert capsys.readouterr().out.strip() == str(picture)
    pixels = np.asarray(Image.open(picture).convert("RGB"), float)
    colors = (pixels.max(-1) - pixels.min(-1)) > 60
    # The legend stands below, as wide as the names are.
    colors = colors[: int(0.75 * len(colors))]
    for panel in np.array_split(colors, 2, axis=1):
        assert panel.sum() > 500
    loss = np.array_split(colors, 2, axis=1)[0]
    columns = np.flatnonzero(loss.any(0))
    left, right = loss[:, columns[:20]], loss[:, columns[-20:]]
    assert np.nonzero(left)[0].mean() < np.nonzero(right)[0].mean()
    for words, text in (
        (
            [str(one.path), "--output", str(tmp_path / "x.jpg")],
            "--output must be NAME.png or NAME.svg or NAME.pdf",
        ),
        ([str(tmp_path), "--output", str(picture), "--overwrite"], "No run folder"),
        (
            [
                str(write_metrics_run(tmp_path / "new", []).path),
                *("--output", str(picture), "--overwrite"),
            ],
            "no epoch to draw",
        ),
    ):
        assert main(["plot", *words]) == 2
        assert text in capsys.readouterr().err


def test_the_images_are_those_of_the_split_that_was_evaluated():
    source = load_dataset("digits", seed=3)
    results = {"dataset": "digits", "seed": 3, "fingerprint": source.fingerprint}
    [image] = plot._read_images(results, [{"index": 5}])
    np.testing.assert_array_equal(image, source.splits["test"].load_image(5))
    with pytest.raises(DataError, match="digits is not the one that was evaluated"):
        plot._read_images({**results, "seed": 4}, [{"index": 5}])
