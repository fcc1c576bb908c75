"""Frozen layers: which they are, and their outputs, computed once for each image."""

import dataclasses
import os
import re
import signal

import keras
import numpy as np
import pytest

from cnnkit import alexnet, models
from cnnkit.errors import RunError, UsageError
from cnnkit.training import Callback, step_batches, train
from cnnkit.training.frozen import frozen_layers, split_frozen
from tests.helpers.tiny_network import DIGITS_CONFIG as CONFIG
from tests.helpers.tiny_network import tiny, weights_of

FROZEN = dataclasses.replace(CONFIG, freeze=("conv1",), epochs=2)


@pytest.fixture(scope="module")
def small():
    return alexnet(input_shape=(64, 64, 3), classes=5, hidden_units=8)


@pytest.fixture(scope="module")
def network():
    return tiny(classes=10, input_shape=(8, 8, 3), mean=None)


def test_the_last_fitting_pattern_decides(small):
    assert frozen_layers(small, []) == frozenset()
    assert frozen_layers(small, ["conv[12]", "fc6"]) == {"conv1", "conv2", "fc6"}
    assert frozen_layers(small, ["*", "!fc*", "fc7"]) == {
        "conv1", "conv2", "conv3", "conv4", "conv5", "fc7",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("patterns", "text"),
    [
        (["conv9"], "`freeze` must name layers of alexnet that have weights.*Received: conv9"),
        (["pool1"], "names or patterns of conv1, conv2.*Received: pool1"),
        (["*"], r"must leave a layer of alexnet that learns.*`\* !fc8` freezes all but the last"),
    ],
)
def test_patterns_that_freeze_nothing_or_all_are_refused(small, patterns, text):
    with pytest.raises(UsageError, match=text):
        frozen_layers(small, patterns)


def test_both_parts_together_are_the_network(small, rng):
    part = split_frozen(small, frozen_layers(small, ["conv[12]"]))
    assert part.layers == (
        "preprocessing", "pad1", "conv1", "norm1", "pool1", "conv2", "norm2", "pool2"
    )  # fmt: skip
    images = rng.uniform(0, 255, (3, 64, 64, 3)).astype("float32")
    below = np.asarray(part.model(images))
    assert part.bytes_per_image == below[0].nbytes
    logits = keras.Model(small.input, models.logits_tensor(small))
    np.testing.assert_allclose(part.rest(below), logits(images), atol=1e-5)
    # The same weights, not copies.
    assert part.rest.get_layer("fc8").kernel is small.get_layer("fc8").kernel


@pytest.mark.parametrize("frozen", [frozenset(), frozenset({"conv2", "fc7"})])
def test_there_is_no_part_below_a_first_layer_that_learns(small, frozen):
    assert split_frozen(small, frozen) is None


@pytest.mark.parametrize(
    ("frozen", "last"), [("conv1", "conv1"), ("conv1 conv2", "add"), ("conv1 conv2 conv3", "add")]
)
def test_the_part_ends_where_all_later_layers_read_one_output(frozen, last):
    """The output of conv1 goes around conv2: conv2's own output is not enough for the rest."""
    inputs = keras.Input((6, 6, 3))
    first = keras.layers.Conv2D(4, 3, padding="same", name="conv1")(inputs)
    second = keras.layers.Conv2D(4, 3, padding="same", name="conv2")(first)
    x = keras.layers.Add(name="add")([first, second])
    third = keras.layers.Conv2D(4, 3, padding="same", name="conv3")(x)
    x = keras.layers.Add(name="sum")([third, keras.layers.Conv2D(4, 1, name="side")(x)])
    x = keras.layers.Dense(2, name="fc8")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, keras.layers.Softmax()(x))
    part = split_frozen(model, frozenset(frozen.split()))
    assert part.layers[-1] == last
    image = np.ones((1, 6, 6, 3), np.float32)
    np.testing.assert_allclose(
        keras.ops.softmax(part.rest(part.model(image))), model(image), atol=1e-6
    )


def test_the_first_layer_that_learns_may_read_an_earlier_output():
    """The part ends with conv1, although conv2 is frozen and is computed before conv3."""
    inputs = keras.Input((6, 6, 3))
    first = keras.layers.Conv2D(4, 3, padding="same", name="conv1")(inputs)
    second = keras.layers.Conv2D(4, 3, padding="same", name="conv2")(first)
    third = keras.layers.Conv2D(4, 3, padding="same", name="conv3")(first)
    x = keras.layers.Flatten()(keras.layers.Add()([third, second]))
    model = keras.Model(inputs, keras.layers.Softmax()(keras.layers.Dense(2, name="fc8")(x)))
    part = split_frozen(model, frozenset({"conv1", "conv2"}))
    assert part.layers[-1] == "conv1"
    image = np.ones((1, 6, 6, 3), np.float32)
    np.testing.assert_allclose(
        keras.ops.softmax(part.rest(part.model(image))), model(image), atol=1e-6
    )


