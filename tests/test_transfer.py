"""Linear classifiers on features: against scikit-learn on the whole vectors, splits by hand."""

import json

import numpy as np
import pytest
from sklearn.preprocessing import Normalizer
from sklearn.svm import LinearSVC
from test_features import network

from cnnkit import cli
from cnnkit.errors import DataError, UsageError
from cnnkit.features import Features
from cnnkit.transfer import score
from cnnkit.transfer.classifiers import fit
from cnnkit.transfer.splits import random_split

CLASSES = ("cat", "dog", "eel")


@pytest.fixture
def labels():
    return np.repeat([0, 1, 2], 20)


def clusters(labels, rng, dimension, noise):
    centres = rng.normal(size=(3, dimension))
    return centres[labels] + rng.normal(0, noise, (len(labels), dimension))


def test_the_space_of_the_images_gives_the_solution_of_the_whole_space(labels, rng):
    values = clusters(labels, rng, 500, 1.5)
    pipeline, c = fit(values, labels, c_values=(10.0,))
    whole = LinearSVC(C=c, fit_intercept=True, tol=1e-8, max_iter=100_000)
    whole.fit(Normalizer().transform(values), labels)
    seen = clusters(labels, np.random.default_rng(9), 500, 1.5)
    found, expected = (
        model.decision_function(rows)
        for model, rows in ((pipeline, seen), (whole, Normalizer().transform(seen)))
    )
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_splits_are_drawn_by_class_and_seed(labels):
    train, test = random_split(labels, CLASSES, 5, 8, seed=3)
    assert np.bincount(labels[train]).tolist() == [5, 5, 5]
    assert np.bincount(labels[test]).tolist() == [8, 8, 8]
    assert not set(train) & set(test)
    more, rest = random_split(labels, CLASSES, 12, None, seed=3)
    assert set(train) < set(more)
    assert len(rest) == 3 * 8
    assert sorted(random_split(labels, CLASSES, 5, 8, seed=4)[0]) != sorted(train)


@pytest.mark.parametrize("classifier", ["svm", "softmax"])
def test_a_score_is_the_mean_of_the_class_recalls(labels, rng, classifier):
    values = clusters(labels, rng, 12, 1.2)
    features = Features(values, ("",) * 60, labels, CLASSES)
    found = score(features, "fc7", classifier=classifier, per_class=10, test_per_class=7, splits=2)
    for number, split in enumerate(found.splits):
        _, test = random_split(labels, CLASSES, 10, 7, number)
        predicted = split.pipeline.predict(values[test])
        recalls = [np.mean(predicted[labels[test] == i] == i) for i in range(3)]
        assert split.recall == pytest.approx(np.mean(recalls))
        assert split.recalls == pytest.approx(recalls)
    assert found.mean == pytest.approx(np.mean([split.recall for split in found.splits]))
    difference = found.splits[0].recall - found.splits[1].recall
    assert found.deviation == pytest.approx(abs(difference) / np.sqrt(2))
    assert found.mean > 0.6


def test_noise_scores_as_guessing(labels, rng):
    features = Features(rng.normal(size=(60, 30)), ("",) * 60, labels, CLASSES)
    assert score(features, "fc7", per_class=10, splits=5).mean == pytest.approx(1 / 3, abs=0.15)


def test_wrong_requests(labels, rng):
    features = Features(rng.normal(size=(60, 3)), ("",) * 60, labels, CLASSES)
    with pytest.raises(DataError, match=r"cat has too few images.*Received: 20"):
        score(features, "fc7", per_class=20)
    with pytest.raises(UsageError, match="takes splits"):
        score(features, "fc7", splits=0)
    with pytest.raises(UsageError, match="Did you mean svm"):
        score(features, "fc7", classifier="svn", per_class=5)
    with pytest.raises(DataError):
        random_split(labels, CLASSES[:2], 5, 5, 0)


def test_the_command(image_folder, tmp_path, capsys):
    model = tmp_path / "net.keras"
    network().save(model)
    words = ["transfer", str(model), "--dataset", f"folder:{image_folder}", "--layer", "pool1",
             "fc7", "--per-class", "3,6", "--test-per-class", "10", "--splits", "2"]  # fmt: skip
    assert cli.main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    rows = [(one["layer"], one["per_class"]) for one in document["scores"]]
    assert sorted(rows) == [("fc7", 3), ("fc7", 6), ("pool1", 3), ("pool1", 6)]
    for one in document["scores"]:
        assert [split["test_images"] for split in one["splits"]] == [20, 20]
        assert one["mean"] == pytest.approx(np.mean([split["recall"] for split in one["splits"]]))
    # Bright above or below is seen by any layer.
    assert max(one["mean"] for one in document["scores"]) > 0.9
    assert cli.main(words) == 0
    assert "mean class recall" in capsys.readouterr().out
    assert cli.main(["transfer", str(model)]) == 2
    assert cli.main([*words[:5], "conv9", "--per-class", "3"]) == 2
    assert "conv9" in capsys.readouterr().err
