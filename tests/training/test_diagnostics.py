"""Warnings about common failures, and errors for those that end the training."""

import dataclasses
import math

import numpy as np
import pytest
from PIL import Image

from cnnkit.config import TrainingConfig
from cnnkit.data import Dataset, Split
from cnnkit.errors import RunError
from cnnkit.run_folder import RunFolder
from cnnkit.training import Callback, get_strategy, train
from cnnkit.training.checkpoint import TrainingState
from cnnkit.training.diagnostics import LossMonitor, startup_warnings

pytestmark = pytest.mark.usefixtures("unoptimized")

CONFIG = TrainingConfig(model="tiny", image_size=8, epochs=1, batch_size=100)


class Notes(Callback):
    def __init__(self):
        self.texts = []

    def on_message(self, message):
        self.texts.append(message)


def test_classes_without_training_images_are_named():
    images = Split(np.array([0, 0, 2], np.int32), ("a", "b", "c"), None)
    source = Dataset("x", ("cat", "dog", "eel", "fox"), {"train": images}, "")
    [note] = startup_warnings(CONFIG, source, get_strategy("default"))
    assert note == "no training images of 2 classes: dog, fox"
    for count, more in ((5, ""), (6, " and 1 more")):
        many = Dataset("x", tuple("abc" + "defghi"[:count]), {"train": images}, "")
        many.splits["train"] = Split(np.array([0, 1, 2], np.int32), ("a", "b", "c"), None)
        [note] = startup_warnings(CONFIG, many, get_strategy("default"))
        assert note == f"no training images of {count} classes: d, e, f, g, h{more}"


def classes_of(*counts):
    """A dataset of some training images of each class."""
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    train = Split(labels, tuple(map(str, range(len(labels)))), None)
    return Dataset("x", ("cat", "dog", "eel")[: len(counts)], {"train": train}, "")


def test_classes_that_are_not_balanced_are_told():
    def told(*counts, **fields):
        config = dataclasses.replace(CONFIG, **fields)
        return startup_warnings(config, classes_of(*counts), get_strategy("default"))

    assert told(12, 3) == []
    assert told(3, 13) == [
        "the classes are not balanced: 13 training images of dog, 3 of cat; always answering dog "
        "has an error of 18.8%"
    ]
    # With weights of another network, whatever the numbers.
    begun = {"init_from": "other.keras", "weight_mapping": "new-classifier"}
    assert told(6, 4, 5, **begun) == ["4 to 6 training images of each class"]
    assert told(5, 5, **begun) == ["5 training images of each class"]
    [note] = told(7, 4, **begun)
    assert note.startswith("the classes are not balanced: 7 training images of cat, 4 of dog")


def test_replicas_that_cannot_help_are_told(mirrored):
    images = Split(np.array([0, 1], np.int32), ("a", "b"), None)
    source = Dataset("x", ("cat", "dog"), {"train": images}, "")
    lonely = dataclasses.replace(CONFIG, strategy="mirrored", replicas=1)
    [note] = startup_warnings(lonely, source, get_strategy("default"))
    assert note.startswith("there is one device to mirror on")
    small = dataclasses.replace(CONFIG, strategy="mirrored", replicas=2, batch_size=1)
    [note] = startup_warnings(small, source, mirrored)
    assert note.startswith("a batch of 1 is smaller than the 2 replicas")
    enough = dataclasses.replace(small, batch_size=2, gradient_accumulation_steps=2)
    assert startup_warnings(enough, source, mirrored) == []


