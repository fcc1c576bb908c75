"""The bar and the lines of a training."""

import io
import sys

import pytest

from cnnkit.cli.training_progress import TerminalProgress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_shows_speed_loss_and_the_time_to_come(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = TerminalProgress(io.StringIO())
    for step in (1, 2):
        progress.on_train_batch_end(1, step, 3, 50, 1.25)
        progress._bar.refresh()
    text = terminal.getvalue()
    assert "100/150" in text
    assert "images/s" in text
    assert "loss 1.250" in text
    progress.on_train_batch_end(1, 3, 3, 50, 1.25)
    assert progress._bar is None
    # An epoch that goes on begins with the images that are done.
    progress.on_train_batch_end(2, 2, 3, 50, 1.25)
    assert (progress._bar.initial, progress._bar.n) == (50, 100)
    progress.close()


@pytest.mark.parametrize(("split", "what"), [("train", "training"), ("test", "held-out")])
def test_the_bar_of_frozen_layers_counts_the_images_that_are_done(split, what, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = TerminalProgress(io.StringIO())
    for done in (20, 50):
        progress.on_frozen_outputs(split, done, 60)
        assert progress._bar.n == done
    progress._bar.refresh()
    assert f"frozen layers, {what} images" in terminal.getvalue()
    progress.on_frozen_outputs(split, 60, 60)
    assert progress._bar is None


def test_times_are_printed_if_that_is_said():
    out = io.StringIO()
    TerminalProgress(out).on_train_end({"reading": 1.0, "steps": 3.0})
    assert out.getvalue() == ""
    TerminalProgress(out, show_times=True).on_train_end({"reading": 1.0, "steps": 3.0})
    assert out.getvalue() == "time: reading 1.0 s (25%), steps 3.0 s (75%)\n"


@pytest.mark.parametrize(
    ("epoch", "step", "line"),
    [
        (1, 1, None),
        (3, 1, "going on with epoch 3"),
        (3, 5, "going on with epoch 3, step 5"),
        (8, 1, "going on with epoch 8"),
        (9, 1, "all 8 epochs are done already"),
    ],
)
def test_what_is_left_of_a_resumed_run(epoch, step, line):
    out = io.StringIO()
    facts = {
        "epochs": 8, "process": 0, "devices": ["CPU"], "left_out": "", "classes": 2,
        "class_names": ["a", "b"], "model": "alexnet", "parameters": 1, "training_images": 2,
        "test_images": 1, "recipe": None, "first_epoch": epoch, "first_step": step,
    }  # fmt: skip
    TerminalProgress(out).on_train_begin(facts)
    assert out.getvalue().splitlines()[1:] == ([] if line is None else [line])
