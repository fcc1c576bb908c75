"""Feature vectors as rows: lengths, inner products, and the space that they span."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import Normalizer

from cnnkit.transfer import feature_rows, fit_linear_classifier
from cnnkit.transfer.feature_rows import FeatureRows


@pytest.fixture
def values(rng, monkeypatch):
    monkeypatch.setattr(feature_rows, "COLUMNS", 32)
    values = rng.normal(size=(20, 101))
    values[4], values[7], values[9] = 0, values[2], 3 * values[3]
    return values


@pytest.mark.parametrize("l2", [True, False])
def test_inner_products_and_sums_of_blocks_are_those_of_the_whole(values, rng, l2):
    rows, whole = FeatureRows(values, l2), Normalizer().transform(values) if l2 else values
    np.testing.assert_allclose(rows.gram(), whole @ whole.T, atol=1e-12)
    coefficients = rng.normal(size=(20, 3))
    np.testing.assert_allclose(rows.combine(coefficients), coefficients.T @ whole, atol=1e-12)


def test_inner_products_are_added_in_the_order_of_the_blocks(values):
    """The last bits of a sum depend on its order, and threads end in any order."""
    rows = FeatureRows(values, l2=False)
    expected = np.zeros((len(values), len(values)))
    for start in range(0, values.shape[1], 32):
        block = values[:, start : start + 32]
        expected = expected + block @ block.T
    for _ in range(20):
        np.testing.assert_array_equal(rows.gram(), expected)


def test_float32_products_are_close(values):
    single = FeatureRows(values.astype(np.float32), l2=True).gram(np.float32)
    assert single.dtype == np.float64
    np.testing.assert_allclose(single, FeatureRows(values, l2=True).gram(), atol=1e-6)


@pytest.mark.parametrize("l2", [True, False])
def test_coordinates_have_the_inner_products_of_the_vectors(values, rng, l2):
    rows, whole = FeatureRows(values, l2), Normalizer().transform(values) if l2 else values
    coordinates, to_features = rows.coordinates()
    # A vector of zeros and two multiples of others add no direction.
    assert coordinates.shape == (20, 17)
    np.testing.assert_allclose(coordinates @ coordinates.T, whole @ whole.T, atol=1e-9)
    coefficients = rng.normal(size=(3, 17))
    features = to_features(coefficients)
    np.testing.assert_allclose(whole @ features.T, coordinates @ coefficients.T, atol=1e-9)
    np.testing.assert_allclose(features @ features.T, coefficients @ coefficients.T, atol=1e-9)


def test_few_features_are_their_own_coordinates(rng):
    values = rng.normal(size=(9, 4))
    coordinates, to_features = FeatureRows(values, l2=False).coordinates()
    np.testing.assert_array_equal(coordinates, values)
    np.testing.assert_array_equal(to_features(values), values)


def test_the_softmax_of_coordinates_is_that_of_the_features(values):
    labels = np.arange(20) % 3
    pipeline, _ = fit_linear_classifier(values, labels, "softmax", c_values=(1.0,))
    rows = Normalizer().transform(values)
    expected = LogisticRegression(C=1.0, tol=1e-8, max_iter=10_000).fit(rows, labels)
    np.testing.assert_allclose(pipeline[-1].coef_, expected.coef_, atol=1e-3)
    np.testing.assert_allclose(
        pipeline.decision_function(values), expected.decision_function(rows), atol=1e-3
    )
