"""Transfer benchmarks: splits and scores by hand, the command, figures of recall."""

import json
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnkit.cli.main import main
from cnnkit.data import load_dataset
from cnnkit.data import resize_shorter_side as fit_image
from cnnkit.errors import DataError, UsageError
from cnnkit.features import FeatureBatch, FeatureSpec, select_features_split
from cnnkit.transfer import evaluate_transfer, extract_layers, score_features
from cnnkit.transfer.random_splits import random_split
from tests.helpers.processes import Processes
from tests.helpers.small_network import network

pytestmark = pytest.mark.usefixtures("unoptimized")

CLASSES = ("cat", "dog", "eel")


@pytest.fixture
def labels():
    return np.repeat([0, 1, 2], 20)


def clusters(labels, rng, dimension, noise):
    centers = rng.normal(size=(3, dimension))
    return centers[labels] + rng.normal(0, noise, (len(labels), dimension))


@pytest.mark.parametrize("classifier", ["svm", "softmax"])
def test_a_score_is_the_mean_of_the_class_recalls(labels, rng, classifier):
    values = clusters(labels, rng, 12, 1.2)
    features = FeatureBatch(values, ("",) * 60, labels, CLASSES)
    found = score_features(
        features, "fc7", classifier=classifier, per_class=10, test_per_class=7, splits=2
    )
    for number, split in enumerate(found.splits):
        _, test = random_split(labels, CLASSES, 10, 7, number)
        predicted = split.pipeline.predict(values[test])
        recalls = [np.mean(predicted[labels[test] == i] == i) for i in range(3)]
        assert split.recall == pytest.approx(np.mean(recalls))
        assert split.recalls == pytest.approx(recalls)
    assert found.mean == pytest.approx(np.mean([split.recall for split in found.splits]))
    difference = found.splits[0].recall - found.splits[1].recall
    assert found.std == pytest.approx(abs(difference) / np.sqrt(2))
    assert found.mean > 0.6


def test_names_of_classes_are_labels_in_the_order_of_the_classes(labels, rng):
    """Recalls stand in the order of `classes`, which is not that of the alphabet."""
    classes = ("zebra", "ant", "mule")
    values = clusters(labels, rng, 12, 2.0)
    by_name = np.array(classes)[labels]
    expected, found = (
        score_features(FeatureBatch(values, ("",) * 60, given, classes), "fc7", per_class=10)
        for given in (labels, by_name)
    )
    assert found.mean == expected.mean
    for one, other in zip(found.splits, expected.splits, strict=True):
        assert one.recalls == other.recalls
        assert one.pipeline.classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"per_class": 1.5}, "`per_class` must be an integer of at least 1. Received: 1.5"),
        ({"per_class": "5"}, "`per_class` must be an integer"),
        ({"per_class": None}, "`per_class` must be an integer"),
        ({"test_per_class": 0}, "`test_per_class` must be at least 1"),
        ({"splits": 1.5}, "`splits` must be an integer"),
        ({"classifier": ["svm"]}, "Unknown classifier"),
    ],
)
def test_numbers_of_another_kind_are_refused(labels, rng, fields, text):
    features = FeatureBatch(rng.normal(size=(60, 3)), ("",) * 60, labels, CLASSES)
    with pytest.raises(UsageError, match=text):
        score_features(features, "fc7", **{"per_class": 5, **fields})


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"classifiers": "svm"}, "`classifiers` must be a list of names. Received: 'svm'"),
        ({"classifiers": ["svn"]}, "Unknown classifier 'svn'.*Did you mean svm"),
        ({"per_class": 5}, "`per_class` must be a list of numbers. Received: 5"),
    ],
)
def test_a_wrong_list_is_refused_before_the_features_are_extracted(fields, text):
    with pytest.raises(UsageError, match=text):
        evaluate_transfer(None, load_dataset("digits"), ["fc7"], **fields)


def test_noise_scores_as_guessing(labels, rng):
    features = FeatureBatch(rng.normal(size=(60, 30)), ("",) * 60, labels, CLASSES)
    assert score_features(features, "fc7", per_class=10, splits=5).mean == pytest.approx(
        1 / 3, abs=0.15
    )


def test_wrong_requests(labels, rng):
    features = FeatureBatch(rng.normal(size=(60, 3)), ("",) * 60, labels, CLASSES)
    with pytest.raises(DataError, match=r"cat has too few images.*Received: 20"):
        score_features(features, "fc7", per_class=20)
    with pytest.raises(UsageError, match="`splits` must be at least 1"):
        score_features(features, "fc7", splits=0)
    with pytest.raises(UsageError, match="Did you mean svm"):
        score_features(features, "fc7", classifier="svn", per_class=5)