def test_dropout_ends_the_part(small):
    part = split_frozen(small, frozen_layers(small, ["*", "!fc8"]))
    assert part.layers[-1] == "fc6"


def test_frozen_weights_keep_their_bits_and_the_others_learn(tmp_path):
    run = train(FROZEN, tmp_path / "run")
    untouched = train(dataclasses.replace(FROZEN, learning_rate=1e-30), tmp_path / "still")
    conv, bias, kernel, _ = weights_of(run)
    before = weights_of(untouched)
    np.testing.assert_array_equal(conv, before[0])
    np.testing.assert_array_equal(bias, before[1])
    assert np.abs(kernel - before[2]).max() > 0.01


def test_kept_outputs_train_as_the_images_do_also_when_resumed(tmp_path):
    """Without augmentation there is nothing else that could differ."""
    plain = train(FROZEN, tmp_path / "plain")
    config = dataclasses.replace(FROZEN, augmentation_draws=3)
    train(dataclasses.replace(config, epochs=1), tmp_path / "kept")
    kept = train(config, tmp_path / "kept", resume=True)
    for a, b in zip(plain.metrics, kept.metrics, strict=True):
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert a[name] == pytest.approx(b[name], abs=1e-5)
    for a, b in zip(weights_of(plain), weights_of(kept), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


class Recorder(Callback):
    def __init__(self):
        self.messages, self.outputs = [], []

    def on_message(self, message):
        self.messages.append(message)

    def on_frozen_outputs(self, split, done, images):
        self.outputs.append((split, done, images))


@pytest.fixture
def drawn(monkeypatch):
    """The number of images and the epoch of the augmentation of each split that is read."""
    calls = []

    def watched(split, **options):
        calls.append((len(split), options["epoch"]))
        return batches(split, **options)

    batches = step_batches.batches
    monkeypatch.setattr(step_batches, "batches", watched)
    return calls


def test_epochs_take_the_augmentations_in_turn(tmp_path, drawn):
    recorder = Recorder()
    config = dataclasses.replace(
        FROZEN, epochs=5, augmentation_draws=2, crop="random", scale=(9, 9), batch_size=1000
    )
    train(config, tmp_path / "run", callbacks=[recorder])
    computed = [(split, done) for split, done, _ in recorder.outputs]
    assert computed == [("train", 1000), ("train", 1438), ("test", 359),
                        ("train", 1000), ("train", 1438)]  # fmt: skip
    assert {pair for pair in drawn if pair[0] == 1438} == {(1438, 1), (1438, 2)}
    assert recorder.messages[0] == "conv1 is frozen; fc8 learns"
    assert re.fullmatch(
        r"the output of flatten\w* is computed once for each image and augmentation, and kept in "
        r"memory \(1 MB\)",
        recorder.messages[1],
    )


def test_without_a_frozen_layer_nothing_is_kept_and_the_draws_repeat(tmp_path, drawn):
    recorder = Recorder()
    config = dataclasses.replace(CONFIG, augmentation_draws=2, batch_size=1000)
    train(config, tmp_path / "run", callbacks=[recorder])
    assert [epoch for images, epoch in drawn if images == 1438] == [1, 2, 1]
    assert "no output of a frozen layer is kept in memory: no layer is frozen" in recorder.messages
    assert not recorder.outputs


def test_outputs_that_are_too_large_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("cnnkit.training.build.MAX_OUTPUT_BYTES", 1000)
    recorder = Recorder()
    config = dataclasses.replace(FROZEN, augmentation_draws=1, epochs=1)
    train(config, tmp_path / "run", callbacks=[recorder])
    assert "no output of a frozen layer is kept in memory: it is too large" in recorder.messages
    assert not recorder.outputs


def test_a_signal_stops_the_run_between_the_batches_of_frozen_layers(tmp_path):
    recorder = Recorder()
    recorder.on_frozen_outputs = lambda split, done, images: (
        recorder.outputs.append(done),
        os.kill(os.getpid(), signal.SIGTERM),
    )
    config = dataclasses.replace(FROZEN, augmentation_draws=1, epochs=1)
    with pytest.raises(RunError, match="Stopped by SIGTERM after step 0 of epoch 1"):
        train(config, tmp_path / "run", callbacks=[recorder])
    assert recorder.outputs == [100]
