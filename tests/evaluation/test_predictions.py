"""Averages of probabilities, ranks, and the file of saved predictions."""

import io
import os

import numpy as np
import pytest
from hypothesis import given, settings

from cnnkit.errors import RunError
from cnnkit.evaluation.predictions import Predictions, aggregate_views, average_log_probabilities
from tests.helpers.damage import damaged
from tests.helpers.evaluation_networks import softmax


def test_views_are_averaged_as_by_hand(rng):
    scores = rng.normal(size=(3, 5, 2, 7)) * 4
    expected = softmax(scores).mean(axis=(1, 2))
    np.testing.assert_allclose(np.exp(aggregate_views(scores, "probabilities")), expected)
    expected = softmax(scores.mean(axis=1)).mean(axis=1)
    np.testing.assert_allclose(np.exp(aggregate_views(scores, "scores")), expected)


def test_networks_are_averaged_without_underflow():
    logs = np.array([[0.0, -2000.0, -2100.0]]), np.array([[0.0, -2100.0, -2000.0]])
    expected = [[0.0, -2000 - np.log(2), -2000 - np.log(2)]]
    np.testing.assert_allclose(average_log_probabilities(logs), expected)


def filled(rng, images=6, classes=4, done=4):
    predictions = Predictions.empty(images, 2, classes)
    logs = [np.log(softmax(rng.normal(size=(done, classes)))) for _ in range(2)]
    predictions.add(logs, rng.integers(0, classes, done))
    return predictions


def _saved_bytes():
    data = io.BytesIO()
    np.savez_compressed(data, **vars(filled(np.random.default_rng(0))))
    return data.getvalue()


def test_saved_predictions_are_loaded(rng, tmp_path):
    file = tmp_path / "evaluations" / "state.npz"
    saved, loaded = filled(rng), Predictions.empty(6, 2, 4)
    saved.save(file)
    with np.load(file) as arrays:
        assert set(arrays) == {"ranks", "rank", "top", "top_logs", "right_logs", "done"}
    loaded.load(file, 4)
    assert loaded.done == 4
    for name, value in vars(saved).items():
        np.testing.assert_array_equal(getattr(loaded, name), value)


def test_predictions_of_other_shapes_and_torn_files_are_ignored(rng, tmp_path):
    file = tmp_path / "state.npz"
    filled(rng).save(file)
    other = Predictions.empty(7, 2, 4)
    other.load(file, 4)
    assert other.done == 0
    file.write_bytes(file.read_bytes()[:100])
    torn = Predictions.empty(6, 2, 4)
    torn.load(file, 4)
    torn.load(tmp_path / "none.npz", 4)
    assert torn.done == 0


def test_a_finished_evaluation_is_loaded_whole(rng, tmp_path):
    filled(rng, done=6).save(tmp_path / "state.npz")
    loaded = Predictions.empty(6, 2, 4)
    loaded.load(tmp_path / "state.npz", 4)
    assert loaded.done == 6


def test_equal_classes_are_in_their_order():
    """NumPy's usual sort changes the order of equal values from 17 of them on."""
    predictions = Predictions.empty(1, 1, 50)
    predictions.add([np.full((1, 50), -np.log(50))], np.array([3]))
    assert predictions.top.tolist() == [[0, 1, 2, 3, 4]]
    assert predictions.rank.tolist() == [3]


def test_scores_that_are_not_finite_are_named():
    predictions = Predictions.empty(3, 1, 2)
    with pytest.raises(RunError, match="no finite scores for an image of 0 to 1"):
        predictions.add([np.array([[0.0, 0.0], [np.nan, 0.0]])], np.array([0, 1]))


def test_prepared_predictions_are_ignored(rng, tmp_path):
    file = tmp_path / "state.npz"
    saved = vars(filled(rng))
    changes = (
        {"done": np.int64(-1)}, {"done": np.int64(7)}, {"done": np.float64("nan")},
        {"rank": np.full(6, 4, np.int32)}, {"top": np.full((6, 4), -1, np.int32)},
        {"right_logs": np.full(6, np.nan, np.float32)}, {"top": np.zeros((6, 4))},
    )  # fmt: skip
    for change in changes:
        np.savez(file, **{**saved, **change})
        loaded = Predictions.empty(6, 2, 4)
        loaded.load(file, 4)
        assert loaded.done == 0, change
    np.savez_compressed(file, **{**saved, "rank": np.zeros(10**7, np.int32)})
    loaded.load(file, 4)
    file.unlink()
    os.mkfifo(file)
    loaded.load(file, 4)
    assert loaded.done == 0


@settings(max_examples=50)
@given(change=damaged(_saved_bytes()))
def test_any_predictions_are_loaded_or_ignored(tmp_path_factory, change):
    file = tmp_path_factory.getbasetemp() / "any.npz"
    file.write_bytes(change)
    loaded = Predictions.empty(6, 2, 4)
    loaded.load(file, 4)
    assert loaded.done in range(7)
