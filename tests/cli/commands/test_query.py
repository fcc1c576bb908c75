"""`cnnkit query`: tables, folders, standard input, explanations, readiness."""

import argparse
import io
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest

from cnnkit.cli.connection import add_connection_arguments, open_client
from cnnkit.cli.main import main
from cnnkit.client import TLS, Explanation
from cnnkit.errors import UsageError
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


def test_labels_and_states_of_a_server_cannot_write_lines(brightness, query):
    Path("B.png").write_bytes(b"B")
    brightness.LABELS = ("day\x1b[2K\rB.png  night  1.0000\n\u202e", "n" * 3000)
    code, out, err = query("B.png", *brightness.options)
    assert (code, err) == (0, "")
    first, second = out.splitlines()
    assert first.startswith(r"B.png  day\x1b[2K\rB.png  night  1.0000\n\u202e ")
    assert second.startswith("       nnn") and len(second) < 300
    code, out, err = query("B.png", *brightness.options, "--json")
    found = json.loads(out)["results"][0]["predictions"]
    assert [one["label"] for one in found] == list(brightness.LABELS)
    brightness.refusal = "no\x1b[2K\rB.png  day  1.0000\n"
    Path("X.png").write_bytes(b"X")
    code, out, err = query("X.png", *brightness.options)
    assert code == 1 and err.count("\n") == 1 and "\x1b" not in err


