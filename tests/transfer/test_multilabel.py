"""Multi-label classification: average precision by hand and by scikit-learn, one-vs-rest."""

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import Normalizer
from sklearn.svm import LinearSVC

from cnnkit.cli.main import main
from cnnkit.data.sources.voc import load_voc
from cnnkit.errors import DataError, UsageError
from cnnkit.transfer import (
    average_precisions,
    extract_layers,
    fit_multilabel,
    load_linear_probe,
    score_multilabel,
)
from cnnkit.transfer.average_precision import (
    METRICS,
    voc2007_average_precision,
    voc2010_average_precision,
)
from tests.helpers.small_network import network
from tests.helpers.voc_folder import CLASSES, write_voc_folder


@pytest.fixture(scope="module")
def voc_folder(tmp_path_factory):
    return write_voc_folder(tmp_path_factory.mktemp("VOC2007"))


def test_a_worked_example():
    # By hand. In order of the scores: + - d + - - + with d difficult, so + - + - - +:
    #   found     1    1    2    2    2    3     of 3
    #   precision 1    1/2  2/3  1/2  2/5  1/2
    # Best precision at a recall of 1/3 or more: 1; of 2/3 or more: 2/3; of 1: 1/2.
    marks = np.array([1, -1, 0, 1, -1, -1, 1])
    scores = np.array([9.0, 8.0, 7.5, 7.0, 6.0, 5.0, 4.0])
    assert voc2010_average_precision(scores, marks) == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    # Levels 0, .1, .2, .3 see 1; .4, .5, .6 see 2/3; .7 to 1 see 1/2.
    assert voc2007_average_precision(scores, marks) == pytest.approx(
        (4 * 1 + 3 * 2 / 3 + 4 * 1 / 2) / 11
    )
    # A better image far below lifts the precision at every lower recall: the envelope.
    marks = np.array([-1, 1, 1, 1])
    scores = np.arange(4, 0, -1)
    assert voc2010_average_precision(scores, marks) == pytest.approx(3 / 4)
    assert voc2007_average_precision(scores, marks) == pytest.approx(3 / 4)
    assert average_precision_score(marks > 0, scores) == pytest.approx((1 / 2 + 2 / 3 + 3 / 4) / 3)


def test_a_level_is_reached_exactly():
    # The third of ten images is a recall of 0.3, although 3 * 0.1 is more than that in binary.
    marks = np.array([1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, 1, 1, 1])
    scores = -np.arange(14.0)
    after = 10 / 14
    assert voc2007_average_precision(scores, marks) == pytest.approx((4 * 1 + 7 * after) / 11)


def test_scikit_learn_agrees_where_precision_never_rises(rng):
    # It takes no envelope, so the two agree exactly where the curve falls by itself: at every found
    # image the precision is not above that at the one before.
    agreed = 0
    for _ in range(200):
        has = rng.random(8) < 0.5
        if not has.any():
            continue
        precision = (np.cumsum(has) / np.arange(1, 9))[has]
        scores = -np.arange(8.0)
        ours, theirs = (
            voc2010_average_precision(scores, np.where(has, 1, -1)),
            average_precision_score(has, scores),
        )
        assert ours >= theirs - 1e-12
        falls = (np.diff(precision) <= 0).all()
        assert falls == (abs(ours - theirs) < 1e-12)
        agreed += falls
    assert agreed > 20
    # Images of equal scores are found together in both.
    assert voc2010_average_precision(np.zeros(5), np.array([1, -1, -1, 1, -1])) == pytest.approx(
        2 / 5
    )
    assert average_precision_score([1, 0, 0, 1, 0], np.zeros(5)) == pytest.approx(2 / 5)


def test_the_order_of_the_images_does_not_matter(rng):
    marks, scores = rng.integers(-1, 2, 60), rng.integers(0, 8, 60).astype(float)
    order = rng.permutation(60)
    for metric in (voc2010_average_precision, voc2007_average_precision):
        assert metric(scores[order], marks[order]) == metric(scores, marks)


def test_what_cannot_be_measured():
    with pytest.raises(DataError, match="`voc_labels` must have at least one image of the class"):
        voc2010_average_precision(np.ones(3), np.array([-1, 0, -1]))
    with pytest.raises(DataError, match="`scores` must be finite"):
        voc2010_average_precision(np.array([1, np.nan]), np.array([1, -1]))
    with pytest.raises(DataError, match="no test image has any class"):
        average_precisions(np.zeros((2, 2)), np.array([[-1, 0], [0, -1]]))
    found = average_precisions(np.zeros((2, 2)), np.array([[1, 0], [1, -1]]))
    assert found["area"][0] == 1
    assert np.isnan(found["area"][1])


