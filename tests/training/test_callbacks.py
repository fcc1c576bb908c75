"""Hooks of callbacks: their order, their arguments, and lists of callbacks."""

import dataclasses

from cnnkit.training import Callback, CallbackList, train
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
