"""Statistics of units, against numbers worked out by hand."""

import numpy as np
import pytest

from cnnkit.visualize.unit_statistics import UnitStatistics

# Four images of two classes; unit 1 is twice unit 0, unit 2 fires for one image, unit 3 never.
VALUES = np.array([[1, 2, 0, -1], [3, 6, 0, -2], [0, 0, 0, -3], [0, 0, 4, -4]], np.float32)
LABELS = np.array([0, 0, 1, 1])


@pytest.fixture(scope="module")
def statistics():
    found = UnitStatistics(3)
    for batch in (slice(0, 3), slice(3, 4)):
        count = len(VALUES[batch])
        found.collect(VALUES[batch], LABELS[batch], sampled=np.ones(count, bool))
    return found


def test_units_are_counted_and_averaged_by_class(statistics):
    assert statistics.images == 4
    np.testing.assert_allclose(statistics.firing_rate, [0.5, 0.5, 0.25, 0])
    np.testing.assert_allclose(statistics.class_means, [[2, 4, 0, 0], [0, 0, 2, 0], [0] * 4])


def test_class_selectivity_is_that_of_morcos(statistics):
    # The third class has no images and does not count.
    np.testing.assert_allclose(statistics.class_selectivity, [1, 1, 1, 0])
    found = UnitStatistics(3)
    found.collect(np.array([[3.0], [1.0]]), np.array([0, 1]), sampled=np.ones(2, bool))
    np.testing.assert_allclose(found.class_selectivity, [(3 - 1) / (3 + 1)])


def test_near_duplicates_correlate(statistics):
    assert statistics.near_duplicates().tolist() == [1, 0, -1, -1]


def test_a_histogram_counts_the_sampled_images():
    found = UnitStatistics(1)
    sampled = np.array([True, False, True, True])
    found.collect(VALUES, np.zeros(4, int), sampled=sampled)
    counts, edges = found.histogram(0)
    assert counts.sum() == 3
    assert counts[0] == 2
    assert counts[-1] == 1
    assert (edges[0], edges[-1], len(counts)) == (0, 1, 24)


def test_units_that_never_fired_and_one_class_alone():
    found = UnitStatistics(1)
    assert found.firing_rate.shape == (0,)
    found.collect(VALUES, np.zeros(4, int), sampled=np.ones(4, bool))
    np.testing.assert_array_equal(found.class_selectivity, np.zeros(4))
    counts, edges = found.histogram(3)
    assert (counts[0], counts.sum(), edges[-1]) == (4, 4, 1)


def test_a_correlation_of_0_98_is_the_limit():
    """Two centered columns with the angle whose cosine is the correlation."""
    for cosine, expected in ((0.975, [-1, -1]), (0.985, [1, 0])):
        one, other = np.array([1, -1, 1, -1]), np.array([1, 1, -1, -1])
        found = UnitStatistics(1)
        values = np.stack([one, cosine * one + np.sqrt(1 - cosine**2) * other], axis=1) + 5
        found.collect(values, np.zeros(4, int), sampled=np.ones(4, bool))
        assert found.near_duplicates().tolist() == expected
