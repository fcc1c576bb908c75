"""Callbacks of Keras in `train`: their hooks, early stopping, and those that are refused."""

import csv
import dataclasses

import keras
import numpy as np
import pytest

from cnnkit import load_model
from cnnkit.errors import UsageError
from cnnkit.training import train
from tests.helpers.tiny_network import DIGITS_CONFIG

CONFIG = dataclasses.replace(DIGITS_CONFIG, epochs=4, batch_size=1000, keep_epochs=(1, 2, 3))


class Recorder(keras.callbacks.Callback):
    """Stores calls as `fit` makes them."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def on_train_begin(self, logs=None):
        assert isinstance(self.model, keras.Model)
        self.calls.append(("train begins", self.params["epochs"], self.params["steps"]))

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(("epoch begins", epoch))

    def on_train_batch_begin(self, batch, logs=None):
        self.calls.append(("batch begins", batch))

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(("batch ends", batch, sorted(logs)))

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(("epoch ends", epoch, {"loss", "val_loss"} <= set(logs)))

    def on_train_end(self, logs=None):
        self.calls.append(("train ends",))


def test_hooks_are_called_as_by_fit(tmp_path):
    """`fit` itself calls them in the same order, with the same numbers."""
    ours, keras_own = Recorder(), Recorder()
    train(dataclasses.replace(CONFIG, epochs=2), tmp_path / "run", callbacks=[ours])
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    zeros = np.zeros((1438, 1))
    validation = {"validation_data": (zeros, zeros), "batch_size": 1000}
    model.fit(zeros, zeros, epochs=2, verbose=0, callbacks=[keras_own], **validation)
    assert len(ours.calls) == 14
    assert ours.calls == keras_own.calls


class GrowingLoss(keras.callbacks.Callback):
    """Makes the held-out loss grow after the first epoch, for callbacks after it."""

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = float(epoch)


def test_early_stopping_ends_the_run_with_the_best_weights(tmp_path):
    stopping = keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    run = train(CONFIG, tmp_path / "run", callbacks=[GrowingLoss(), stopping])
    assert [line["epoch"] for line in run.metrics] == [1, 2, 3]
    first, last, saved = (
        load_model(file).get_weights()
        for file in (run.kept_epochs[1], run.kept_epochs[3], run.model_file)
    )
    assert all(np.array_equal(*pair) for pair in zip(first, saved, strict=True))
    assert not all(np.array_equal(*pair) for pair in zip(last, saved, strict=True))
    # The run is finished: it is not continued by the command that began it.
    assert len(train(CONFIG, run.path, resume=True).metrics) == 3


def test_callbacks_that_write_files_work(tmp_path):
    log, best = tmp_path / "log.csv", tmp_path / "best.weights.h5"
    writers = [
        keras.callbacks.CSVLogger(log),
        keras.callbacks.ModelCheckpoint(best, save_weights_only=True),
    ]
    run = train(dataclasses.replace(CONFIG, epochs=2), tmp_path / "run", callbacks=writers)
    with log.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["val_loss"]) for row in rows] == [line["val_loss"] for line in run.metrics]
    assert best.is_file()


@pytest.mark.parametrize(
    ("callback", "text"),
    [
        (keras.callbacks.LearningRateScheduler(lambda e: 1), "a LearningRateScheduler.*`schedule`"),
        (keras.callbacks.ReduceLROnPlateau(), "a ReduceLROnPlateau.*`patience`"),
        (keras.callbacks.BackupAndRestore("x"), "a BackupAndRestore.*`resume=True`"),
        (keras.callbacks.SwapEMAWeights(), "a SwapEMAWeights"),
        (print, "cnnkit.training.Callback or of keras.callbacks.Callback. Received: builtins.buil"),
    ],
)
def test_callbacks_that_would_do_nothing_are_refused(tmp_path, callback, text):
    with pytest.raises(UsageError, match=text):
        train(CONFIG, tmp_path / "run", callbacks=[callback])
    assert not (tmp_path / "run").exists()


def test_several_workers_stop_together_or_not_at_all(tmp_path):
    config = dataclasses.replace(CONFIG, strategy="multiworker")
    with pytest.raises(UsageError, match="must not be given to several workers.*EarlyStopping"):
        train(config, tmp_path / "run", callbacks=[keras.callbacks.EarlyStopping()])
