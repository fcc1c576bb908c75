"""`cnnkit predict`: tables, JSON lines, standard input, panels, wrong arguments."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.linear_model import LogisticRegression

from cnnkit import load_model
from cnnkit.cli.commands import predict as command
from cnnkit.cli.main import main
from cnnkit.cli.read_image import read_image
from cnnkit.data import Decoding
from cnnkit.evaluation import predict
from cnnkit.figures import evaluation as drawing
from cnnkit.models import build, open_weights, to_fully_convolutional
from cnnkit.visualize import EXPLANATION_METHODS
from tests.helpers.evaluation_networks import LABELS, SIZE, write_run

pytestmark = pytest.mark.usefixtures("unoptimized")

evaluation_predict = sys.modules["cnnkit.evaluation.predict"]
SAVED = Path(__file__).resolve().parents[2] / "data" / "saved_by_0_1_0"


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
    (root / "names.txt").write_text("x\ny\nz\n")
    with zipfile.ZipFile(SAVED / "export.zip") as archive:
        archive.extractall(root)
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
    # A file that cannot be read takes no place, and does not count.
    (tmp_path / "no.png").write_bytes(b"no image")
    code, out, err = call("run", tmp_path / "no.png", "photos", "--panel", tmp_path / "y.png")
    assert code == 1
    assert err.splitlines()[-1].endswith("y.png shows the first 1 of 2 images")
    assert figures[1].axes[0].texts[0].get_text() == "photos/one.png"
    monkeypatch.setattr(command, "MAX_DRAWN", 2)
    code, out, err = call("run", tmp_path / "no.png", "photos", "--panel", tmp_path / "z.png")
    assert (code, "shows the first" in err) == (1, False), err
    assert len(figures[2].axes) == 4


def labels_of(out):
    return [row["label"] for line in out.splitlines() for row in json.loads(line)["predictions"]]


def test_names_given_are_those_of_the_answers(call, folder):
    """Of a run, of a file, which has none, and of an exported folder."""
    for network, classes in (("run", 7), ("run/model.keras", 7), ("digits", 10)):
        names = [f"class {i}" for i in range(classes)]
        file = folder / f"{classes}.txt"
        file.write_text("\n".join(names))
        code, out, err = call(network, "photos/one.png", "--labels", file, "--json", "--top", 99)
        assert (code, sorted(labels_of(out))) == (0, names)
        program = "digits is a program (a SavedModel): open no stranger's"
        assert err == (f"cnnkit: note: {program}\n" if network == "digits" else "")
    code, out, err = call("run/model.keras", "photos/one.png", "--json")
    note = "run/model.keras has no class names: --labels FILE gives them"
    assert (code, err) == (0, f"cnnkit: note: {note}\n")
    assert labels_of(out)[0].isdecimal()


def test_options_decide_the_background_and_the_size(call, folder):
    Image.new("RGBA", (SIZE, SIZE), (255, 0, 0, 0)).save(folder / "glass.png")
    code, out, _ = call("run", "glass.png", "--background", "#000009", "--json", "--top", 7)
    [one] = predict("run", "glass.png", decoding=Decoding(background=(0, 0, 9)))
    [white] = predict("run", "glass.png")
    found = {row["label"]: row["probability"] for row in json.loads(out)["predictions"]}
    assert found[one.label] == pytest.approx(one.probability, rel=1e-5)
    assert abs(found[white.label] - white.probability) > 0.01
    to_fully_convolutional(load_model("run", preprocessing="raw")).save("free.keras")
    code, out, err = call("free.keras", "photos", "--preprocessing", "raw")
    assert (code, out) == (2, "")
    assert "--image-size must be given: the network has no fixed input size" in err
    code, out, err = call("run", "photos", "--image-size", SIZE + 1)
    assert (code, out) == (2, "")
    assert "--image-size must be left out" in err and f"Expected: {SIZE}, or nothing" in err
    words = ["photos/one.png", "--image-size", 14, "--json"]
    code, out, _ = call("free.keras", "--preprocessing", "raw", *words)
    [one] = predict(load_model("free.keras", preprocessing="raw"), "photos/one.png", image_size=14)
    best = json.loads(out)["predictions"][0]
    assert best["probability"] == pytest.approx(one.probability, rel=1e-5)


def test_columns_are_as_wide_for_every_image(call, folder):
    names = ["short", *(f"{'long' * i}" for i in range(1, 7))]
    (folder / "long.txt").write_text("\n".join(names))
    code, out, err = call("run", "photos", "--labels", "long.txt", "--top", 7)
    lines = out.splitlines()
    longest = len("photos/two/three.png")
    assert (code, err, len(lines)) == (0, "", 14)
    assert {len(line) for line in lines} == {longest + 2 + len(names[-1]) + 2 + len("0.1234")}
    assert sorted(line[longest + 2 :].split()[0] for line in lines[:7]) == sorted(names)
    assert lines[1][: longest + 2].strip() == lines[8][: longest + 2].strip() == ""


def test_files_of_a_folder_that_are_no_images_are_counted(call, folder, tmp_path):
    (tmp_path / "notes.txt").touch()
    odd = tmp_path / "caf\udce9.png"
    odd.write_bytes((folder / "photos/one.png").read_bytes())
    code, out, err = call("run", tmp_path, "--json")
    assert (code, err) == (
        0, f"cnnkit: note: {tmp_path}: 1 file left out: 1 of other types\n"
    )  # fmt: skip
    # A name that is not UTF-8 is escaped, also of a file that is given itself.
    assert json.loads(out)["image"] == f"{tmp_path}/caf\\xe9.png"
    assert json.loads(call("run", odd, "--json")[1])["image"] == f"{tmp_path}/caf\\xe9.png"


def test_a_panel_of_nothing_is_refused_and_crops_are_kept_for_panels_only(
    call, tmp_path, monkeypatch
):
    (tmp_path / "no.png").write_bytes(b"no image")
    code, out, err = call("run", tmp_path / "no.png", "--panel", tmp_path / "x.png")
    assert (code, out) == (1, "")
    assert "--panel has no image to draw: none could be read" in err.splitlines()[-1]
    kept, iterate = [], evaluation_predict.iter_predictions
    monkeypatch.setattr(
        evaluation_predict, "iter_predictions",
        lambda *args, **options: kept.append(options["kept"]) or iterate(*args, **options),
    )  # fmt: skip
    call("run", "photos")
    assert kept == [0]


def test_weights_without_a_classifier_are_refused(call, tmp_path):
    kernel, bias = np.zeros((11, 11, 3, 96), np.float32), np.zeros(96, np.float32)
    np.savez(tmp_path / "w.npz", conv1__kernel=kernel, conv1__bias=bias)
    words = ["--model", "alexnet", "--preprocessing", "caffe"]
    code, out, err = call(tmp_path / "w.npz", "photos", *words)
    assert (code, out) == (2, "")
    assert "w.npz has no dense layers. Expected: weights of a classifier." in err


@pytest.mark.slow
def test_real_convolutions_and_a_linear_head_tell_photos_apart(shared, tmp_path):
    """By the command as it is typed, on photos that the head has not seen."""
    weights = shared("data/alexnet_bvlc_conv.npz")
    places = sorted(path for path in shared("data/caltech20").rglob("*") if path.is_dir())
    folders = [path for path in places if len(list(path.glob("*.jpg"))) >= 20][:3]
    assert len(folders) == 3
    network = build(
        "alexnet_caffe",
        weights=open_weights(weights, preprocessing="caffe"),
        include_top=False,
        pooling="avg",
        input_shape=(227, 227, 3),
    )
    files = [sorted(folder.glob("*.jpg"))[:20] for folder in folders]
    crops = [
        [read_image(str(file), 227) for file in of_class[:12]] for of_class in files
    ]  # fmt: skip
    features = network(np.concatenate(crops), training=False).numpy()
    fitted = LogisticRegression(max_iter=2000).fit(
        features / features.std(), np.repeat(np.arange(3), 12)
    )
    head = keras.layers.Dense(3, "softmax")
    model = keras.Model(network.input, head(network.output))
    head.set_weights([(fitted.coef_ / features.std()).T, fitted.intercept_])
    model.save(tmp_path / "photos.keras")
    (tmp_path / "labels.txt").write_text("\n".join(folder.name for folder in folders))
    held_out = [str(file) for of_class in files for file in of_class[12:]]
    words = [sys.executable, "-m", "cnnkit", "predict", "photos.keras", *held_out, "--json"]
    done = subprocess.run(
        [*words, "--labels", "labels.txt", "--top", "1"], cwd=tmp_path, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"] for line in lines] == held_out
    right = [
        line["predictions"][0]["label"] == Path(line["image"]).parent.name for line in lines
    ]  # fmt: skip
    assert np.mean(right) >= 0.9


def test_methods_are_those_of_the_package():
    assert set(command.EXPLANATIONS) == set(EXPLANATION_METHODS)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["run", "photos", "--explain", "gradcam"], "--explain requires --panel PICTURE"),
        (["run", "photos", "--target", "a"], "--target requires --explain METHOD"),
        (["run", "photos", "--dpi", "80"], "--dpi requires --panel PICTURE"),
        (["run", "photos", "--panel", "photos/one.png"], "photos/one.png exists"),
        (["random", "photos"], "--model must name the network that gets random weights"),
        (["run", "photos", "--labels", "names.txt"], "Expected: 7 names. Received: 3."),
        (
            ["run", "photos", "--panel", "x.png", "--explain", "gradcam", "--target", "h"],
            "Unknown class 'h'. Expected: one of a, b, c, d, e, f, g.",
        ),
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
