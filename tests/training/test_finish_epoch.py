"""What is kept of an epoch: the best network, an early end, and a word about divergence."""

import dataclasses
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from cnnkit._html.run_summary import progress_rows
from cnnkit.cli import train_runs
from cnnkit.cli.commands.runs import summarize_run
from cnnkit.config import TrainingConfig
from cnnkit.errors import RunError
from cnnkit.training import Callback, train
from cnnkit.training.checkpoint import TrainingState
from cnnkit.training.diagnostics import LossMonitor, check_finite_held_out_loss
from cnnkit.training.finish_epoch import finish_epoch
from tests.helpers.tiny_network import DIGITS_CONFIG as CONFIG
from tests.helpers.tiny_network import weights_of

# The module, whose function of the same name hides it in the package.
training = sys.modules["cnnkit.training.train"]


class Notes(Callback):
    def __init__(self):
        self.texts = []

    def on_message(self, message):
        self.texts.append(message)


@pytest.fixture
def good(tmp_path):
    return train(CONFIG, tmp_path / "good")


def test_a_rate_that_is_too_large_is_told_and_the_network_before_is_kept(good, tmp_path):
    """The last network was saved, and nothing was said, when training had destroyed it."""
    notes = Notes()
    config = dataclasses.replace(
        CONFIG, init_from=str(good.path), learning_rate=0.5, epochs=4, lr_milestones=(),
        restore_best=True, early_stopping_patience=2,
    )  # fmt: skip
    run = train(config, tmp_path / "run", callbacks=[notes])
    error = 1 - good.metrics[-1]["val_accuracy"]
    assert f"before training, the error on the held-out images is {error:.1%}" in notes.texts
    [diverged] = [text for text in notes.texts if text.startswith("the network has diverged")]
    assert f"was {error:.1%} before training and is " in diverged
    assert "`learning_rate=0.1`; best.keras is the network before training" in diverged
    assert "training ends: no better network for 2 epochs" in notes.texts
    assert len(run.metrics) == 2
    assert run.best == run.result == run.initial
    assert run.result["epoch"] == 0
    assert run.result["val_accuracy"] == good.metrics[-1]["val_accuracy"]
    assert summarize_run(run)["best_epoch"] == 0
    assert ("best error", f"{error:.2%} before training") in progress_rows(run)
    for kept, before in zip(weights_of(run), weights_of(good), strict=True):
        np.testing.assert_array_equal(kept, before)
    assert run.best_file.read_bytes() == run.model_file.read_bytes()


def test_divergence_without_the_best_network_names_the_option_that_keeps_it():
    config = dataclasses.replace(CONFIG, learning_rate=0.5)
    monitor, state = LossMonitor(5, 0.5, 100), TrainingState()

    def update(epoch, accuracy, loss):
        metrics = {"epoch": epoch, "val_accuracy": accuracy, "val_loss": loss}
        return monitor.update_epoch(config, state, metrics)

    assert update(1, 0.867, 0.4) == []
    state.update_best(0.867, 0.4)
    # Overfitting raises the loss alone, and few images the error alone.
    assert update(2, 0.85, 1.6) == update(2, 0.6, 0.5) == []
    assert update(2, 0.3, 1.6) == [
        "the network has diverged: the error on the held-out images was 13.3% after epoch 1 and "
        "is 70.0% now; start again with a lower rate, `learning_rate=0.1`, and with "
        "`keep_best=True`, which keeps the best network"
    ]
    assert update(3, 0.3, 1.6) == []


class OneProcess:
    """What the end of an epoch needs of a run that writes no file."""

    def __init__(self, **fields):
        self.config = TrainingConfig(**fields)
        self.state, self.monitor, self.notes = TrainingState(), LossMonitor(2, 0.1, 100), Notes()
        self.is_chief, self.callbacks = False, self.notes
        self.keras_callbacks = SimpleNamespace(end_epoch=lambda metrics: False)

    def save_checkpoint(self):
        pass

    def finish(self, epoch, accuracy, val_accuracy=0.5):
        metrics = {"epoch": epoch, "accuracy": accuracy, "val_accuracy": val_accuracy}
        finish_epoch(self, {**metrics, "val_loss": 1.0})
        return self.state.reached


def test_an_early_end_is_told_unless_it_is_the_end_anyway():
    run = OneProcess(epochs=3, early_stopping_patience=2)
    assert [run.finish(epoch, 0.5) for epoch in (1, 2, 3)] == [False, False, True]
    assert run.notes.texts == []
    run = OneProcess(epochs=4, early_stopping_patience=2)
    assert [run.finish(epoch, 0.5) for epoch in (1, 2, 3)] == [False, False, True]
    assert run.notes.texts == ["training ends: no better network for 2 epochs"]


