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
    first, *rest = out.getvalue().splitlines()
    assert rest == ([] if line is None else [line])
    assert first == (
        "alexnet, 1 parameters, 2 classes (a, b); 2 training and 1 held-out images; "
        "1 replica on the CPU"
    )


@pytest.mark.parametrize(
    ("deviations", "changes", "line"),
    [
        ([], [], None),
        (["a"], [], "1 way that `cnnkit recipes x` lists"),
        (["a", "b"], [], "2 ways that `cnnkit recipes x` lists"),
        (["a", "b", "c"], ["c"], "c; 2 other ways that `cnnkit recipes x` lists"),
        (["c"], ["c"], "c"),
    ],
)
def test_what_differs_from_the_paper_is_told(deviations, changes, line):
    out = io.StringIO()
    facts = {
        "epochs": 1, "process": 2, "devices": ["GPU"] * 2, "left_out": "see `verify=True`",
        "classes": 6, "class_names": list("abcdef"), "model": "vgg16", "parameters": 12_345,
        "training_images": 2000, "test_images": 1000, "recipe": "x", "first_epoch": 1,
        "first_step": 1, "deviations": deviations, "changes": changes,
    }  # fmt: skip
    progress = TerminalProgress(out)
    progress.on_train_begin(facts)
    first, *rest = out.getvalue().splitlines()
    # Six classes are not named.
    assert first == (
        "vgg16, 12,345 parameters, 6 classes; 2,000 training and 1,000 held-out images; "
        "2 replicas on the GPU; see `verify=True`"
    )
    assert rest == ([] if line is None else [f"deviates from the paper: {line}"])
    assert progress.process == 2
    five = facts | {"classes": 5, "class_names": list("abcde")}
    progress.on_train_begin(five)
    assert "5 classes (a, b, c, d, e);" in out.getvalue()


def test_the_line_of_an_epoch_and_messages():
    out = io.StringIO()
    progress = TerminalProgress(out)
    progress._epochs = 9
    progress.on_epoch_end({
        "epoch": 2, "loss": 1.23456, "accuracy": 0.75, "val_loss": 2.5, "val_accuracy": 0.625,
        "images_per_second": 1234.5,
    })  # fmt: skip
    progress.on_message("lower `learning_rate`")
    progress.on_train_end({})
    assert out.getvalue() == (
        "epoch 2/9  loss 1.235  error 25.0%  held out: loss 2.500  error 37.5%  1234 images/s\n"
        "note: lower `learning_rate`\n"
    )
    TerminalProgress(out, show_times=True).on_train_end({"reading": 0.0})
    assert out.getvalue().endswith("time: reading 0.0 s (0%)\n")
