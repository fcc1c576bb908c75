"""Linear classifiers: the row space gives the solution of the whole space."""

import numpy as np
import pytest
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
