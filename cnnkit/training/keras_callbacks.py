"""Callbacks of Keras in the training loop of this package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras

from cnnkit.config import TrainingConfig
from cnnkit.errors import UsageError
from cnnkit.training.callbacks import Callback

# Those that change what the configuration fixes, and what to use in their place.
REFUSED: dict[type[keras.callbacks.Callback], str] = {
    keras.callbacks.LearningRateScheduler: "Set `schedule` and `lr_decay` in the configuration",
    keras.callbacks.ReduceLROnPlateau: "Set `patience` and `max_drops` in the configuration",
    keras.callbacks.BackupAndRestore: "An interrupted run goes on with `resume=True`",
    keras.callbacks.SwapEMAWeights: "The optimizer of this loop averages no weights",
}
LOGS = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


class KerasCallbacks(Callback):
    """Call callbacks of Keras with the arguments that `keras.Model.fit` gives them.

    Epochs and batches count from 0. The hooks of a batch are called when its loss has arrived, one
    batch late. `logs` holds `loss` after a batch, and `loss`, `accuracy`, `val_loss`,
    `val_accuracy` and `learning_rate` after an epoch. `model` is the network in training. It is not
    compiled, so that it has no optimizer. The hooks of evaluation are not called.

    Args:
        callbacks: The callbacks; those that are not Keras's are left out.
        model: The network.
        epochs: Number of epochs.
        steps: Number of steps of an epoch.
    """

    def __init__(
        self,
        callbacks: Iterable[Callback | keras.callbacks.Callback],
        model: keras.Model,
        epochs: int,
        steps: int,
    ) -> None:
        self._model = model
        chosen = [one for one in callbacks if isinstance(one, keras.callbacks.Callback)]
        self._callbacks = keras.callbacks.CallbackList(
            chosen, model=model, epochs=epochs, steps=steps, verbose=0
        )

    def on_train_begin(self, facts: Mapping[str, Any]) -> None:
        """Call `on_train_begin`; on a resumed run they know nothing of the steps before."""
        self._model.stop_training = False
        self._callbacks.on_train_begin()

    def on_epoch_begin(self, epoch: int) -> None:
        """Call `on_epoch_begin`."""
        self._callbacks.on_epoch_begin(epoch - 1)

    def on_train_batch_end(
        self, epoch: int, step: int, steps: int, images: int, loss: float
    ) -> None:
        """Call `on_train_batch_begin` and `on_train_batch_end`."""
        self._callbacks.on_train_batch_begin(step - 1)
        self._callbacks.on_train_batch_end(step - 1, {"loss": loss})

    def end_epoch(self, metrics: Mapping[str, float]) -> bool:
        """Call `on_epoch_end` before the checkpoint of the epoch, for what it has to hold.

        Returns:
            True if a callback has set `model.stop_training`.
        """
        logs = {name: value for name, value in metrics.items() if name in LOGS}
        self._callbacks.on_epoch_end(int(metrics["epoch"]) - 1, logs)
        return bool(self._model.stop_training)

    def end_training(self) -> None:
        """Call `on_train_end` before the network is saved: it may set the best weights again."""
        self._callbacks.on_train_end()


def check_callbacks(callbacks: Iterable[Any], config: TrainingConfig) -> None:
    """Check the types of callbacks, before anything is read.

    Raises:
        UsageError: If one is neither a `Callback` of this package nor one of Keras, or changes what
            the configuration fixes, or one of Keras is given to several processes, which could
            not stop together.
    """
    for callback in callbacks:
        name = f"{type(callback).__module__}.{type(callback).__name__}"
        if isinstance(callback, Callback):
            continue
        if not isinstance(callback, keras.callbacks.Callback):
            raise UsageError(
                "`callbacks` must be objects of cnnkit.training.Callback or of "
                "keras.callbacks.Callback",
                received=name,
            )
        for refused, hint in REFUSED.items():
            if isinstance(callback, refused):
                raise UsageError(
                    f"`callbacks` must not contain a {refused.__name__}", received=name, hint=hint
                )
        if config.strategy == "multiworker":
            raise UsageError(
                "`callbacks` of Keras must not be given to several workers, which could not stop "
                "together",
                received=name,
                hint="Use cnnkit.training.Callback",
            )


def own_callbacks(callbacks: Iterable[Callback | keras.callbacks.Callback]) -> list[Callback]:
    """Return the callbacks that are not Keras's."""
    return [callback for callback in callbacks if isinstance(callback, Callback)]
