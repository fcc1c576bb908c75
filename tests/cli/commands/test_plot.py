"""`cnnkit plot`: curves of runs. Results of evaluations are in tests/figures/test_evaluation.py."""

import numpy as np
import pytest
from PIL import Image

from cnnkit.cli.commands import plot
from cnnkit.cli.main import main
from cnnkit.data import load_dataset
from cnnkit.errors import DataError, UsageError
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


RESULTS = {
    "dataset": "digits", "protocol": "center", "images": 1234, "seed": 0, "fingerprint": "f",
    "top1_error": 0.125, "classes": [{"label": "a"}, {"label": "b"}], "confusion": [[0, 1, 7]],
    "calibration": {"error": 0.0625, "bins": [{"low": 0.0}]}, "mistakes": [],
    "examples": [{"label": "a", "name": f"{i}", "index": i, "top": [["b", 0.5]]} for i in range(9)],
}  # fmt: skip


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn, by the name of the function."""
    found = {}
    for name in ("draw_confusion", "draw_predictions", "draw_reliability"):
        monkeypatch.setattr(
            f"cnnkit.figures.{name}",
            lambda *given, name=name, **options: found.update({name: (given, options)}),
        )
    monkeypatch.setattr(plot, "_read_images", lambda results, answers: ["image"] * len(answers))
    return found


def test_titles_and_the_first_eight_answers(drawn):
    options = {"dpi": 90, "overwrite": True}
    assert plot._draw_results("reliability", RESULTS, "x.png", options) == []
    (bins, output), settings = drawn["draw_reliability"]
    title = "digits, center: 1,234 images\nexpected calibration error 6.2%"
    assert (bins, output) == ([{"low": 0.0}], "x.png")
    assert settings == {"title": title, **options}
    assert plot._draw_results("confusion", RESULTS, "x.png", options) == []
    (matrix, labels, _), settings = drawn["draw_confusion"]
    assert (matrix.tolist(), labels) == ([[0, 7], [0, 0]], ["a", "b"])
    assert settings["title"] == "digits, center: 1,234 images, 12.5% top-1 error"
    lines = plot._draw_results("answers", RESULTS, "x.png", options)
    (images, answers, _), settings = drawn["draw_predictions"]
    assert (len(images), len(answers), settings) == (8, 8, options)
    assert lines[0].split() == ["image", "class", "answer", "probability"]
    assert lines[1].split()[-3:] == ["a", "b", "50.0%"] and len(lines) == 9


@pytest.mark.parametrize(
    ("kind", "change", "error", "text"),
    [
        ("mistakes", {}, UsageError, "needs an evaluation with mistakes. Use --kind answers"),
        ("reliability", {"calibration": {"error": 0, "bins": []}}, DataError, "must have bins"),
        ("confusion", {"classes": []}, UsageError, "draws 1 to 4,096 classes. Received: 0"),
        ("confusion", {"classes": [{"label": "a"}] * 4097}, UsageError, "Received: 4,097"),
    ],
)
def test_results_without_what_a_figure_shows(drawn, kind, change, error, text):
    with pytest.raises(error, match=text):
        plot._draw_results(kind, {**RESULTS, **change}, "x.png", {})
    partial = {name: value for name, value in RESULTS.items() if name != "protocol"}
    with pytest.raises(DataError, match="--results must have the field 'protocol'"):
        plot._draw_results(kind, partial, "x.png", {})
    assert drawn == {}


def test_the_largest_matrix():
    most = {**RESULTS, "classes": [{"label": "a"}] * 4096, "confusion": [[4095, 0, 2]]}
    matrix = plot._confusion_matrix(most)
    assert matrix.shape == (4096, 4096) and matrix[4095, 0] == 2 == matrix.sum()


def test_an_image_beyond_the_split_is_named():
    source = load_dataset("digits")
    results = {"dataset": "digits", "seed": 0, "fingerprint": source.fingerprint}
    assert len(plot._read_images(results, [{"index": 358}])) == 1
    with pytest.raises(DataError, match="Expected: images 0 to 358. Received: 359"):
        plot._read_images(results, [{"index": 3}, {"index": 359}])