def test_the_command(image_folder, tmp_path, capsys, monkeypatch):
    # Every state of a bar is a line.
    monkeypatch.setattr("cnnkit.cli.console.LINE_SECONDS", 0.0)
    model = tmp_path / "net.keras"
    network().save(model)
    words = ["transfer", str(model), "--dataset", f"folder:{image_folder}", "--layer", "pool1",
             "fc7", "--per-class", "3,6", "--test-per-class", "10", "--splits", "2"]  # fmt: skip
    assert main([*words, "--json"]) == 0
    printed = capsys.readouterr()
    lines = [line.partition(",")[0] for line in printed.err.splitlines() if "classifiers" in line]
    assert lines == [f"{number} of 8 classifiers" for number in range(9)]
    document = json.loads(printed.out)
    rows = [(one["layer"], one["per_class"]) for one in document["scores"]]
    assert sorted(rows) == [("fc7", 3), ("fc7", 6), ("pool1", 3), ("pool1", 6)]
    for one in document["scores"]:
        assert [split["test_images"] for split in one["splits"]] == [20, 20]
        assert one["mean"] == pytest.approx(np.mean([split["recall"] for split in one["splits"]]))
    # Bright above or below is seen by any layer.
    assert max(one["mean"] for one in document["scores"]) > 0.9
    assert main(words) == 0
    assert "mean class recall" in capsys.readouterr().out
    assert main(["transfer", str(model)]) == 2
    assert main([*words[:5], "conv9", "--per-class", "3"]) == 2
    assert "conv9" in capsys.readouterr().err


def test_two_networks_stand_side_by_side_each_of_length_one(image_folder):
    one, other = network(seed=1), network(seed=2)
    images = select_features_split(load_dataset(f"folder:{image_folder}"))
    described = extract_layers([one, other], images, ["fc7"], spec=FeatureSpec("fc7"))
    assert described.networks == ("net", "net")
    assert described.identities[0] != described.identities[1]
    expected = []
    for i in range(len(images)):
        center = fit_image(images.load_image(tf.constant(i, tf.int64)), 23)[None]
        vectors = [
            keras.Model(net.input, net.get_layer("fc7").output)(center).numpy()[0]
            for net in (one, other)
        ]
        expected.append(np.concatenate([v / np.sqrt(np.sum(v**2)) for v in vectors]))
    np.testing.assert_allclose(described.values[0], expected, atol=1e-5)


STOPPED = """
import os, signal, sys
from cnnkit.cli.main import main
from cnnkit.features import extract
real = extract.stream_features
def stream(*given):
    for number, batch in enumerate(real(*given)):
        yield batch
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
extract.stream_features = stream
sys.exit(main(sys.argv[1:]))
"""


def test_no_way_of_ending_leaves_features_behind(image_folder, tmp_path):
    network().save(tmp_path / "net.keras")
    (tmp_path / "tmp").mkdir()
    words = ["transfer", str(tmp_path / "net.keras"), "--dataset", f"folder:{image_folder}"]
    words += ["--layer", "fc7", "--per-class", "3", "--batch-size", "4"]
    (tmp_path / "logs").mkdir()
    stopped = Processes(tmp_path / "logs").execute(STOPPED, *words, TMPDIR=str(tmp_path / "tmp"))
    assert stopped.returncode == -signal.SIGKILL
    # TensorFlow's own pieces of code, of a few hundred bytes, stay, and sometimes their bytecode.
    left = [file.name for file in (tmp_path / "tmp").iterdir() if file.name != "__pycache__"]
    assert [name for name in left if not name.startswith("__autograph_generated")] == []


def test_recall_against_training_images_is_drawn(image_folder, tmp_path, capsys):
    network().save(tmp_path / "net.keras")
    words = ["transfer", str(tmp_path / "net.keras"), "--dataset", f"folder:{image_folder}"]
    words += ["--layer", "fc7", "--splits", "2", "--classifier", "svm", "softmax"]
    figure = tmp_path / "growth.png"
    assert main([*words, "--per-class", "2", "4", "8", "--figure", str(figure)]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0].split()[:4] == ["layer", "classifier", "per", "class"]
    assert said.splitlines()[-1] == str(figure)
    assert keras.utils.load_img(figure).size[0] > 500
    rows = json.loads(figure.with_suffix(".json").read_text())["scores"]
    found = [(row["classifier"], row["per_class"]) for row in rows]
    assert found == [(kind, n) for kind in ("svm", "softmax") for n in (2, 4, 8)]
    for wrong in (["--per-class", "5"], ["--per-class", "2", "4", "--figure", "growth.gif"]):
        assert main([*words, "--overwrite", "--figure", str(figure), *wrong]) == 2
