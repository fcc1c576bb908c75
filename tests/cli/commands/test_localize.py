"""`cnnkit localize`: boxes of files, errors of a dataset, panels, wrong calls."""

import json

import pytest

from cnnkit.cli.commands import localize as command
from cnnkit.cli.main import main
from cnnkit.config import TrainingConfig
from cnnkit.evaluation import localize
from cnnkit.run_folder import RunFolder
from tests.helpers.boxes import square_finder, square_image, write_table

pytestmark = pytest.mark.usefixtures("unoptimized")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run whose network finds squares, photos of them and a table of their boxes."""
    import tensorflow as tf

    root = tmp_path_factory.mktemp("localize")
    photos, lines = root / "photos", ["file,class,left,top,right,bottom"]
    photos.mkdir()
    for i in range(10):
        # Of every second image, the square is where the crop does not show it.
        left = (6 + i, 4)[i % 2]
        image = square_image(28, 16, left, 4)
        (photos / f"{i}.png").write_bytes(tf.io.encode_png(image).numpy())
        lines.append(f"{i}.png,{('nothing', 'square')[i % 2]},{left},4,{left + 4},8")
    (photos / "boxes.csv").write_text("\n".join(lines) + "\n")
    config = TrainingConfig(image_size=16, task="localize", dataset=f"boxes:{photos}/boxes.csv")
    run = RunFolder(root / "run")
    run.create(config, ("nothing", "square"), {}, {})
    square_finder().save(run.model_file)
    return root


@pytest.fixture
def call(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)

    def run(*argv):
        capsys.readouterr()
        return main(["localize", *argv]), *capsys.readouterr()

    return run


def test_lines_and_documents_are_those_of_the_function(call, folder):
    [expected] = localize(folder / "run", folder / "photos/0.png", top=2)
    code, out, _ = call("run", "photos/0.png", "--top", "2")
    assert code == 0
    first, second = out.splitlines()
    assert first.split() == ["photos/0.png", "square", "1.0000", "6", "4", "10", "8"]
    assert second.split()[:2] == ["nothing", "0.0000"]
    code, out, _ = call("run", "photos/0.png", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["image"] == "photos/0.png"
    [found] = document["objects"]
    assert found["box"] == pytest.approx(expected.objects[0].box)
    assert (found["label"], found["class"]) == ("square", 1)


def test_a_damaged_file_among_others(call, folder, monkeypatch):
    (folder / "bad.png").write_bytes(b"bad")
    code, out, err = call("run", "bad.png", "photos/0.png", "--panel", "new/one.png")
    assert code == 1 and "bad.png must be an image" in err
    assert "photos/0.png" in out and out.endswith("new/one.png\n")
    assert (folder / "new/one.png").stat().st_size > 1000
    # It takes no place in the picture, and does not count.
    assert " shows " not in err
    monkeypatch.setattr(command, "MAX_DRAWN", 1)
    arguments = ["run", "bad.png", "photos/0.png", "photos/1.png", "--panel"]
    assert "two.png shows 1 of 2 images" in call(*arguments, "two.png")[2]
    monkeypatch.setattr(command, "MAX_DRAWN", 2)
    assert " shows " not in call(*arguments, "three.png")[2]


def test_errors_of_the_held_out_images(call, folder):
    arguments = ["--dataset", "boxes:photos/boxes.csv"]
    code, out, _ = call("run", *arguments)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["2", "method", "center", "crop"]
    code, out, _ = call(
        "run", *arguments, "--json", "--method", "crop", "--method", "dense", "--method", "center"
    )
    assert code == 0
    crop, dense, center = map(json.loads, out.splitlines())
    assert (crop["method"], crop["images"], crop["box_error"]) == ("crop", 2, 0.5)
    # Only all places show the square; those without one outvote it in the image of `nothing`.
    assert (dense["method"], dense["box_error"]) == ("dense", 0.5)
    assert 0.5 < crop["mean_overlap"] < 0.6
    assert center["method"] == "center"
    code, out, _ = call("run", *arguments, "--panel", "held_out.png")
    assert code == 0 and (folder / "held_out.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run", "Either PATH or --dataset"),
        ("run photos/0.png --dataset boxes:photos/boxes.csv", "Either PATH or --dataset"),
        ("run photos/0.png --method crop --method dense", "given once without --dataset"),
        ("run --dataset digits", "must have boxes"),
        ("run photos/0.png --scales 32", "--scales requires --method dense"),
        ("run photos/0.png --dpi 90", "--dpi requires --panel"),
        ("run photos/0.png --method dens", "--method must be one of crop, dense, center"),
        ("run --dataset boxes:photos/none.csv", "No file or folder photos/none.csv"),
    ],
)
def test_wrong_calls_are_refused_before_anything_slow(call, words, message, monkeypatch):
    from cnnkit.cli import quiet_tensorflow

    monkeypatch.delattr(quiet_tensorflow, "import_tensorflow")
    code, out, err = call(*words.split())
    assert code == 2 and message in err and out == ""


def test_a_run_without_boxes_is_told_before_anything_slow(call, folder, monkeypatch):
    from cnnkit.cli import quiet_tensorflow

    run = RunFolder(folder / "classifier")
    run.create(TrainingConfig(), ("a", "b"), {}, {})
    monkeypatch.delattr(quiet_tensorflow, "import_tensorflow")
    code, _, err = call("classifier", "photos/0.png", "--method", "dense")
    assert code == 2 and "--method dense needs a network with boxes" in err


def test_wrong_calls_that_need_the_network(call, folder):
    code, _, err = call("run", "photos/0.png", "--method", "dense", "--scales", "8")
    assert code == 2 and "at least 16. Received: 8" in err
    other = write_table(folder / "other")
    code, _, err = call("run", "--dataset", f"boxes:{other}")
    assert code == 2 and "must be the classes of the network" in err
