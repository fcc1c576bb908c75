"""Losses and counts, against NumPy; and runs that learn boxes."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.config import TrainingConfig
from cnnkit.data import load_dataset
from cnnkit.errors import UsageError
from cnnkit.evaluation import Localizer, measure_localization
from cnnkit.training import build, train
from cnnkit.training.objectives import classification, localization
from tests.helpers.boxes import write_table

pytestmark = pytest.mark.usefixtures("unoptimized")

# Outputs for a cat and a dog: two logits, then two boxes, or one.
LOGITS = np.array([[2.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]], np.float32)
LABELS = np.array([0, 1, 1, 1], np.int32)
RIGHT = [0.25, 0.5, 0.5, 1.0]
WIDE = [0.5, 0.5, 1.0, 1.0]
FAR = [0.9, 0.5, 0.2, 0.2]
# The corners of RIGHT; the second object of the third image is that of FAR.
TARGET = [0.0, 0.0, 0.5, 1.0]
TARGETS = np.array([[TARGET, [np.nan] * 4]] * 4, np.float32)
TARGETS[2, 1] = [0.8, 0.4, 1.0, 0.6]


def cross_entropy():
    exponentials = np.exp(LOGITS)
    shares = exponentials / exponentials.sum(axis=1, keepdims=True)
    return -np.log(shares[np.arange(4), LABELS])


@pytest.mark.parametrize("regression", ["per-class", "single"])
def test_localization_by_hand(regression):
    of_label = np.array([RIGHT, WIDE, FAR, RIGHT], np.float32)
    boxes = of_label
    if regression == "per-class":
        # The box of the other class does not count.
        boxes = np.full((4, 2, 4), 7.0, np.float32)
        boxes[np.arange(4), LABELS] = of_label
    outputs = np.concatenate([LOGITS, boxes.reshape(4, -1)], axis=1)
    losses, correct = localization(
        tf.constant(outputs),
        {"labels": tf.constant(LABELS), "boxes": tf.constant(TARGETS)},
        classes=2,
        regression=regression,
    )
    distances = np.square(of_label - RIGHT).sum(axis=1)
    np.testing.assert_allclose(losses, cross_entropy() + distances / 2, rtol=1e-5)
    # WIDE overlaps by half; FAR is on the second object; the class of the last one is wrong.
    np.testing.assert_array_equal(correct, [1, 1, 1, 0])


def test_classification_by_hand():
    losses, correct = classification(tf.constant(LOGITS), {"labels": tf.constant(LABELS)})
    np.testing.assert_allclose(losses, cross_entropy(), rtol=1e-5)
    np.testing.assert_array_equal(correct, [1, 1, 1, 0])


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    table = write_table(tmp_path_factory.mktemp("boxes"), 40)
    return TrainingConfig(
        model="tiny",
        dataset=f"boxes:{table}",
        task="localize",
        image_size=16,
        scale=(16, 20),
        crop="random",
        flip=True,
        epochs=4,
        batch_size=8,
        learning_rate=0.02,
        seed=2,
    )


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    from cnnkit import models
    from tests.helpers.tiny_network import tiny

    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(models.BUILDERS, "tiny", tiny)
        return train(config, tmp_path_factory.mktemp("run") / "run")


def test_a_run_learns_boxes_and_reports_the_error_that_is_measured_afterwards(config, run):
    first, *_, last = run.metrics
    assert last["loss"] < first["loss"]
    dataset = load_dataset(config.dataset, seed=config.seed)
    found = measure_localization(Localizer(run.path), dataset.splits["test"], dataset.class_names)
    assert 1 - found.top1_error == pytest.approx(last["val_accuracy"])
    stored = json.loads((run.path / "config.json").read_text())
    assert (stored["task"], stored["box_regression"]) == ("localize", "per-class")


def test_outputs_of_frozen_layers_are_kept_with_the_boxes_of_their_crops(
    config, tmp_path, monkeypatch
):
    frozen = dataclasses.replace(config, freeze=("conv1",), augmentation_draws=2, epochs=2)
    kept = train(frozen, tmp_path / "kept").metrics
    monkeypatch.setattr(build, "split_frozen", lambda *args: None)
    computed = train(frozen, tmp_path / "computed").metrics
    for line, other in zip(kept, computed, strict=True):
        for name in ("loss", "val_loss", "accuracy"):
            assert line[name] == pytest.approx(other[name], rel=1e-4)


def test_a_dataset_without_boxes_is_refused(config, tmp_path):
    with pytest.raises(UsageError, match="`dataset` must have boxes .* Received: digits"):
        train(dataclasses.replace(config, dataset="digits"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
