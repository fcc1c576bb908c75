"""`cnnkit plot` of what an evaluation found: what is drawn stands at its place."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from cnnkit._file_tree import newest_results
from cnnkit.cli.main import main
from cnnkit.figures import draw_confusion, draw_predictions, draw_reliability
from cnnkit.figures import evaluation as drawing
from cnnkit.figures.attribution import explanation_pixels
from cnnkit.visualize import Attribution
from tests.helpers.drawn_figures import drawn_by
from tests.helpers.evaluation_networks import LABELS, write_folder, write_run

# The field of the results that a figure draws.
KEYS = {"answers": "examples", "mistakes": "mistakes"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("pictures") / "seven", LABELS)


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("runs") / "run", 3, dataset)
    assert main(["evaluate", str(folder)]) == 0
    return folder


@pytest.fixture
def figures(monkeypatch):
    """The figures themselves, as they are about to be saved."""
    kept = []

    def keep(figure, *args, **options):
        kept.append(figure)

    monkeypatch.setattr(drawing, "save_figure", keep)
    return kept


def test_the_matrix(figures, tmp_path):
    matrix = np.array([[8, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 4]])
    draw_confusion(matrix, ["cat", "dog", "emu", "fox"], tmp_path / "x.png", title="two")
    axes = figures[0].axes[0]
    # The emu was neither shown nor answered.
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat", "dog", "fox"]
    shades = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(shades, [[0.8, 0.2, 0], [0, 0, 0], [0.2, 0, 0.8]])
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "8", (1, 0): "2", (0, 2): "1", (2, 2): "4"}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("answer", "right class")


def test_the_bars(figures, tmp_path):
    pictures = [np.full((4, 6, 3), shade, np.uint8) for shade in (10, 200)]
    answers = [
        {"label": "b", "probability": 0.25, "top": [["a", 0.5], ["b", 0.25]]},
        {"label": "c", "probability": 0.1, "top": [["a", 0.75], ["b", 0.15]]},
    ]
    draw_predictions(pictures, answers, tmp_path / "x.png")
    shown, bars, shown2, bars2 = figures[0].axes
    assert [axes.texts[0].get_text() for axes in (shown, shown2)] == ["b", "c"]
    assert shown2.images[0].get_array()[0, 0, 0] == 200 / 255
    assert [bar.get_width() for bar in bars.patches] == [0.5, 0.25]
    red = [bar.get_facecolor()[:3] == to_rgb(drawing.RIGHT) for bar in bars.patches]
    assert red == [False, True]
    assert not any(bar.get_facecolor()[:3] == to_rgb(drawing.RIGHT) for bar in bars2.patches)
    assert [text.get_text() for text in bars.texts] == ["a  50.0%", "b  25.0%"]


def test_names_and_explanations(figures, tmp_path):
    """A map over the gray image, and the signed pixels of a rule, under the name of the file."""
    pictures = [np.full((4, 6, 3), shade, np.uint8) for shade in (10, 200)]
    answers = [
        {"name": "photos/" + "x" * 60 + "/$1.png", "top": [["a", 0.5]]},
        {"name": "b.png", "top": [["b", 0.75], ["a" * 80, 0.25]]},
    ]
    heat = np.zeros((4, 6), np.float32)
    heat[1, 2] = 7
    signed = np.zeros((4, 6, 3), np.float32)
    signed[0, 0], signed[3, 5] = 2, -2
    explanations = [
        Attribution("gradcam", 0, 0, 1.0, heat),
        Attribution("deconvnet", 1, 1, 1.0, np.abs(signed).max(-1), signed),
    ]
    path = tmp_path / "x.png"
    draw_predictions(pictures, answers, path, explanations=explanations, class_names=["a", "b"])
    first, map_, bars, second, pixels, bars2 = figures[0].axes
    [name], [other] = first.texts, second.texts
    assert (len(name.get_text()), name.get_text()[0]) == (drawing.MAX_FILE, "…")
    assert name.get_text().endswith("x/$1.png")
    assert other.get_text() == "b.png"
    assert [axes.texts[0].get_text() for axes in (map_, pixels)] == [
        "gradcam of a",
        "deconvnet of b",
    ]
    over = np.asarray(map_.images[0].get_array())
    np.testing.assert_array_equal(over, explanation_pixels(pictures[0], explanations[0]))
    assert np.unravel_index(over.sum(axis=-1).argmax(), heat.shape) == (1, 2)
    shown = np.asarray(pixels.images[0].get_array())
    assert (shown[0, 0, 0], shown[1, 1, 0], shown[3, 5, 0]) == (1, 0.5, 0)
    assert len(bars2.texts[1].get_text()) < 45
    assert not any(bar.get_facecolor()[:3] == to_rgb(drawing.RIGHT) for bar in bars.patches)
    assert figures[0].texts[0].get_text() == "bars are probabilities · gray is 0"


def test_the_reliability(figures, tmp_path):
    bins = [
        {"low": 0, "high": 0.5, "images": 0, "confidence": None, "accuracy": None},
        {"low": 0.5, "high": 1, "images": 8, "confidence": 0.9, "accuracy": 0.75},
    ]
    draw_reliability(bins, tmp_path / "x.png", title="two")
    above, below = figures[0].axes
    [bar] = above.patches
    assert (bar.get_x(), bar.get_width(), bar.get_height()) == (0.5, 0.5, 0.75)
    [line] = above.collections[1].get_segments()
    assert line.tolist() == [[0.5, 0.9], [1, 0.9]]
    assert [bar.get_height() for bar in below.patches] == [0, 8]
    # Three of four: the standard error is the root of 3/4 1/4 / 8.
    [whisker] = above.collections[0].get_segments()
    np.testing.assert_allclose(whisker[:, 1], 0.75 + np.array([-1, 1]) * np.sqrt(3 / 128))
    assert [text.get_text() for text in below.texts] == ["", "8"]


def test_a_bar_of_few_images_is_pale(monkeypatch, tmp_path):
    bins = [
        {"low": i / 3, "high": (i + 1) / 3, "images": images, "confidence": 0.5, "accuracy": 0.5}
        for i, images in enumerate((4, 400, 100))
    ]
    figure = drawn_by(monkeypatch, draw_reliability, bins, tmp_path / "x.png", title="two")
    opacity = [bar.get_alpha() for bar in figure.axes[0].patches]
    # By the root of the number of images: a tenth, all, a half.
    np.testing.assert_allclose(opacity, [0.28, 1, 0.6])


@pytest.mark.parametrize("kind", ["confusion", "reliability", "answers", "mistakes"])
def test_the_command_draws_the_last_evaluation(run, kind, tmp_path, capsys):
    picture = tmp_path / "x.png"
    assert main(["plot", str(run), "--kind", kind, "--output", str(picture)]) == 0
    *named, last = capsys.readouterr().out.splitlines()
    assert last == str(picture)
    rows = json.loads(newest_results(run).read_text()).get(KEYS.get(kind), [])[:8]
    assert len(named) == (len(rows) + 1 if rows else 0)
    for line, one in zip(named[1:], rows, strict=True):
        file, label, answer, _ = re.split(r"  +", line)
        assert Path(file).is_file()
        assert file.endswith(one["name"])
        assert (label, answer) == (one["label"], one["top"][0][0])
    assert np.asarray(Image.open(picture).convert("RGB")).std() > 10
    assert list(tmp_path.iterdir()) == [picture]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ("{run} {run} --kind confusion", 2, "--kind confusion draws one run"),
        ("{run} --results {run}/config.json", 2, "--results requires another --kind than curves"),
        ("{run} --kind answers --results {tmp}/x.json", 2, "--results must be an existing file"),
        ("{run} --kind confusion --results {run}/config.json", 1, "holds no results"),
        ("{run} --kind answers --results {tmp}/other.json", 1, "is not the one that was evaluated"),
        ("{fresh} --kind confusion", 2, "has not been evaluated yet. Run `cnnkit evaluate"),
    ],
)
def test_bad_input_is_one_line(run, dataset, tmp_path, capsys, words, code, text):
    fresh = write_run(tmp_path / "fresh", 1, dataset)
    other = json.loads(newest_results(run).read_text())
    (tmp_path / "other.json").write_text(json.dumps({**other, "fingerprint": "other"}))
    places = {"run": run, "tmp": tmp_path, "fresh": fresh}
    words = [word.format(**places) for word in words.split()]
    capsys.readouterr()
    assert main(["plot", *words, "--output", str(tmp_path / "x.png")]) == code
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("number", [1, 3])
def test_the_caption_is_whole_and_below_the_bars(figures, tmp_path, number):
    pictures = [np.zeros((4, 4, 3), np.uint8)] * number
    answers = [{"name": "a.png", "top": [["a", 0.5]]}] * number
    explanations = [Attribution("gradcam", 0, 0, 1.0, np.eye(4, dtype=np.float32))] * number
    draw_predictions(pictures, answers, tmp_path / "x.png", explanations=explanations)
    [figure] = figures
    [caption] = figure.texts
    box = caption.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
    width, height = figure.get_size_inches()
    bars = min(axes.get_position().y0 for axes in figure.axes) * height
    assert box.x0 > 0.05 and box.x1 < width - 0.05
    assert 0.05 < box.y0 < box.y1 < bars - 0.05