def test_each_class_is_the_svm_on_its_own_images(rng):
    values = rng.normal(size=(60, 12))
    marks = np.where(values[:, :3] + rng.normal(0, 0.5, (60, 3)) > 0, 1, -1)
    marks[rng.random((60, 3)) < 0.15] = 0
    pipeline, c = fit_multilabel(values, marks, CLASSES, c_values=(1.0,))
    assert c == 1
    seen = rng.normal(size=(20, 12))
    found = pipeline.decision_function(seen)
    assert found.shape == (20, 3)
    for i, column in enumerate(marks.T):
        alone = LinearSVC(C=1.0, dual=False, tol=1e-8)
        counted = column != 0
        alone.fit(Normalizer().transform(values[counted]), column[counted] > 0)
        expected = alone.decision_function(Normalizer().transform(seen))
        np.testing.assert_allclose(found[:, i], expected, atol=1e-5)
        # A difficult image takes no side: another answer for it changes nothing.
        assert counted.sum() < 60
    np.testing.assert_array_equal(pipeline.predict(seen), found > 0)


@pytest.mark.parametrize("metric", ["area", "eleven-point"])
@pytest.mark.parametrize("dimension", [60, 200])
def test_c_is_chosen_as_separate_classifiers_would(metric, dimension):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(120, dimension))
    values[:, 3:] *= 0.2
    marks = np.where(values[:, :3] + 0.2 * rng.normal(size=(120, 3)) > 0, 1, -1)
    marks[rng.random((120, 3)) < 0.1] = 0
    # A large part that all images share: only a large C tells them from each other.
    values += 5 * rng.random(dimension)
    _, c = fit_multilabel(values, marks, CLASSES, metric=metric, seed=4)
    rows, held = Normalizer().transform(values), np.random.default_rng(4).random(120) < 0.2
    means = []
    for candidate in (0.1, 1.0, 10.0, 100.0):
        precisions = []
        for column in marks.T:
            fitted = ~held & (column != 0)
            model = LinearSVC(C=candidate, dual=False, tol=1e-8).fit(rows[fitted], column[fitted])
            scores = model.decision_function(rows[held])
            precisions.append(METRICS[metric](scores, column[held]))
        means.append(np.mean(precisions))
    assert c == (0.1, 1.0, 10.0, 100.0)[int(np.argmax(means))]


def test_wrong_requests(rng):
    values, marks = rng.normal(size=(10, 3)), np.ones((10, 3), int)
    with pytest.raises(DataError, match="bird cannot be learned.*10 with and 0 without"):
        fit_multilabel(values, marks, CLASSES)
    with pytest.raises(UsageError, match="Did you mean area"):
        fit_multilabel(values, marks, CLASSES, metric="aera")
    with pytest.raises(UsageError, match="Did you mean svm"):
        fit_multilabel(values, marks, CLASSES, "svn")


def test_a_wide_layer_chooses_by_the_metric(rng):
    # More features than images: the work is done in the space of the images.
    marks = np.where(rng.random((50, 3)) < 0.5, 1, -1)
    centers = rng.normal(size=(3, 400))
    values = marks @ centers + rng.normal(0, 3, (50, 400))
    found = score_multilabel(
        values[:30], marks[:30], values[30:], marks[30:], "fc7", CLASSES, metric="eleven-point"
    )
    scores = found.pipeline.decision_function(values[30:])
    for metric, function in (
        ("area", voc2010_average_precision),
        ("eleven-point", voc2007_average_precision),
    ):
        expected = [function(scores[:, i], marks[30:, i]) for i in range(3)]
        assert found.precisions[metric] == pytest.approx(expected)
        assert found.mean(metric) == pytest.approx(np.mean(expected))
    assert found.mean() > 0.8


