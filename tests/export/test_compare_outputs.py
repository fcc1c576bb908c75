"""Comparison of outputs: tolerances, ties, missing and NaN outputs."""

import numpy as np
import pytest

from cnnkit.export.compare_outputs import compare_outputs


@pytest.mark.parametrize(
    ("name", "expected", "received", "is_close"),
    [
        ("probabilities", [[0.25, 0.75]], [[0.25, 0.750001]], True),
        ("probabilities", [[0.25, 0.75]], [[0.25, 0.7501]], False),
        ("probabilities", [[0.25, 0.75]], [[0.25, np.nan]], False),
        ("probabilities", [[0.25, 0.75]], [0.25, 0.75], False),
        # Relative to the largest activation.
        ("activation", [1000.0], [1000.05], True),
        ("activation", [1.0], [1.05], False),
        # Relative to the length of the projection.
        ("projection", [[300.0, 400.0]], [[300.0, 404.0]], True),
        ("projection", [[300.0, 400.0]], [[300.0, 406.0]], False),
        ("unit", [3], [3], True),
        ("unit", [3], [4], False),
        ("position", [[1, 2]], [[1, 3]], False),
    ],
)
def test_tolerances(name, expected, received, is_close):
    found = compare_outputs({name: np.array(expected)}, {name: np.array(received)})
    assert found.is_close == is_close


def test_bfloat16_and_a_factor_widen_the_tolerance():
    expected, received = ({"probabilities": np.array([[p, 1 - p]])} for p in (0.25, 0.26))
    assert not compare_outputs(expected, received).is_close
    assert compare_outputs(expected, received, "bfloat16").is_close
    assert compare_outputs(expected, received, tolerance_factor=2000).is_close


def test_labels_of_equal_scores_may_change_places():
    scores = np.array([[0.4, 0.3, 0.3, 0.0]])
    expected = {"labels": np.array([["a", "b", "c", "d"]]), "scores": scores}
    for labels, is_close in ((["a", "c", "b"], True), (["b", "a", "c"], False)):
        received = {"labels": np.array([labels]), "scores": scores[:, :3]}
        found = compare_outputs(expected, received)
        assert found.is_close == is_close, found.detail


def test_a_missing_output_is_named_and_a_further_one_ignored():
    one = {"features": np.ones((1, 2))}
    found = compare_outputs({**one, "image": np.ones(1)}, one)
    assert (found.is_close, found.detail) == (False, "the output 'image' is missing")
    assert compare_outputs(one, {**one, "image": np.ones(1)}).detail == "equal"


@pytest.mark.parametrize(
    ("dtype", "name", "tolerance"),
    [
        ("float32", "probabilities", 1e-5), ("float32", "features", 1e-4),
        ("float32", "activation", 1e-4), ("float32", "boxes", 1e-4),
        ("float32", "projection", 1e-2), ("bfloat16", "probabilities", 2e-2),
        ("bfloat16", "features", 5e-2), ("bfloat16", "projection", 0.5),
    ],
)  # fmt: skip
def test_the_tolerance_of_each_output(dtype, name, tolerance):
    """Those of activations and boxes are not relative to values below 1."""
    expected = np.array([[1.0, 0.0]]) if name == "projection" else np.array([[0.5, 0.25]])
    for factor, is_close in ((0.98, True), (1.02, False)):
        received = expected + [[factor * tolerance, 0]]
        found = compare_outputs({name: expected}, {name: received}, dtype)
        assert found.is_close == is_close
        assert found.difference == pytest.approx(factor, rel=1e-3)
        assert f"{name} differ by {factor * tolerance:.2g}, {tolerance:.2g} are" in found.detail


def test_labels_are_tied_within_twice_the_tolerance():
    for gap, is_close in ((1.9e-5, True), (2.1e-5, False)):
        scores = np.array([[0.4, 0.3, 0.3 - gap, 0.0]])
        expected = {"labels": np.array([["a", "b", "c", "d"]]), "scores": scores}
        received = {"labels": np.array([["a", "c", "b", "d"]]), "scores": scores}
        found = compare_outputs(expected, received)
        assert found.is_close == is_close
    assert found.detail == "labels are c in place of b"


def test_the_worst_output_is_told():
    one = {"probabilities": np.zeros((1, 2)), "features": np.zeros((1, 2)), "unit": np.zeros(1)}
    other = {"probabilities": one["probabilities"] + 9e-6, "features": one["features"] + 1e-5}
    assert compare_outputs(one, {**one, **other}).detail.startswith("probabilities differ by 9e-06")
    found = compare_outputs(one, {**one, "unit": np.zeros((1, 1))})
    assert (found.is_close, found.detail) == (False, "unit have the shape (1, 1), not (1,)")


def test_a_projection_of_zeros():
    zeros = np.zeros((1, 2, 2, 3))
    assert compare_outputs({"projection": zeros}, {"projection": zeros}).is_close
    assert not compare_outputs({"projection": zeros}, {"projection": zeros + 0.1}).is_close
