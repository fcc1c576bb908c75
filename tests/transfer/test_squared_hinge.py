"""Support vector machines of all classes at once: the minimum that liblinear finds one by one."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import recall_score
from sklearn.preprocessing import Normalizer
from sklearn.svm import LinearSVC

from cnnkit.data.dataset import stratified_holdout
from cnnkit.transfer import fit_linear_classifier, squared_hinge
from cnnkit.transfer.feature_rows import FeatureRows
from cnnkit.transfer.linear_classifier import C_VALUES
from cnnkit.transfer.squared_hinge import SupportVectorMachines

# Many features, as many as images, few: inner products, inner products, the features themselves.
SHAPES = [(60, 300), (60, 60), (60, 7)]


def images(rng, count, dimension, classes=5, noise=1.0):
    """Return features above 0, as after a ReLU, and labels."""
    labels = np.arange(count) % classes
    centers = rng.normal(0.5, 1, (classes, dimension))
    return np.maximum(0, centers[labels] + rng.normal(0, noise, (count, dimension))), labels


def liblinear(values, labels, c):
    return LinearSVC(C=c, dual=False, tol=1e-10, max_iter=100_000).fit(values, labels)


@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_weights_of_every_class_are_those_of_liblinear(rng, shape, c):
    values, labels = images(rng, *shape)
    pipeline, _ = fit_linear_classifier(values, labels, c_values=(c,))
    expected = liblinear(Normalizer().transform(values), labels, c)
    size = np.abs(expected.coef_).max()
    np.testing.assert_allclose(pipeline[-1].coef_, expected.coef_, atol=1e-4 * size)
    np.testing.assert_allclose(pipeline[-1].intercept_, expected.intercept_, atol=1e-4 * size)
    assert pipeline[-1].classes_.tolist() == expected.classes_.tolist()


def objective(values, positive, coefficients, intercept, c):
    margins = np.where(positive, 1, -1) * (values @ coefficients + intercept)
    penalty = (coefficients @ coefficients + intercept**2) / 2
    return penalty + c * (np.maximum(0, 1 - margins) ** 2).sum()


@pytest.mark.parametrize("scale", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_objective_is_at_most_that_of_liblinear(rng, shape, scale):
    # Constant features, equal images of different classes, and an image of zeros.
    values, labels = images(rng, *shape)
    values[:, :2], values[3], values[8] = 1, values[4], 0
    values *= scale
    largest = squared_hinge.RANGE / ((values**2).sum(1).max() + 1)
    for c in (1e-6 * largest, 1e-3 * largest, 0.999 * largest):
        model = fit_linear_classifier(values, labels, c_values=(c,), l2=False)[0][-1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            expected = LinearSVC(C=c, dual=False, tol=1e-8, max_iter=2000).fit(values, labels)
        ours, theirs = (
            [
                objective(values, labels == label, one.coef_[label], one.intercept_[label], c)
                for label in range(5)
            ]
            for one in (model, expected)
        )
        assert (np.array(ours) <= np.array(theirs) * (1 + 1e-6)).all()


@pytest.mark.parametrize("shape", [(60, 300), (60, 7)])
def test_long_vectors_are_left_to_liblinear(rng, shape):
    values, labels = images(rng, *shape)
    pipeline, c = fit_linear_classifier(100 * values, labels, c_values=(1.0, 2.0), l2=False)
    expected = LinearSVC(C=c, dual=False).fit(100 * values, labels)
    np.testing.assert_allclose(pipeline[-1].coef_, expected.coef_, rtol=1e-3, atol=1e-5)


def test_two_points_by_hand():
    # |w|^2 / 2 + 2C (1 - w)^2 at x = 1 and -1: w = 4C / (1 + 4C), and by symmetry no intercept.
    values = np.array([[-1.0], [1.0]])
    for c in (0.1, 1.0, 10.0):
        model = fit_linear_classifier(values, [0, 1], c_values=(c,), l2=False)[0][-1]
        np.testing.assert_allclose(model.coef_, [[4 * c / (1 + 4 * c)]], rtol=1e-6)
        np.testing.assert_allclose(model.intercept_, [0], atol=1e-9)


@pytest.mark.parametrize("shape", [(150, 400), (150, 20)])
@pytest.mark.parametrize("candidates", [C_VALUES, C_VALUES[::-1]])
@pytest.mark.parametrize("classes", [2, 5])
def test_c_is_chosen_as_one_liblinear_after_the_other_would(shape, candidates, classes):
    # Hard to tell from each other: noise, and a large part that all images share.
    noise = 8.0 if shape[1] > 100 else 2.0
    values, labels = images(np.random.default_rng(0), *shape, classes, noise)
    values += 20
    pipeline, c = fit_linear_classifier(values, labels, c_values=candidates, seed=3)
    rows, held = Normalizer().transform(values), stratified_holdout(labels, 3)
    recalls = []
    for candidate in candidates:
        model = liblinear(rows[~held], labels[~held], candidate)
        predicted = model.predict(rows[held])
        recalls.append(recall_score(labels[held], predicted, average="macro"))
    assert len(set(recalls)) > 1 or classes == 5
    assert c == candidates[int(np.argmax(recalls))]
    expected = liblinear(rows, labels, c)
    seen = images(np.random.default_rng(9), 50, shape[1], classes, noise)[0] + 20
    np.testing.assert_array_equal(
        pipeline.predict(seen), expected.predict(Normalizer().transform(seen))
    )


def test_of_equally_good_values_of_c_the_first_is_chosen(rng):
    values, labels = images(rng, 60, 300, noise=0.01)
    for candidates in ((1.0, 100.0), (100.0, 1.0)):
        assert fit_linear_classifier(values, labels, c_values=candidates)[1] == candidates[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_that_do_not_count_are_left_out(rng, shape):
    values, labels = images(rng, *shape)
    targets = np.where(labels[:, None] == np.arange(5), 1.0, -1.0)
    targets[::4, 1] = 0
    machines = SupportVectorMachines(FeatureRows(values, l2=False), targets, (1.0,))
    coefficients, intercepts = machines.fit(1.0)
    for index in range(5):
        counted = targets[:, index] != 0
        alone = liblinear(values[counted], targets[counted, index], 1.0)
        np.testing.assert_allclose(coefficients[index], alone.coef_[0], atol=1e-4)
        np.testing.assert_allclose(intercepts[index], alone.intercept_[0], atol=1e-4)


def test_float32_features_give_the_objective_of_float64(rng):
    values, labels = images(rng, 120, 5000)
    for c in C_VALUES:
        models = [
            fit_linear_classifier(values.astype(dtype), labels, c_values=(c,))[0][-1]
            for dtype in (np.float32, np.float64)
        ]
        rows = Normalizer().transform(values)
        single, double = (
            [
                objective(rows, labels == label, model.coef_[label], model.intercept_[label], c)
                for label in range(5)
            ]
            for model in models
        )
        np.testing.assert_allclose(single, double, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_too_few_steps_are_reported(rng, monkeypatch, shape):
    values, labels = images(rng, *shape)
    monkeypatch.setattr(squared_hinge, "NEWTON_STEPS", 1)
    with pytest.warns(ConvergenceWarning, match=r"5 of 5 support vector machines with C = 100 did"):
        fit_linear_classifier(values, labels, c_values=(100.0,))