def test_the_command(voc_folder, tmp_path, capsys, monkeypatch):
    # Every state of a bar is a line.
    monkeypatch.setattr("cnnkit.cli.console.LINE_SECONDS", 0.0)
    net = network()
    net.save(tmp_path / "net.keras")
    words = ["transfer", str(tmp_path / "net.keras"), "--dataset", f"voc:{voc_folder}"]
    words += ["--layer", "pool1"]
    assert main([*words, "--json", "--save", str(tmp_path / "saved")]) == 0
    printed = capsys.readouterr()
    assert "\n1 of 1 classifiers, " in printed.err
    document = json.loads(printed.out)
    assert (document["train"], document["test"], document["metric"]) == ("trainval", "test", "area")
    [row] = document["scores"]
    voc = load_voc(voc_folder)
    saved = load_linear_probe(tmp_path / "saved")
    assert saved.multilabel
    [values] = extract_layers(net, voc.splits["test"], ["pool1"]).values
    scores = saved.pipeline.decision_function(values)
    expected = {
        label: voc2010_average_precision(scores[:, i], voc.voc_labels["test"][:, i])
        for i, label in enumerate(CLASSES)
    }
    assert row["average_precision"]["area"] == pytest.approx(expected)
    assert row["mean_average_precision"]["area"] == pytest.approx(np.mean([*expected.values()]))
    # Colors are seen by any layer.
    assert row["mean_average_precision"]["area"] > 0.8

    predict = ["transfer", "predict", str(tmp_path / "saved")]
    assert main([*predict, "--dataset", f"voc:{voc_folder}", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["mean_average_precision"] == pytest.approx(row["mean_average_precision"])
    for one, of_image in zip(again["images"], scores, strict=True):
        shown = {label for label, score in zip(CLASSES, of_image, strict=True) if score > 0}
        assert set(one["labels"]) == shown
    file = str(voc_folder / "JPEGImages" / "000040.jpg")
    assert main([*predict, file]) == 0
    assert capsys.readouterr().out.startswith(file)

    assert main([*words, "--metric", "eleven-point"]) == 0
    assert "mean average precision (eleven-point)" in capsys.readouterr().out
    for wrong, message in (
        (["--metric", "ten"], "--metric must be one of area, eleven-point"),
        (["--test-split", "val"], "Unknown split 'val'"),
        (["--figure", str(tmp_path / "a.png")], "recall against training images"),
    ):
        assert main([*words, *wrong]) == 2
        assert message in capsys.readouterr().err
    assert main([*words[:3], "digits", "--metric", "area"]) == 2


INDICATOR = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])


@pytest.mark.parametrize("convert", [np.asarray, lambda marks: marks > 0, np.ndarray.tolist])
def test_an_indicator_of_scikit_learn_is_refused(rng, convert):
    """Its 0 would be read as difficult, and every average precision would be 1."""
    scores, given = rng.normal(size=(4, 2)), convert(INDICATOR)
    column = convert(INDICATOR[:, 0])
    for call in (
        lambda: average_precisions(scores, given),
        lambda: fit_multilabel(scores, given, ["cat", "dog"]),
        lambda: voc2010_average_precision(scores[:, 0], column),
        lambda: voc2007_average_precision(scores[:, 0], column),
        lambda: score_multilabel(scores, 2 * INDICATOR - 1, scores, given, "fc7", ["cat", "dog"]),
    ):
        with pytest.raises(UsageError, match="`voc_labels` must be -1 for images without"):
            call()
    # As advised, the value of scikit-learn for scores in which precision only falls.
    scores = np.array([[3.0, 0], [2, 3], [1, 2], [0, 1]])
    found = average_precisions(scores, 2 * INDICATOR - 1)["area"]
    expected = average_precision_score(INDICATOR, scores, average=None)
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize(
    ("marks", "text"),
    [
        ([["cat"], ["cat", "dog"], [], ["dog"]], "`voc_labels` must"),
        (["cat", "dog", "cat", "dog"], "`voc_labels` must have a row for each image and 2 axes"),
        ([["cat", "dog"]] * 4, r"`voc_labels` must be 1 \(has the class\), -1"),
        (INDICATOR * 2 - 2, "`voc_labels` must be 1"),
        ((2 * INDICATOR - 1)[:3], "`voc_labels` must have a row for each image"),
        (np.full((4, 2), np.nan), "`voc_labels` must be 1"),
    ],
)
def test_other_labels_are_refused(rng, marks, text):
    with pytest.raises(UsageError, match=text):
        fit_multilabel(rng.normal(size=(4, 3)), marks, ["cat", "dog"])
    with pytest.raises(UsageError, match=text):
        average_precisions(rng.normal(size=(4, 2)), marks)


def test_classes_and_scores_must_fit_the_labels(rng):
    marks = 2 * INDICATOR - 1
    with pytest.raises(UsageError, match="`classes` must hold a name for each column.*2 names"):
        fit_multilabel(rng.normal(size=(4, 3)), marks, ["cat", "dog", "eel"])
    with pytest.raises(UsageError, match="`scores` must hold one for each image and class"):
        average_precisions(rng.normal(size=(4, 3)), marks)
