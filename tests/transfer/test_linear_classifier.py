"""Linear classifiers: the row space gives the solution of the whole space."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import Normalizer
from sklearn.svm import LinearSVC

from cnnkit.errors import UsageError
from cnnkit.transfer.linear_classifier import class_recalls, fit_linear_classifier


@pytest.fixture
def labels():
    return np.repeat([0, 1, 2], 20)


def clusters(labels, rng, dimension, noise):
    centers = rng.normal(size=(3, dimension))
    return centers[labels] + rng.normal(0, noise, (len(labels), dimension))


def test_the_space_of_the_images_gives_the_solution_of_the_whole_space(labels, rng):
    values = clusters(labels, rng, 500, 1.5)
    pipeline, c = fit_linear_classifier(values, labels, c_values=(10.0,))
    whole = LinearSVC(C=c, fit_intercept=True, tol=1e-8, max_iter=100_000)
    whole.fit(Normalizer().transform(values), labels)
    seen = clusters(labels, np.random.default_rng(9), 500, 1.5)
    found, expected = (
        model.decision_function(rows)
        for model, rows in ((pipeline, seen), (whole, Normalizer().transform(seen)))
    )
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_the_recall_of_a_class_is_the_part_of_its_images_that_are_found():
    labels, predicted = np.array([0, 0, 2, 2, 2, 2]), np.array([0, 1, 2, 0, 2, 2])
    # Class 1 has no images: predicting it is only a miss of another class.
    assert class_recalls(labels, predicted).tolist() == [0.5, 0.75]


def test_wrong_requests(labels, rng):
    values = clusters(labels, rng, 5, 1.0)
    with pytest.raises(UsageError, match="`labels` must have at least two classes. Received: 1"):
        fit_linear_classifier(values, np.zeros_like(labels))
    with pytest.raises(UsageError, match="Did you mean softmax"):
        fit_linear_classifier(values, labels, "softmaxx")


# Not in the order of the alphabet, as classes of a dataset may be.
NAMES = np.array(["zebra", "ant", "m\u00f6we"])


@pytest.mark.parametrize("kind", ["svm", "softmax"])
@pytest.mark.parametrize("names", [NAMES, NAMES.astype(object)])
def test_names_are_labels_as_in_scikit_learn(labels, rng, kind, names):
    values = clusters(labels, rng, 9, 1.0)
    pipeline, c = fit_linear_classifier(values, list(names[labels]), kind)
    theirs = {"svm": LinearSVC(C=c, dual=False), "softmax": LogisticRegression(C=c, max_iter=2000)}
    expected = theirs[kind].fit(Normalizer().transform(values), names[labels])
    assert pipeline.classes_.tolist() == expected.classes_.tolist() == sorted(NAMES)
    seen = clusters(labels, np.random.default_rng(9), 9, 1.0)
    rows = Normalizer().transform(seen)
    np.testing.assert_array_equal(pipeline.predict(seen), expected.predict(rows))
    np.testing.assert_allclose(
        pipeline.decision_function(seen), expected.decision_function(rows), atol=1e-3
    )


@pytest.mark.parametrize(
    "kind_of_label",
    [
        lambda labels: labels.tolist(),
        lambda labels: labels[:, None],
        lambda labels: labels.astype("float32"),
        lambda labels: labels.astype("uint8"),
        lambda labels: labels - 5,
    ],
)
def test_other_forms_of_the_same_labels_give_the_same_classifier(labels, rng, kind_of_label):
    values = clusters(labels, rng, 9, 1.0)
    given = kind_of_label(labels)
    expected, c = fit_linear_classifier(values, labels, c_values=(1.0,))
    pipeline, _ = fit_linear_classifier(values.tolist(), given, c_values=(c,))
    np.testing.assert_allclose(pipeline[-1].coef_, expected[-1].coef_, atol=1e-6)
    assert pipeline.classes_.tolist() == np.unique(given).tolist()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda labels: labels[:-1], r"`labels` must be one label for each image.*shape \(60,\)"),
        (lambda labels: np.eye(3)[labels], "one label for each image.*`fit_multilabel` takes"),
        (lambda labels: [["cat"], ["cat", "dog"]] * 30, "`labels` must be one label for each im"),
        (lambda labels: labels + 0.5, "`labels` must be integers or texts. Received: float64"),
        (lambda labels: np.where(labels, np.nan, 1.0), "`labels` must be integers or texts"),
        (lambda labels: [None, "cat", "dog"] * 20, "`labels` must be integers or texts"),
        (lambda labels: [1, "cat", ("dog",)] * 20, "`labels` must be"),
        (lambda labels: None, "`labels` must be one label for each image"),
        (lambda labels: "cat", "`labels` must be one label for each image"),
    ],
)
def test_labels_of_another_kind_are_refused(labels, rng, change, text):
    with pytest.raises(UsageError, match=text) as error:
        fit_linear_classifier(clusters(labels, rng, 5, 1.0), change(labels))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"values": np.zeros(60)}, "`values` must be a feature vector for each image"),
        ({"values": np.full((60, 2), "a")}, "`values` must be a feature vector"),
        ({"values": np.full((60, 2), np.nan)}, "`values` must be finite"),
        ({"c_values": ()}, "`c_values` must be a list of numbers"),
        ({"c_values": (0.0,)}, "`c_values` must be finite and above 0"),
        ({"c_values": 10}, "`c_values` must be a list of numbers"),
        ({"kind": ["svm"]}, "Unknown classifier"),
    ],
)
def test_wrong_arguments_are_named(labels, rng, fields, text):
    arguments = {"values": clusters(labels, rng, 5, 1.0), "labels": labels, **fields}
    with pytest.raises(UsageError, match=text):
        fit_linear_classifier(**arguments)