def test_pixels_of_another_range_are_told(tmp_path):
    for name in ("dark", "light"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(4):
            pixels = np.random.default_rng(i).integers(0, 2, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    notes = Notes()
    config = dataclasses.replace(CONFIG, dataset=f"folder:{tmp_path / 'images'}", epochs=2)
    train(config, tmp_path / "run", callbacks=[notes])
    [note] = notes.texts
    assert note.startswith("the pixels of the first batch lie in 0..1; every network takes 0..255")


def test_a_loss_stuck_at_guessing_is_told_once(tmp_path):
    """A rate that changes nothing, on a network that guesses: ln(10)."""
    notes = Notes()
    config = dataclasses.replace(
        CONFIG, epochs=8, learning_rate=1e-12, model_options={"scale": 1e-9}
    )
    train(config, tmp_path / "run", callbacks=[notes])
    [note] = notes.texts
    # 1,000 images of each of the ten classes: in the seventh epoch of 1,438 images.
    assert note.startswith("after 10,")
    assert f"images the loss is still ln(classes) = {math.log(10):.3f}" in note
    assert "`model_options={'bias_value': 0.1}`" in note
    assert "`model_options={'initializer': 'glorot'}`" in note


@pytest.mark.parametrize(("ratio", "stuck"), [(0.994, 0), (0.996, 1), (1.004, 1), (1.006, 0)])
def test_a_loss_within_half_a_percent_of_guessing_is_stuck(ratio, stuck):
    monitor = LossMonitor(10, 0.1, 1000)
    told = [monitor.update(ratio * math.log(10), 100, 0.1) for _ in range(200)]
    assert len(sum(told, [])) == stuck


def test_a_loss_that_falls_is_not_stuck():
    monitor = LossMonitor(10, 0.1, 50_000)
    rng = np.random.default_rng(0)
    for step in range(2000):
        assert monitor.update(2.25 - step / 2000 + rng.normal() / 10, 128, 0.1) == []


def test_images_decide_when_a_loss_is_stuck():
    """VGG-16 from scratch on ImageNet: chance for about 3,000 steps of 256 images is usual."""
    chance = math.log(1000)
    usual = LossMonitor(1000, 0.01, 1_281_167)
    told = [usual.update(chance, 256, 0.01) for _ in range(3000)]
    assert not any(told)
    told = [usual.update(chance - step / 500, 256, 0.01) for step in range(4000)]
    assert not any(told)

    # The first steps, far above chance, do not hide that the rest is stuck.
    for batch in (32, 256, 2048):
        stuck = LossMonitor(1000, 0.01, 1_281_167)
        steps = -(-1_300_000 // batch)
        losses = [7.9 if step * batch < 60_000 else chance for step in range(steps)]
        texts = [text for loss in losses for text in stuck.update(loss, batch, 0.01)]
        [text] = texts
        images = int(text.split()[1].replace(",", ""))
        assert 1_281_167 <= images < 1_281_167 + 4 * batch


def test_settings_without_effect_are_told():
    images = Split(np.array([0, 1], np.int32), ("a", "b"), None)
    source = Dataset("x", ("cat", "dog"), {"train": images}, "")

    def told(**fields):
        config = dataclasses.replace(CONFIG, **fields)
        return startup_warnings(config, source, get_strategy("default"))

    assert told() == []
    assert told(lr_milestones=(1,), lr_decay=0.5) == []
    [note] = told(schedule="cosine", lr_milestones=(1,))
    assert note == "lr_milestones=(1,) has no effect: it belongs to the schedule step"
    [note] = told(lr_decay=0.5)
    assert note.startswith("lr_decay=0.5 has no effect")
    assert told(schedule="plateau", patience=2, lr_decay=0.5) == []
    assert len(told(patience=2, max_drops=1)) == 2
    [note] = told(weight_mapping="vgg-staged")
    assert note.endswith("it belongs to init_from")
    [note] = told(warmup_epochs=1)
    assert note.startswith("the learning rate never reaches 0.01: warmup_epochs is 1 of 1 epochs")
    [note] = told(keep_epochs=(1, 9))
    assert note == "keep_epochs [9] lie after the last epoch, 1"
    [note] = told(learning_rate=1e-50)
    assert note == "the learning rate 1e-50 is 0 in float32"
    [note] = told(batch_size=4, gradient_accumulation_steps=5)
    assert note.startswith("a batch of 4 is smaller than the 5 parts of gradient accumulation")
    [note] = told(central_square=True)
    assert note.startswith("central_square=True has no effect")


def test_a_process_that_trains_alone_despite_tf_config_is_told(monkeypatch):
    images = Split(np.array([0, 1], np.int32), ("a", "b"), None)
    source = Dataset("x", ("cat", "dog"), {"train": images}, "")
    monkeypatch.setenv("TF_CONFIG", "{}")
    [note] = startup_warnings(CONFIG, source, get_strategy("default"))
    assert note.startswith("TF_CONFIG is set, but this process trains alone")


def test_a_rate_fallen_to_nothing_is_told_once(tmp_path):
    notes = Notes()
    config = dataclasses.replace(CONFIG, epochs=3, lr_milestones=(2, 3), lr_decay=1e-4)
    train(config, tmp_path / "run", callbacks=[notes])
    assert notes.texts == ["the learning rate has fallen to 1e-10: nothing changes any more"]


def test_a_rate_below_a_millionth_of_the_first_changes_nothing():
    monitor = LossMonitor(10, 0.1, 1000)
    assert monitor.update(1.0, 100, 0.1 * 1e-6) == []
    [note] = monitor.update(1.0, 100, 0.99e-7)
    assert note.startswith("the learning rate has fallen to 1e-07")


@pytest.mark.parametrize(
    ("accuracy", "loss", "diverged"),
    [(0.5, 0.75, False), (0.5, 0.76, True), (0.55, 9.0, False), (0.54, 0.76, True)],
)
def test_a_network_has_diverged_from_a_rise_of_error_and_loss(accuracy, loss, diverged):
    """The error rises by more than 20 points, and the loss by more than a half."""
    state = TrainingState(epochs=1, best_accuracy=0.75, best_loss=0.5)
    metrics = {"epoch": 2, "val_accuracy": accuracy, "val_loss": loss}
    found = LossMonitor(10, 0.1, 100).update_epoch(TrainingConfig(), state, metrics)
    assert len(found) == diverged


def test_an_exploding_loss_names_its_step_and_keeps_what_was_good(tmp_path):
    config = dataclasses.replace(CONFIG, learning_rate=1e25, checkpoint_every="1")
    with pytest.raises(RunError, match="no longer finite at step [2-9]"):
        train(config, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    for file in run.checkpoints.iterdir():
        with np.load(file) as archive:
            assert all(np.isfinite(archive[name]).all() for name in archive.files)
    assert run.metrics == []


def test_a_loss_that_explodes_stops_the_run(tmp_path):
    with pytest.raises(
        RunError, match="no longer finite at step 2 of epoch 1.*lower rate, `learning_rate=2e.29`"
    ):
        train(dataclasses.replace(CONFIG, learning_rate=1e30), tmp_path / "run")
    assert not (tmp_path / "run" / "model.keras").exists()


@pytest.mark.parametrize(
    ("since_best", "when"), [(0, "after epoch 3"), (2, "after epoch 1"), (3, "before training")]
)
def test_a_divergence_names_the_epoch_of_the_best_network(since_best, when):
    state = TrainingState(best_accuracy=0.9, best_loss=0.3, epochs_since_best=since_best)
    monitor = LossMonitor(classes=10, learning_rate=0.1, training_images=100)
    metrics = {"epoch": 4, "val_accuracy": 0.5, "val_loss": 3.0}
    [text] = monitor.update_epoch(TrainingConfig(keep_best=True), state, metrics)
    assert f"the error on the held-out images was 10.0% {when} and is 50.0% now" in text
    assert text.endswith(f"best.keras is the network {when}")
    assert monitor.update_epoch(TrainingConfig(), state, metrics) == []
    # A checkpoint of 0.1.0 does not know the lowest loss.
    older = LossMonitor(classes=10, learning_rate=0.1, training_images=100)
    unknown = TrainingState(best_accuracy=0.9)
    assert older.update_epoch(TrainingConfig(), unknown, metrics) == []