@pytest.fixture
def files(tmp_path, png, monkeypatch):
    """red.png and green-blue.png in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("red.png").write_bytes(png(250, 0, 0))
    Path("green-blue.png").write_bytes(png(0, 200, 190))
    return ["red.png", "green-blue.png"]


@pytest.fixture
def server(colors_server):
    return ["--server", colors_server.address, "--model", "colors"]


def failure(result, code):
    """Returns the one line of an error."""
    assert result[0] == code
    assert result[1] == ""
    lines = result[2].splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("cnnkit: error: ")
    return lines[0]


def stdin(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))


def test_a_folder_is_all_images_in_it(query, brightness):
    for name in ("b/2.JPG", "b/1.png", "a.gif", "notes.txt", "b/deep/3.webp"):
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Path("photos", name).write_bytes(b"B" + name.encode())
    Path("photos", "b", "._1.png").write_bytes(b"no image")
    Path("photos", "b", "gone.png").symlink_to("gone.png")
    code, out, err = query("photos", *brightness.options, "--top", "1")
    assert code == 0
    assert err == (
        "cnnkit: note: photos: 3 files left out: 1 behind broken links, 1 hidden,"
        " 1 of other types\n"
    )
    names = ["photos/a.gif", "photos/b/1.png", "photos/b/2.JPG", "photos/b/deep/3.webp"]
    assert [line.split() for line in out.splitlines()] == [
        [name, "day", "0.7500"] for name in names
    ]
    sent = [images for _, images in brightness.asked]
    assert sent == [[b"Ba.gif"], [b"Bb/1.png"], [b"Bb/2.JPG"], [b"Bb/deep/3.webp"]]


def test_a_name_that_is_not_utf8_is_shown_escaped(query, brightness):
    Path("photos").mkdir()
    for name in (Path("photos", os.fsdecode(b"caf\xe9.png")), Path(os.fsdecode(b"\xff.png"))):
        name.write_bytes(b"B1")
    code, out, err = query("photos", os.fsdecode(b"\xff.png"), *brightness.options, "--top", "1")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == [r"photos/caf\xe9.png", r"\xff.png"]


def test_a_folder_without_images(query, brightness):
    Path("photos").mkdir()
    Path("photos/notes.txt").write_text("B")
    code, out, err = query("photos", *brightness.options)
    assert (code, out) == (2, "")
    assert "has no image files. Expected: files .bmp .gif .jfif" in err


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
    assert "Image empty.png must not be empty. Received: 0 bytes." in empty

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
    code, _, err = query("B.png", *brightness.options, *options[:3], "conv9", "--overwrite")
    assert code == 2
    assert "Expected: a signature explain_bytes_conv9" in err


def test_titles_of_explanations(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(
        "cnnkit.figures.projections.save_figure", lambda figure, *a, **o: figures.append(figure)
    )
    projection = np.zeros((2, 2, 3), np.float32)
    seen = [
        ("a$b$.png", Explanation("$day$", None, projection, None, {})),
        ("b" * 90, Explanation(None, None, projection, None, {})),
    ]
    draw_explanations(seen, tmp_path / "out.png")
    titles = [axes.get_title() for axes in figures[0].axes]
    assert titles[:2] + titles[3:] == ["a$b$.png", "$day$", "projection"]
    # As many letters as fit over a panel.
    assert re.fullmatch("b{12,20}…b{12,20}", titles[2])


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
        (["B.png", "--layer", "conv1"], "--layer requires --explain PICTURE"),
        (["--watch", "--explain", "seen.png"], "Expected: 1 to 16. Received: 0"),
        (["B.png"] * 17 + ["--explain", "seen.png"], "Expected: 1 to 16. Received: 17"),
        (
            ["--watch", "--watch-seconds", "0"],
            "--watch-seconds must be a finite number",
        ),
        (
            ["B.png", "--tls-cert", "B.png"],
            "`certificate` and `key` must be given together. Received: certificate",
        ),
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
        assert "must not be given with" in err


def test_labels_of_versions_have_a_new_name(query, brightness):
    code, out, err = query("none.png", *brightness.options, "--label", "stable")
    note, error = err.splitlines()
    assert (code, out) == (2, "")
    assert note == "cnnkit: note: --label is now --version-label; --label works until 0.3.0"
    assert "`PATH` must be an existing image file or folder. Received: none.png" in error


@pytest.mark.parametrize(
    ("words", "tls"),
    [
        ([], False),
        (["--tls"], True),
        (["--tls", "--tls-ca", "a"], TLS(Path("a"), None, None)),
        (["--tls-cert", "b", "--tls-key", "c"], TLS(None, Path("b"), Path("c"))),
    ],
)
def test_a_certificate_implies_encryption(words, tls, monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr("cnnkit.client.Client", lambda *a, **k: opened.append((a, k)))
    parser = argparse.ArgumentParser()
    add_connection_arguments(parser)
    open_client(parser.parse_args(words), "host:1", timeout=3)
    assert opened == [(("host:1",), {"tls": tls, "token": None, "timeout": 3})]
    (tmp_path / "token").write_text(" secret \nsecond line\n")
    words = [*words, "--token-file", str(tmp_path / "token")]
    open_client(parser.parse_args(words), "host:1")
    assert opened[1][1] == {"tls": tls, "token": "secret"}


def test_a_token_that_cannot_be_read(tmp_path):
    parser = argparse.ArgumentParser()
    add_connection_arguments(parser)
    (tmp_path / "bytes").write_bytes(b"\xff")
    for name, reason in (("none", "No such file or directory"), ("bytes", "not UTF-8")):
        args = parser.parse_args(["--token-file", str(tmp_path / name)])
        with pytest.raises(UsageError, match=f"--token-file .*{name} cannot be read.*{reason}"):
            open_client(args, "host:1")


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


def test_query_prints_a_table(query, files, server):
    code, out, err = query(*files, *server, "--top", "2")
    assert (code, err) == (0, "")
    assert re.fullmatch(
        r"red\.png         red    0\.\d{4}\n {16}green  0\.\d{4}\n"
        r"green-blue\.png  green  0\.\d{4}\n {16}blue   0\.\d{4}\n",
        out,
    )


def test_query_json_is_one_document(query, files, server):
    code, out, err = query(*files, *server, "--top", "1", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["model"] == "colors"
    assert [result["image"] for result in document["results"]] == files
    best = [result["predictions"][0] for result in document["results"]]
    assert [prediction["label"] for prediction in best] == ["red", "green"]
    assert all(0 < prediction["probability"] < 1 for prediction in best)


def test_query_a_version_without_labels(query, files, server):
    code, out, _ = query(files[0], *server, "--model-version", "1", "--top", "1")
    assert code == 0
    assert re.fullmatch(r"red\.png  class 0  0\.99\d\d\n", out)


def test_query_a_file_that_is_not_there(query, files, server):
    result = query(files[0], "blue.png", *server)
    assert "`PATH` must be an existing image file or folder. Received: blue.png." in failure(
        result, 2
    )


def test_query_a_server_that_is_not_there(query, files):
    result = query(files[0], "--server", "localhost:1", "--model", "colors")
    line = failure(result, 1)
    assert "No model server answers at localhost:1." in line
    assert "Start one with `cnnkit serve DIR --port 1`." in line


def test_query_a_model_that_is_not_there(query, files, colors_server):
    result = query(files[0], "--server", colors_server.address, "--model", "digits")
    assert "no such model, version or label of 'digits'" in failure(result, 1)


def test_query_a_version_that_is_not_there(query, files, server):
    result = query(files[0], *server, "--model-version", "7")
    assert "Versions of 'colors' that are available: 1, 2." in failure(result, 1)


def test_query_names_the_file_that_is_no_image(query, files, server):
    Path("notes.png").write_text("not an image")
    line = failure(query("notes.png", *server, "--top", "1"), 1)
    assert "cannot classify notes.png" in line
    assert "Unknown image file format" in line


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--top", "9"], "Expected: top <= 3. Received: 9."),
        (["--top", "0"], "--top must be a whole number of at least 1"),
        (["--timeout", "0"], "--timeout must be a finite number of more than 0"),
        (["--server", "localhost"], "Expected: HOST:PORT"),
    ],
)
def test_query_options_that_cannot_be(query, files, server, options, text):
    assert text in failure(query(files[0], *server, *options), 2)


def test_query_without_a_model_is_wrong_usage(query, files):
    code, _, err = query(files[0])
    assert code == 2
    assert "--model" in err


def test_query_needs_no_tensorflow(files, server):
    program = (
        "import sys; from cnnkit.cli.main import main; code = main(sys.argv[1:]);"
        "print(sorted({'tensorflow', 'keras'} & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, "query", files[0], *server, "--top", "1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "[]"
