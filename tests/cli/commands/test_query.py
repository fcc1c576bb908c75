"""`cnnkit query` beyond single files: folders, standard input, explanations, readiness."""

import io
import json
import re
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest

from cnnkit.cli.main import main
from cnnkit.client import Explanation
from cnnkit.figures import draw_explanations
from cnnkit.wire import cnnkit_serving_pb2 as pb
from tests.helpers.fake_servers import Brightness, fake_server


@pytest.fixture
def brightness():
    model = Brightness()
    with fake_server(model) as address:
        model.options = ["--server", address, "--model", "hours"]
        yield model


@pytest.fixture
def query(capfd, tmp_path, monkeypatch):
    """Runs `cnnkit query` in a folder of its own; returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        capfd.readouterr()
        try:
            code = main(["query", *map(str, argv)])
        except SystemExit as stop:
            code = stop.code
        return code, *capfd.readouterr()

    return run


def stdin(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))


def test_a_folder_is_all_images_in_it(query, brightness):
    for name in ("b/2.JPG", "b/1.png", "a.gif", "notes.txt", "b/deep/3.webp"):
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Path("photos", name).write_bytes(b"B" + name.encode())
    code, out, err = query("photos", *brightness.options, "--top", "1")
    assert (code, err) == (0, "")
    names = ["photos/a.gif", "photos/b/1.png", "photos/b/2.JPG", "photos/b/deep/3.webp"]
    assert [line.split() for line in out.splitlines()] == [
        [name, "day", "0.7500"] for name in names
    ]
    sent = [images for _, images in brightness.asked]
    assert sent == [[b"Ba.gif"], [b"Bb/1.png"], [b"Bb/2.JPG"], [b"Bb/deep/3.webp"]]


def test_a_folder_without_images(query, brightness):
    Path("photos").mkdir()
    Path("photos/notes.txt").write_text("B")
    code, out, err = query("photos", *brightness.options)
    assert (code, out) == (2, "")
    assert "has no image files. Expected: files .bmp .gif .jpeg" in err


def test_standard_input(query, brightness, monkeypatch):
    stdin(monkeypatch, b"a night")
    code, out, err = query("-", *brightness.options, "--json")
    assert (code, err) == (0, "")
    [result] = json.loads(out)["results"]
    assert result["image"] == "-"
    assert result["predictions"][0] == {"label": "night", "probability": 0.75}
    assert brightness.asked == [("classify_bytes", [b"a night"])]


def test_standard_input_that_is_empty_or_named_twice(query, brightness, monkeypatch):
    stdin(monkeypatch, b"")
    code, _, err = query("-", *brightness.options)
    assert (code, "`PATH` - needs an image on standard input" in err) == (1, True)
    code, _, err = query("-", "-", *brightness.options)
    assert (code, "`PATH` - must be given once" in err) == (2, True)


def test_a_refused_image_does_not_keep_the_others_back(query, brightness):
    for name in "BXC":
        Path(f"{name}.png").write_text(name)
    Path("empty.png").touch()
    files = ["B.png", "X.png", "empty.png", "C.png"]
    code, out, err = query(*files, *brightness.options, "--top", "1")
    assert code == 1
    assert [line.split()[:2] for line in out.splitlines()] == [["B.png", "day"], ["C.png", "night"]]
    refused, empty = err.splitlines()
    assert "cannot classify X.png with 'hours'. Received: INVALID_ARGUMENT: Unknown" in refused
    assert "An image file is empty. Received: empty.png." in empty

    code, out, _ = query(*files, *brightness.options, "--json")
    results = json.loads(out)["results"]
    assert code == 1
    assert ["error" in result for result in results] == [False, True, True, False]
    assert results[1]["error"] == refused.removeprefix("cnnkit: error: ")


def test_an_explanation_is_drawn(query, brightness):
    Path("B.png").write_text("B")
    Path("C.png").write_text("C")
    code, out, err = query("B.png", "C.png", *brightness.options, "--explain", "seen.png")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "explained in seen.png"
    assert [name for name, _ in brightness.asked] == ["classify_bytes"] * 2 + ["explain_bytes"] * 2
    drawn = matplotlib.image.imread("seen.png")[..., :3]
    # The stripe of the projection: red and blue at the top of the scale, green at its bottom.
    assert (drawn == (1, 0, 1)).all(-1).mean() > 0.05
    # The image as the network saw it.
    assert (np.abs(drawn - 200 / 255).max(-1) < 0.01).mean() > 0.2


def test_an_explanation_of_a_layer(query, brightness):
    Path("B.png").write_text("B")
    options = ["--explain", "seen.png", "--layer", "conv1", "--json"]
    code, out, err = query("B.png", *brightness.options, *options)
    assert (code, err) == (0, "")
    assert json.loads(out)["explained"] == "seen.png"
    assert brightness.asked[-1][0] == "explain_bytes_conv1"
    code, _, err = query("B.png", *brightness.options, *options[:3], "conv9")
    assert code == 2
    assert "Expected: a signature explain_bytes_conv9" in err


def test_titles_of_explanations(tmp_path):
    projection = np.zeros((2, 2, 3), np.float32)
    seen = [
        ("a$b$.png", Explanation("$day$", None, projection, None, {})),
        ("b" * 90, Explanation(None, None, projection, None, {})),
    ]
    draw_explanations(seen, tmp_path / "out.png")
    assert matplotlib.image.imread(tmp_path / "out.png").shape[0] > 300


def test_watching_tells_what_it_waits_for(query, brightness):
    brightness.state = pb.ModelVersionStatus.LOADING

    def load():
        for _ in range(3):
            assert brightness.looks.acquire(timeout=30)
        brightness.state = pb.ModelVersionStatus.AVAILABLE

    loading = threading.Thread(target=load)
    loading.start()
    code, out, err = query("--watch", *brightness.options)
    loading.join()
    assert (code, out) == (0, "hours is ready: version 3\n")
    told = [re.fullmatch(r" +\d+\.\d s  (.*)", line)[1] for line in err.splitlines()]
    assert told == ["version 3 LOADING", "version 3 AVAILABLE"]
    assert brightness.asked == []


def test_watching_and_asking_is_one_document(query, brightness):
    Path("B.png").write_text("B")
    code, out, _ = query("B.png", "--watch", *brightness.options, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["ready"]["versions"] == [3]
    assert document["results"][0]["predictions"][0]["label"] == "day"


def test_watching_ends(query, brightness):
    brightness.state = pb.ModelVersionStatus.LOADING
    code, out, err = query("--watch", *brightness.options, "--watch-seconds", "0.3")
    assert (code, out) == (1, "")
    assert "No version of 'hours' became available within 0.3 s" in err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "`PATH` or --watch must be given"),
        (["B.png", "--layer", "conv1"], "--layer requires --explain FILE.png"),
        (["--watch", "--explain", "seen.png"], "Expected: 1 to 16. Received: 0"),
        (["B.png"] * 17 + ["--explain", "seen.png"], "Expected: 1 to 16. Received: 17"),
        (["--watch", "--watch-seconds", "0"], "needs a deadline"),
        (["B.png", "--tls-cert", "B.png"], "Expected: certificate= and key="),
        (["B.png", "--tls-ca", "none.pem"], "none.pem"),
        (["B.png", "--token-file", "none.txt"], "--token-file none.txt cannot be read"),
    ],
)
def test_arguments_that_cannot_be(query, brightness, options, text):
    Path("B.png").write_text("B")
    code, out, err = query(*options, *brightness.options)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert text in err
    assert not Path("seen.png").exists()


def test_a_version_and_a_label_exclude_each_other(query, brightness):
    for option in ("--version-label", "--label"):
        code, _, err = query("--watch", *brightness.options, "--model-version", "1", option, "x")
        assert code == 2
        assert "not allowed with" in err


def test_a_token_goes_with_the_call(query, tmp_path):
    heard = []
    model = Brightness()

    def answer(path, request, context):
        heard.append(dict(context.invocation_metadata()).get("authorization"))
        return model(path, request, context)

    Path("token").write_text("secret\nnotes\n")
    Path("B.png").write_text("B")
    with fake_server(answer) as address:
        options = ["--server", address, "--model", "hours", "--token-file", "token"]
        assert query("B.png", *options)[0] == 0
    assert set(heard) == {"Bearer secret"}
