"""Hooks of callbacks: their order, their arguments, and lists of callbacks."""

import dataclasses

import pytest
import tensorflow as tf

from cnnkit.training import Callback, CallbackList, train
from cnnkit.training.callbacks import ProfilerCallback
from tests.helpers.tiny_network import DIGITS_CONFIG


class Recorder(Callback):
    def __init__(self):
        self.calls = []

    def on_train_begin(self, facts):
        self.calls.append(("train begins", facts["model"], facts["first_epoch"]))

    def on_message(self, message):
        self.calls.append(("message", message))

    def on_epoch_begin(self, epoch):
        self.calls.append(("epoch begins", epoch))

    def on_train_batch_end(self, epoch, step, steps, images, loss):
        assert loss > 0
        self.calls.append(("step", epoch, step, steps, images))

    def on_epoch_end(self, metrics):
        self.calls.append(("epoch ends", metrics["epoch"]))

    def on_train_end(self, seconds):
        self.calls.append(("train ends", *seconds))


def test_hooks_are_called_in_order(tmp_path):
    config = dataclasses.replace(DIGITS_CONFIG, epochs=2, batch_size=1000)
    first, second = Recorder(), Recorder()
    train(config, tmp_path / "run", callbacks=[first, second, Callback()])
    steps = {epoch: [("step", epoch, 1, 2, 1000), ("step", epoch, 2, 2, 438)] for epoch in (1, 2)}
    assert first.calls == [
        ("train begins", "tiny", 1),
        ("epoch begins", 1),
        *steps[1],
        ("epoch ends", 1),
        ("epoch begins", 2),
        *steps[2],
        ("epoch ends", 2),
        ("train ends", "input", "step", "validation", "checkpoint"),
    ]
    assert second.calls == first.calls
    resumed = Recorder()
    longer = dataclasses.replace(config, epochs=3)
    train(longer, tmp_path / "run", resume=True, callbacks=[resumed])
    assert resumed.calls[:2] == [("train begins", "tiny", 3), ("epoch begins", 3)]


def test_a_list_passes_on_every_hook():
    hooks = {name for name in vars(Callback) if not name.startswith("_")}
    assert hooks == {name for name in vars(CallbackList) if not name.startswith("_")}
    recorder = Recorder()
    CallbackList([recorder]).on_message("a")
    assert recorder.calls == [("message", "a")]


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9])
def test_the_profiler_stops_at_its_last_step_or_with_the_training(steps, tmp_path, monkeypatch):
    calls = []
    profiler = tf.profiler.experimental
    monkeypatch.setattr(profiler, "start", lambda folder: calls.append(folder))
    monkeypatch.setattr(profiler, "stop", lambda: calls.append("stop"))
    callback = ProfilerCallback(first_step=2, steps=2)
    callback.on_train_begin({"run": tmp_path})
    for step in range(1, steps + 1):
        callback.on_train_batch_end(1, step, steps, 10, 1.0)
        assert calls == [str(tmp_path / "profile"), "stop"][: (step >= 2) + (step >= 4)]
    callback.on_train_end({})
    assert len(calls) == (0 if steps == 1 else 2)