def test_training_ends_at_the_error_of_the_training_images():
    run = OneProcess(stop_at_train_error=0.25)
    assert [run.finish(*one) for one in ((1, 0.7), (2, 0.75))] == [False, True]
    assert not OneProcess().finish(1, 1.0)


def test_the_plateau_counts_by_the_patience_and_the_drops_of_the_configuration():
    run = OneProcess(schedule="plateau", patience=2, max_drops=1)
    drops = []
    for epoch in range(1, 7):
        run.finish(epoch, 0.5)
        drops.append(run.state.plateau.drops)
    assert drops == [0, 0, 1, 1, 1, 1]


def test_the_best_of_several_epochs_becomes_the_network(tmp_path):
    """The last rates are so large that an earlier epoch is the best one."""
    config = dataclasses.replace(
        CONFIG, learning_rate=0.2, warmup_epochs=3, epochs=4, lr_milestones=(), restore_best=True,
        keep_epochs=(1, 2, 3, 4),
    )  # fmt: skip
    run = train(config, tmp_path / "run")
    best = run.result
    # A network with new weights is not measured before training.
    assert run.initial is None
    assert best == max(run.metrics, key=lambda line: (line["val_accuracy"], -line["val_loss"]))
    kept = keras.saving.load_model(run.kept_epochs[best["epoch"]]).get_weights()
    for a, b in zip(kept, weights_of(run), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_loss_that_is_not_finite_ends_with_the_best_network(good, tmp_path, monkeypatch, capsys):
    config = dataclasses.replace(
        CONFIG, init_from=str(good.path), learning_rate=1e30, lr_milestones=(), restore_best=True
    )
    with pytest.raises(RunError, match="no longer finite"):
        train(dataclasses.replace(config, restore_best=False), tmp_path / "without")
    notes = Notes()
    run = train(config, tmp_path / "run", callbacks=[notes])
    assert "no longer finite at step" in notes.texts[-1]
    error = 1 - good.metrics[-1]["val_accuracy"]
    assert (
        f": training ends with the network before training, whose error on the held-out images is "
        f"{error:.1%}; a lower `learning_rate`" in notes.texts[-1]
    )
    for kept, before in zip(weights_of(run), weights_of(good), strict=True):
        np.testing.assert_array_equal(kept, before)
    train_runs._report([run], as_json=False)
    out = capsys.readouterr().out
    assert out.endswith(" error on the held-out images, that of the network before training\n")

    epochs = iter((training.run_epoch, lambda run: check_finite_held_out_loss(np.nan, epoch=2)))
    monkeypatch.setattr(training, "run_epoch", lambda run: next(epochs)(run))
    slow = dataclasses.replace(config, init_from=None, learning_rate=0.01, epochs=3)
    run = train(slow, tmp_path / "slow", callbacks=[notes])
    assert (
        "not finite after epoch 2: training ends with the network after epoch 1"
        in (notes.texts[-1])
    )
    assert run.model_file.read_bytes() == run.best_file.read_bytes()


def test_a_finished_run_that_ended_early_stays_as_it_is(tmp_path):
    config = dataclasses.replace(
        CONFIG, epochs=6, learning_rate=1e-30, lr_milestones=(), early_stopping_patience=1
    )
    run = train(config, tmp_path / "run")
    lines = len(run.metrics)
    assert lines < 6
    written = run.model_file.stat().st_mtime_ns
    train(config, run.path, resume=True)
    assert (len(run.metrics), run.model_file.stat().st_mtime_ns) == (lines, written)


def test_the_state_of_the_best_epoch_survives_a_checkpoint():
    state = TrainingState()
    for accuracy, loss in ((0.5, 1.0), (0.9, 0.3), (0.9, 0.4)):
        state.update_best(accuracy, loss)
    again = TrainingState.from_dict(state.to_dict())
    assert (again.best_accuracy, again.best_loss, again.epochs_since_best) == (0.9, 0.3, 1)
    older = state.to_dict()
    del older["best_loss"], older["epochs_since_best"]
    restored = TrainingState.from_dict(older)
    # Its loss is not known, so that only a higher accuracy is better.
    assert restored.update_best(0.9, 0.1) is False
    assert restored.update_best(0.95, 0.9) is True
