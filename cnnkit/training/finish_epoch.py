"""What is kept of an epoch: metrics, networks, the best network and the checkpoint."""

from __future__ import annotations

import shutil
from typing import Any

from cnnkit._files import append_line, json_text
from cnnkit._staging import staged_file
from cnnkit.training.build import is_whole_model, save_model
from cnnkit.training.checkpoint import DivergedError, checkpoints_newest_first
from cnnkit.training.epoch import TrainingRun, validate


def measure_initial(run: TrainingRun) -> None:
    """Measure the network that training begins with, which is the best one so far."""
    held_out = validate(run, epoch=0)
    run.state.update_best(held_out.accuracy, held_out.mean_loss)
    run.callbacks.on_message(
        f"before training, the error on the held-out images is {1 - held_out.accuracy:.1%}"
    )
    if run.is_chief:
        save_model(run.config, run.components, run.folder.best_file)
        run.folder.write_initial(held_out.accuracy, held_out.mean_loss)


def finish_epoch(run: TrainingRun, metrics: dict[str, Any]) -> None:
    """Write the networks and the metrics of an epoch, then the checkpoint that relies on them."""
    config, state, accuracy = run.config, run.state, metrics["val_accuracy"]
    messages = run.monitor.update_epoch(config, state, metrics)
    is_best = state.update_best(accuracy, metrics["val_loss"])
    if is_best and (config.keep_best or config.restore_best) and run.is_chief:
        save_model(config, run.components, run.folder.best_file)
    if metrics["epoch"] in config.keep_epochs and run.is_chief:
        file = run.folder.epoch_file(metrics["epoch"])
        file.parent.mkdir(exist_ok=True)
        save_model(config, run.components, file)
    state.plateau = state.plateau.after(
        accuracy, patience=config.patience, max_drops=config.max_drops
    )
    if config.stop_at_train_error is not None:
        state.reached = 1 - metrics["accuracy"] <= config.stop_at_train_error
    state.reached |= run.keras_callbacks.end_epoch(metrics)
    patience = config.early_stopping_patience
    if patience is not None and state.epochs_since_best >= patience:
        if not state.reached and metrics["epoch"] < config.epochs:
            messages.append(f"training ends: no better network for {patience} epochs")
        state.reached = True
    if run.is_chief:
        append_line(run.folder.metrics_file, json_text(metrics))
    state.next_epoch()
    run.save_checkpoint()
    run.callbacks.on_epoch_end(metrics)
    for message in messages:
        run.callbacks.on_message(message)


def end_with_best(run: TrainingRun, error: DivergedError) -> None:
    """Tell that a training ends with its best network, because its loss is not finite.

    Args:
        run: The run.
        error: What is not finite.

    Raises:
        DivergedError: The error, if the best network is not to be restored, or there is none.
    """
    state, best = run.state, run.state.best_accuracy
    if best is None or not run.config.restore_best:
        raise error
    if run.is_chief and not is_whole_model(run.folder.best_file):
        raise error
    epoch = state.epochs - state.epochs_since_best
    when = f"after epoch {epoch}" if epoch else "before training"
    run.callbacks.on_message(
        f"{error.problem[:1].lower()}{error.problem[1:]}: training ends with the network {when}, "
        f"whose error on the held-out images is {1 - best:.1%}; a lower `learning_rate` may reach "
        "a better one"
    )


def save_result(run: TrainingRun) -> None:
    """Save the trained network: the last one, or the best one with `restore_best`.

    Raises:
        RunError: If the file cannot be written.
    """
    best = run.folder.best_file
    if not (run.config.restore_best and is_whole_model(best)):
        save_model(run.config, run.components, run.folder.model_file)
        return
    with staged_file(run.folder.model_file) as staging:
        shutil.copyfile(best, staging)


def is_saved(run: TrainingRun) -> bool:
    """Return whether the files of a run that was finished before hold its networks."""
    folder, checkpoints = run.folder, checkpoints_newest_first(run.folder.checkpoints)
    for file in (folder.best_file, *folder.kept_epochs.values()):
        if file.exists() and not is_whole_model(file):
            run.callbacks.on_message(f"{file} is damaged, and its weights are not stored elsewhere")
    if not folder.model_file.is_file():
        return False
    if not is_whole_model(folder.model_file):
        run.callbacks.on_message(
            f"{folder.model_file} is damaged; it is written again from the last checkpoint"
        )
        return False
    # Older if more epochs were trained, and the process was killed before it saved the network.
    last = checkpoints[0].stat().st_mtime_ns if checkpoints else 0
    return folder.model_file.stat().st_mtime_ns >= last
