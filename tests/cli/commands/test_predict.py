"""`cnnkit predict`: tables, JSON lines, standard input, panels, wrong arguments."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.cli.commands import predict as command
from cnnkit.cli.main import main
from cnnkit.evaluation import predict
from cnnkit.figures import evaluation as drawing
from cnnkit.visualize import EXPLANATION_METHODS
from tests.helpers.evaluation_networks import LABELS, SIZE, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a run and photos/one.png, photos/two/three.png."""
    root = tmp_path_factory.mktemp("predict")
    write_run(root / "run", 3, root)
    random = np.random.default_rng(4)
    for name in ("one.png", "two/three.png"):
        file = root / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (20, 30, 3), np.uint8)
        file.write_bytes(tf.io.encode_png(pixels).numpy())
    return root


@pytest.fixture
def call(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)

    def run(*argv):
        capsys.readouterr()
        try:
            code = main(["predict", *map(str, argv)])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def figures(monkeypatch):
    kept = []
    monkeypatch.setattr(
        drawing, "save_figure", lambda figure, *args, **options: kept.append(figure)
    )
    return kept


def test_the_table_and_the_json_lines_are_of_all_files(call):
    expected = predict("run", "photos", top=2)
    code, out, err = call("run", "photos", "--top", 2)
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows[::2]] == ["photos/one.png", "photos/two/three.png"]
    assert [row[-2:] for row in rows] == [
        [label, f"{probability:.4f}"] for one in expected for label, probability in one.top
    ]
    code, out, err = call("run", "photos", "--top", 2, "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert (code, err, len(found)) == (0, "", 2)
    for one, other in zip(found, expected, strict=True):
        assert one["image"] == other.name
        for row, (label, probability), index in zip(
            one["predictions"], other.top, other.indices, strict=True
        ):
            assert (row["label"], row["class"]) == (label, index)
            assert row["probability"] == pytest.approx(probability, rel=1e-5)


def test_a_broken_file_does_not_keep_the_others_back(call, tmp_path, monkeypatch):
    (tmp_path / "no.png").write_bytes(b"no image")
    code, out, err = call("run", tmp_path / "no.png", "photos/one.png", "--json")
    broken, whole = map(json.loads, out.splitlines())
    assert code == 1
    assert err == f"cnnkit: error: {broken['error']}\n"
    assert "no.png must be an image" in broken["error"]
    assert (broken["image"], whole["image"]) == (str(tmp_path / "no.png"), "photos/one.png")
    data = Path("photos/one.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    code, out, err = call("run", "-", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {**whole, "image": "-"}
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO()))
    code, out, err = call("run", "-")
    assert (code, out) == (1, "")
    assert err == ("cnnkit: error: `PATH` - needs an image on standard input. Received: 0 bytes.\n")


def test_the_panel_shows_files_classes_and_reasons(call, figures, tmp_path):
    code, out, err = call(
        "run", "photos", "--panel", tmp_path / "why.png", "--explain", "gradcam", "--target", "c"
    )
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == str(tmp_path / "why.png")
    first, why, bars, second = figures[0].axes[:4]
    assert first.images[0].get_array().shape == (SIZE, SIZE, 3)
    assert [axes.texts[0].get_text() for axes in (first, second)] == [
        "photos/one.png",
        "photos/two/three.png",
    ]
    assert why.texts[0].get_text() == "gradcam of c"
    assert len(bars.patches) == 5
    code, out, err = call(
        "run", "photos", "--panel", tmp_path / "x.png", "--explain", "occlusion", "--json"
    )
    for line in map(json.loads, out.splitlines()):
        assert line["explained"]["method"] == "occlusion"
        for field in ("label", "class"):
            assert line["explained"][field] == line["predictions"][0][field]
    assert len(LABELS) == 7


def test_a_long_panel_shows_the_first_images(call, figures, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "MAX_DRAWN", 1)
    code, out, err = call("run", "photos", "--panel", tmp_path / "x.png")
    assert (code, err) == (0, f"cnnkit: note: {tmp_path / 'x.png'} shows the first 1 of 2 images\n")
    assert len(figures[0].axes) == 2


def test_methods_are_those_of_the_package():
    assert set(command.EXPLANATIONS) == set(EXPLANATION_METHODS)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["run", "photos", "--explain", "gradcam"], "--explain requires --panel PICTURE"),
        (["run", "photos", "--target", "a"], "--target requires --explain METHOD"),
        (["run", "photos", "--top", "0"], "--top must be a whole number of at least 1"),
        (["photos/one.png", "run"], "received the image photos/one.png"),
        (["nothing", "photos"], "`MODEL` must be an existing run folder"),
        (["run", "nothing"], "`PATH` must be an existing image file or folder"),
        (["run", "-", "photos", "-"], "`PATH` - must be given once. Received: - photos -."),
        (["run", "folder:photos"], "Received: folder:photos. Name the folder itself: photos."),
    ],
)
def test_wrong_words_are_found_before_tensorflow(call, monkeypatch, words, text):
    monkeypatch.setattr("cnnkit.cli.quiet_tensorflow.import_tensorflow", lambda: 1 / 0)
    code, out, err = call(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert text in err
