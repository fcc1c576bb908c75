"""`cnnkit evaluate` as a user types it: runs, datasets by name, kept results, going on."""

import importlib
import json
import re
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

from cnnkit import zfnet
from cnnkit._file_tree import newest_results
from cnnkit.cli.commands import evaluate as evaluate_command
from cnnkit.cli.main import main
from cnnkit.data import load_dataset
from cnnkit.errors import UsageError
from cnnkit.evaluation import EvaluatedModel, evaluate
from cnnkit.evaluation.metrics import ClassErrors, ImagePrediction
from cnnkit.evaluation.published import PublishedError
from cnnkit.run_folder import RunFolder
from tests.helpers.evaluation_networks import LABELS, SIZE, network, write_folder, write_run

pytestmark = pytest.mark.usefixtures("unoptimized")

evaluate_module = importlib.import_module("cnnkit.evaluation.evaluate")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("pictures") / "seven", LABELS)


@pytest.fixture
def run(dataset, tmp_path):
    return write_run(tmp_path / "run", 3, dataset)


def evaluated(capsys, *words):
    capsys.readouterr()
    assert main(["evaluate", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_runs_own_scale_and_what_is_kept(run, dataset, capsys):
    """The middle of 14 and 18 is 16, at which the held-out images were seen in training."""
    found = evaluated(capsys, run)
    source = load_dataset(f"folder:{dataset}")
    split = source.splits["test"]
    member = EvaluatedModel("net", network(3), (16,), SIZE)
    expected = evaluate(member, split, LABELS)
    other = evaluate(EvaluatedModel("net", network(3), (12,), SIZE), split, LABELS)
    assert found["top1_error"] == expected.top1_error
    assert found["confusion"] == [list(one) for one in expected.confusion]
    assert expected.confusion != other.confusion
    assert (found["scales"], found["protocol"], found["paper"]) == ([[16]], "center", None)

    [file] = (run / "evaluations").iterdir()
    assert file.name.startswith("center-16-")
    assert str(file) == found["file"]
    kept = json.loads(file.read_text())
    # Files of images are printed, and not stored: the folder may be moved.
    for kind in ("mistakes", "examples"):
        assert found[kind]
        for one in found[kind]:
            assert one.pop("file") == str(dataset / one["name"])
    assert kept == {name: value for name, value in found.items() if name != "file"}
    # Equal figures leave the file as it is, from another batch size too.
    written = file.stat().st_mtime_ns
    assert evaluated(capsys, run, "--batch-size", 5)["file"] == str(file)
    assert file.stat().st_mtime_ns == written
    assert evaluated(capsys, run, "--strategy", "mirrored")["file"] == str(file)
    assert file.stat().st_mtime_ns == written
    # Other figures do not take the place of those.
    file.write_text(json.dumps({**kept, "top1_error": 0.5}))
    again = evaluated(capsys, run)
    assert again["file"] == str(file.with_stem(f"{file.stem}-2"))
    assert json.loads(file.read_text())["top1_error"] == 0.5
    assert newest_results(run) == file.with_stem(f"{file.stem}-2")


def test_the_papers_errors_stand_in_rows_of_their_own(run, capsys, monkeypatch):
    paper = PublishedError("A paper, Table 2", 0.384, 0.165, 0.16)
    published = importlib.import_module("cnnkit.evaluation.published")
    monkeypatch.setattr(published, "published_errors", lambda *given: paper)
    assert main(["evaluate", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    [first], [test] = (
        [line.split() for line in lines if line.startswith(begin)]
        for begin in ("paper: A paper, Table 2", "paper, on its test images")
    )
    assert [word for word in first if "%" in word] == ["38.4%", "16.5%"]
    assert [word for word in test if "%" in word] == ["16.0%"]


def test_the_table(run, dataset, capsys):
    assert main(["evaluate", str(run), "--protocol", "ten-crop", "--scales", "13,16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    header = ["class", "images", "top-1 error", "top-1 95 %", "top-5 error", "top-5 95 %"]
    assert re.split(r"  +", lines[0]) == header
    assert [line.split()[0] for line in lines[1:9]] == [*LABELS, "all,"]
    assert f"all, {run} at 13, 16" in lines[8]
    assert "expected calibration error" in lines[9]
    assert "evaluations/ten-crop-13_16-" in lines[9]
    # The files of the worst mistakes.
    results = json.loads(newest_results(run).read_text())
    wrong = round(results["top1_error"] * results["images"])
    assert wrong > 5
    assert lines[10].startswith(f"the 5 worst of {wrong} mistakes")
    for line, one in zip(lines[12:], results["mistakes"][:5], strict=True):
        path, label, right, answer, probability = re.split(r"  +", line)
        assert path == str(dataset / one["name"])
        assert Path(path).is_file()
        assert [label, answer] == [one["label"], one["top"][0][0]]
        expected = [f"{one['probability']:.1%}", f"{one['top'][0][1]:.1%}"]
        assert [right.strip(), probability.strip()] == expected


def test_the_options_of_an_evaluation_reach_it(run, dataset, monkeypatch, capsys):
    seen = []

    def record(members, split, labels, **options):
        seen.append((members[0].scales, labels, options))
        raise UsageError("reached")

    monkeypatch.setattr("cnnkit.evaluation.evaluate", record)
    words = ["--protocol", "dense", "--average", "probabilities", "--scales", "13,16"]
    words += ["--batch-size", "5", "--strategy", "mirrored", "--replicas", "1"]
    assert main(["evaluate", str(run), *words]) == 2
    [(scales, labels, options)] = seen
    assert (scales, labels, options["strategy"].num_replicas_in_sync) == ((13, 16), LABELS, 1)
    assert (options["protocol"], options["average"]) == ("dense", "probabilities")
    assert options["batch_size"] == 5
    assert options["state"].name.startswith("dense-13_16-")
    assert callable(options["progress"])


def rows_of(classes):
    errors = {"top1_error": 0.5, "top5_error": 0.25, "top1_interval": (0.4, 0.6),
              "top5_interval": (0.2, 0.3), "images": 40, "members": ()}  # fmt: skip
    result = SimpleNamespace(classes=classes, **errors)
    return evaluate_command._rows(result, [SimpleNamespace(name="net", scales=(9,))], None)


def test_of_more_than_twenty_classes_the_worst_are_shown():
    classes = [ClassErrors(f"c{i}", 2, i / 100, 0.0) for i in range(20)]
    assert [row["class"] for row in rows_of(classes)[:-1]] == [f"c{i}" for i in range(20)]
    # The one without images is not among them.
    empty, worst = ClassErrors("empty", 0, None, None), ClassErrors("worst", 2, 0.9, 0.5)
    rows = rows_of([*classes, empty, worst])
    assert [row["class"] for row in rows[:3]] == ["worst", "c19", "c18"]
    assert [row["class"] for row in rows[-2:]] == ["c1", "all, net at 9"] and len(rows) == 21
    assert rows[-1] == {
        "class": "all, net at 9", "images": 40, "top-1 error": "50.0%",
        "top-1 95 %": "40.0% to 60.0%", "top-5 error": "25.0%", "top-5 95 %": "20.0% to 30.0%",
    }  # fmt: skip


def test_all_mistakes_are_shown_if_they_are_few(capsys):
    one = ImagePrediction(0, "image", "a", 0.25, (("b", 0.75),))
    for mistakes, wrong, text in (((one,) * 5, 5, "all mistakes"), ((one,) * 6, 6, "the 5 worst")):
        result = SimpleNamespace(mistakes=mistakes, top1_error=wrong / 10, images=10)
        evaluate_command._print_mistakes(result, "digits")
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(text) and len(lines) == 7
    evaluate_command._print_mistakes(SimpleNamespace(mistakes=()), "digits")
    assert capsys.readouterr().out == ""


def test_five_classes_have_no_top_5_error(tmp_path, capsys):
    labels = LABELS[:5]
    dataset = write_folder(tmp_path / "five", labels, each=1)
    assert main(["evaluate", str(write_run(tmp_path / "run", 3, dataset, labels))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.split(r"  +", lines[0]) == ["class", "images", "top-1 error", "top-1 95 %"]


def test_an_ensemble_with_its_single_figures(run, dataset, tmp_path, capsys):
    # The second network knows the classes in another order.
    shuffled = LABELS[3:] + LABELS[:3]
    second = write_run(tmp_path / "second", 4, dataset, shuffled, scale=(18, 18))
    found = evaluated(capsys, run, second, "--protocol", "dense")
    assert [one["name"] for one in found["members"]] == [str(run), str(second)]
    assert found["scales"] == [[16], [18]]
    split = load_dataset(f"folder:{dataset}").splits["test"]
    columns = tuple(shuffled.index(label) for label in LABELS)
    members = [
        EvaluatedModel("a", network(3), (16,), SIZE),
        EvaluatedModel("b", network(4), (18,), SIZE, columns),
    ]
    expected = evaluate(members, split, LABELS, protocol="dense")
    assert found["top1_error"] == expected.top1_error
    assert found["confusion"] == [list(one) for one in expected.confusion]
    rows = evaluate_command._rows(expected, members, None)
    assert [row["class"] for row in rows] == [*LABELS, "a at 16", "b at 18", "together"]
    errors = [f"{one.top1_error:.1%}" for one in (*expected.members, expected)]
    assert [row["top-1 error"] for row in rows[-3:]] == errors
    singles = [one["top1_error"] for one in found["members"]]
    assert singles == [one.top1_error for one in expected.members]


def test_classes_are_matched_by_name(run, tmp_path, capsys):
    """Three of the classes, whose numbers are others in this dataset."""
    some = write_folder(tmp_path / "some", ("c", "f", "g"), seed=9)
    found = evaluated(capsys, run, "--dataset", f"folder:{some}")
    model, right = network(3), 0
    split = load_dataset(f"folder:{some}").splits["test"]
    answers = evaluate(
        EvaluatedModel("net", model, (16,), SIZE),
        type(split)(
            np.array([2, 5, 6])[split.labels].astype(np.int32), split.names, split.load_image
        ),
        LABELS,
    )
    right = {label: one["images"] for label, one in zip(LABELS, found["classes"], strict=True)}
    assert right == {"a": 0, "b": 0, "c": 3, "d": 0, "e": 0, "f": 3, "g": 3}
    assert found["confusion"] == [list(one) for one in answers.confusion]


def test_a_stopped_command_goes_on(run, dataset, capsys, monkeypatch):
    monkeypatch.setattr(evaluate_module, "SECONDS_BETWEEN_SAVES", 0.0)
    monkeypatch.setattr(evaluate_module, "MAX_WINDOW_IMAGES", 4)
    add, looked = evaluate_module.Predictions.add, []

    def stopping(answers, logs, labels):
        if len(looked) == 2:
            raise KeyboardInterrupt
        looked.append(answers.done)
        add(answers, logs, labels)

    monkeypatch.setattr(evaluate_module.Predictions, "add", stopping)
    words = [str(run), "--batch-size", "4"]
    assert main(["evaluate", *words]) == 130
    [state] = (run / "evaluations").iterdir()
    assert state.name.endswith(".partial.npz")
    looked[:] = [-1, -1, -1]
    found = evaluated(capsys, *words)
    assert looked[3] == 8
    assert [file.suffix for file in (run / "evaluations").iterdir()] == [".json"]
    split = load_dataset(f"folder:{dataset}").splits["test"]
    looked[:] = [-1, -1, -1]
    expected = evaluate(EvaluatedModel("net", network(3), (16,), SIZE), split, LABELS)
    assert found["confusion"] == [list(one) for one in expected.confusion]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ("{run} --protocol tencrop", 2, "Did you mean ten-crop"),
        ("{run} --average score", 2, "--average must be one of scores, probabilities"),
        ("{run} --scales 16,x", 2, "--scales must be whole numbers with commas"),
        ("{run} --scales 16,16", 2, "--scales must be different sides. Received: 16,16"),
        ("{run} --scales 11", 2, "`scale` is smaller than the crop"),
        ("{run} --protocol dense --scales 5", 2, "too small"),
        ("{run} --dataset digit", 2, "Unknown dataset 'digit'"),
        ("{run} --dataset digits", 1, "digits do not fit those of the network. Expected: classes "
         "among its 7: a, b, c, d, e ... Received: 10 that it does not know: 0, 1, 2, 3, 4"),
        ("{run} --replicas 2", 2, "--replicas requires --strategy mirrored"),
        ("{run} --strategy mirrored --replicas 0", 2, "at least 1"),
        ("{run} {run}", 2, "`MODEL` must not be given twice"),
        ("{file}", 2, "--dataset must name the test images"),
        ("{file} --dataset digits", 2, "do not fit their names. Expected: 7 names. Received: 10"),
        ("{run} {tmp}", 2, "No run folder"),
        ("{run} {other}", 2, "trained on different datasets"),
        ("{run} {other} --dataset folder:{data}", 2, "only one of them knows f, g"),
        ("{run} {unsplit}", 2, "trained on different datasets"),
        ("{unsplit} {again}", 2, "held out different images"),
        ("{unfinished}", 1, "has no model yet"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(run, dataset, tmp_path, capsys, words, code, text):
    places = {"run": run, "tmp": tmp_path, "data": dataset, "file": tmp_path / "net.keras"}
    if "{file}" in words:
        network(3).save(places["file"])
    if "{other}" in words:
        places["other"] = write_run(tmp_path / "other", 0, tmp_path, LABELS[:5])
    if "{unsplit}" in words:
        train = dataset / "train"
        places["unsplit"] = write_run(tmp_path / "unsplit", 0, train)
        places["again"] = write_run(tmp_path / "again", 1, train)
    if "{unfinished}" in words:
        places["unfinished"] = write_run(tmp_path / "unfinished", 0, dataset)
        RunFolder(places["unfinished"]).model_file.unlink()
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    assert main(["evaluate", *(word.format(**places) for word in words.split())]) == code
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_results_of_a_changed_network_are_others(run, capsys):
    first = evaluated(capsys, run)
    model = keras.saving.load_model(RunFolder(run).model_file)
    model.get_layer("fc8").bias.assign(np.arange(7) * 50.0)
    model.save(RunFolder(run).model_file)
    second = evaluated(capsys, run)
    assert second["file"].rpartition("-")[2] != first["file"].rpartition("-")[2]
    assert not second["file"].endswith("-2.json")
    assert second["confusion"] != first["confusion"]


def gray(end):
    """A network over gray images that are no squares."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((10, 12, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs / 128.0 - 1.0)
    spread = keras.initializers.RandomNormal(stddev=2.0)
    units = 1 if "binary" in end else 3
    x = keras.layers.Dense(units, kernel_initializer=spread)(keras.layers.Flatten()(x))
    x = keras.layers.Activation("sigmoid")(x) if "sigmoid" in end else x
    return keras.Model(inputs, x)


@pytest.mark.parametrize("end", ["logits", "sigmoids", "binary logit", "binary sigmoid"])
def test_a_file_of_a_gray_network(end, tmp_path, capsys):
    """The answers are those of the model for gray center crops, by Pillow."""
    classes = ("no", "yes") if "binary" in end else ("a", "b", "c")
    data = write_folder(tmp_path / "data", classes, each=8)
    model = gray(end)
    model.save(tmp_path / "net.keras")
    found = evaluated(capsys, tmp_path / "net.keras", "--dataset", f"folder:{data}", "--scales", 16)
    confusion = np.zeros((len(classes), len(classes)), int)
    for label, name in enumerate(classes):
        for file in (data / "test" / name).iterdir():
            image = Image.open(file)
            scale = 16 / min(image.size)
            image = image.resize([round(side * scale) for side in image.size], Image.BILINEAR)
            left, top = (image.width - 12) // 2, (image.height - 12) // 2 + 1
            crop = np.asarray(image.convert("L"), np.float32)[top : top + 10, left : left + 12]
            answer = model(crop[None, ..., None], training=False).numpy()[0]
            if len(answer) == 1:
                answer = [0.5 if "sigmoid" in end else 0, answer[0]]
            confusion[label, np.argmax(answer)] += 1
    assert np.count_nonzero(confusion.sum(axis=0)) > 1, "not always the same answer"
    counted = [[*place, int(confusion[tuple(place)])] for place in np.argwhere(confusion).tolist()]
    assert sorted(found["confusion"]) == counted
    assert found["file"].startswith(str(tmp_path / "evaluations"))


def test_files_and_runs_are_an_ensemble_by_class_name(run, dataset, tmp_path, capsys):
    shuffled = LABELS[3:] + LABELS[:3]
    (tmp_path / "labels.txt").write_text("\n".join(shuffled))
    network(4).save(tmp_path / "other.keras")
    words = (run, tmp_path / "other.keras", "--labels", tmp_path / "labels.txt")
    found = evaluated(capsys, *words)
    columns = tuple(shuffled.index(label) for label in LABELS)
    members = [
        EvaluatedModel("a", network(3), (16,), SIZE),
        EvaluatedModel("b", network(4), (12,), SIZE, columns),
    ]
    split = load_dataset(f"folder:{dataset}").splits["test"]
    expected = evaluate(members, split, LABELS)
    assert found["confusion"] == [list(one) for one in expected.confusion]
    assert found["paper"] is None


def test_a_weights_file_of_an_architecture(dataset, tmp_path, capsys):
    model = zfnet(classes=7, hidden_units=8, input_shape=(64, 64, 3))
    model.save_weights(tmp_path / "seven.weights.h5")
    options = ["--model-option", "hidden_units=8", "--model-option", "input_shape=[64,64,3]"]
    words = (tmp_path / "seven.weights.h5", "--model", "zfnet", *options)
    found = evaluated(capsys, *words, "--dataset", f"folder:{dataset}")
    split = load_dataset(f"folder:{dataset}").splits["test"]
    expected = evaluate(model, split, LABELS)
    assert found["confusion"] == [list(one) for one in expected.confusion]
