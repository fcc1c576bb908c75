"""Train a network from a configuration into a run folder.

`train` prepares a `TrainingRun` (dataset, network, run folder, restored state), runs its epochs and
saves the network. Nothing is written before the configuration and the dataset have been checked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cnnkit._deprecation import renamed_argument
from cnnkit._signals import defer_signals
from cnnkit.config import TrainingConfig
from cnnkit.data import Dataset, Decoding, cache_in_memory, load_dataset
from cnnkit.data.pipeline import step_count
from cnnkit.errors import UsageError
from cnnkit.run_folder import RunFolder
from cnnkit.training.build import (
    TrainingComponents,
    build_components,
    check_model_options,
    initial_preprocessing,
    initialization_messages,
    initialize_from,
    load_initial_model,
)
from cnnkit.training.callbacks import Callback, CallbackList
from cnnkit.training.checkpoint import (
    DivergedError,
    TrainingState,
    check_resumable_configuration,
    check_resumable_dataset,
    checkpoints_newest_first,
    restore_run,
)
from cnnkit.training.determinism import deterministic_operations
from cnnkit.training.diagnostics import (
    LossMonitor,
    check_splits_hold_images,
    frozen_messages,
    startup_warnings,
)
from cnnkit.training.distribute import (
    barrier,
    broadcast_arrays,
    broadcast_bytes,
    broadcast_variables,
    check_same_configuration_everywhere,
    get_strategy,
    process_index_and_count,
    translate_worker_loss,
)
from cnnkit.training.environment import describe_environment
from cnnkit.training.epoch import TrainingRun, describe_run, run_epoch
from cnnkit.training.finish_epoch import (
    end_with_best,
    finish_epoch,
    is_saved,
    measure_initial,
    save_result,
)
from cnnkit.training.inputs import (
    check_augmentation,
    compute_input_statistics,
    held_out_augmentation,
    kept_outputs,
    training_augmentation,
)
from cnnkit.training.keras_callbacks import KerasCallbacks, check_callbacks, own_callbacks
from cnnkit.training.objectives import check_boxes
from cnnkit.training.recorded_inputs import (
    INPUTS,
    check_inputs,
    check_statistics,
    digest_arrays,
    record_inputs,
)
from cnnkit.training.rendezvous import WORKER_TIMEOUT


@renamed_argument("about", "metadata")
@renamed_argument("index", "worker_index")
def train(
    config: TrainingConfig,
    output: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    download: bool = False,
    verify: bool = False,
    callbacks: Sequence[Callback | keras.callbacks.Callback] = (),
    metadata: Mapping[str, Any] | None = None,
    workers: Sequence[str] = (),
    worker_index: int | None = None,
    worker_timeout: float = WORKER_TIMEOUT,
) -> RunFolder:
    """Train a network and write a run folder.

    The state is saved after every epoch and as often as `config.checkpoint_every` says, so that a
    run that was interrupted at any moment continues with `resume`: same order of the images, same
    dropout, same metrics file. With `config.deterministic` the final weights are those of the
    uninterrupted run, bit for bit. SIGINT and SIGTERM save the state before they end the run.

    Args:
        config: The configuration.
        output: Path of the run folder.
        resume: Continue the run in `output`. Only `epochs`, the fields about checkpoints and the
            place of the same dataset may differ from its configuration.
        overwrite: Start again if `output` is already a run folder.
        download: Whether a TensorFlow dataset may be downloaded.
        verify: Whether to record the checksums of all images, not only of some; with `resume`,
            compare the images with them even if their files have the same times.
        callbacks: Objects that are notified of the progress, of this package or of Keras. One of
            Keras may set `model.stop_training`: the epoch is the last one, and the run is finished.
            After `resume` it begins anew. Those that change the learning rate or the checkpoints,
            which the configuration fixes, are refused.
        metadata: Entries of environment.json in addition to the environment, for example the
            recipe and its `deviations` from the paper.
        workers: Under the strategy `"multiworker"` the `host:port` of every process; empty to read
            TF_CONFIG. Only the first process reads and writes the run folder and sends the state to
            the others, so that they need to share no disk but the dataset's.
        worker_index: Index of this process among the workers, from 0.
        worker_timeout: Seconds to wait at the start for the other workers. Every 10 seconds the
            callbacks receive a message that names those that are missing.

    Returns:
        The folder of the finished run.

    Raises:
        UsageError: If the configuration contains an unknown name, `output` exists, or a resumed
            run was started with another configuration.
        DataError: If the dataset cannot be used.
        RunError: If the loss is not finite and there is no best network to restore, the run folder
            cannot be written, another process trains in it, or another worker does not start or
            respond.
        Interrupted: If a signal arrived; the state is saved.

    Example:
        >>> from cnnkit.recipes import find_recipe
        >>> from cnnkit.training import train
        >>> run = train(find_recipe("demo").config, "runs/demo")  # doctest: +SKIP
        >>> run.metrics[-1]["val_accuracy"] > 0.95  # doctest: +SKIP
        True
    """
    _check_arguments(config, output, callbacks)
    deterministic = deterministic_operations(config.seed) if config.deterministic else None
    with deterministic or contextlib.nullcontext():
        strategy = get_strategy(
            config.strategy,
            config.replicas,
            workers=workers,
            worker_index=worker_index,
            worker_timeout=worker_timeout,
            report=CallbackList(own_callbacks(callbacks)).on_message,
        )
        with translate_worker_loss(strategy), contextlib.ExitStack() as held:
            run = prepare_run(
                config,
                RunFolder(Path(output)),
                strategy,
                resume=resume,
                overwrite=overwrite,
                download=download,
                verify=verify,
                callbacks=callbacks,
                metadata=metadata or {},
                held=held,
            )
            _run_epochs(run)
        # The others wait for the chief: if its disk is full, all of them fail.
        barrier(strategy)
    run.callbacks.on_train_end(run.seconds)
    return run.folder


def _check_arguments(config: Any, output: Any, callbacks: Any) -> None:
    """Check the types of arguments that would fail late, after the images have been read."""
    if not isinstance(config, TrainingConfig):
        raise UsageError(
            "`config` must be a TrainingConfig",
            received=type(config).__name__,
            hint="`find_recipe(NAME).config` is that of a recipe",
        )
    if not isinstance(output, (str, os.PathLike)) or not os.fspath(output):
        raise UsageError("`output` must be the path of the run folder", received=repr(output))
    check_callbacks(callbacks, config)


def _run_epochs(run: TrainingRun) -> None:
    """Run the remaining epochs and save the network."""
    epochs_before = run.state.epochs
    with defer_signals() as run.stop:
        if run.config.restore_best and run.begins_whole and run.state.best_accuracy is None:
            measure_initial(run)
        while run.state.epochs < run.config.epochs and not run.state.reached:
            try:
                metrics = run_epoch(run)
            except DivergedError as error:
                end_with_best(run, error)
                break
            finish_epoch(run, metrics)
        trained = epochs_before < run.state.epochs
        if trained:
            run.keras_callbacks.end_training()
        if run.is_chief and (trained or not is_saved(run)):
            save_result(run)


def prepare_run(
    config: TrainingConfig,
    folder: RunFolder,
    strategy: tf.distribute.Strategy,
    *,
    resume: bool,
    overwrite: bool,
    download: bool,
    verify: bool,
    callbacks: Sequence[Callback | keras.callbacks.Callback] = (),
    metadata: Mapping[str, Any],
    held: contextlib.ExitStack,
) -> TrainingRun:
    """Prepare a run up to its first step.

    The first process, the chief, reads and writes the run folder and broadcasts what it read.

    Args:
        config: The configuration.
        folder: The run folder.
        strategy: The distribution strategy.
        resume: As in `train`.
        overwrite: As in `train`.
        download: As in `train`.
        verify: As in `train`.
        callbacks: As in `train`.
        metadata: As in `train`.
        held: Keeps the lock of the run folder.

    Raises:
        UsageError, DataError, RunError: As `train`.
    """
    is_chief = process_index_and_count(strategy)[0] == 0
    if is_chief and resume:
        check_resumable_configuration(RunFolder.open(folder.path), config)
        held.enter_context(folder.lock())
    elif is_chief:
        folder.check_available(overwrite=overwrite)
    if not resume:
        check_model_options(config)
        check_augmentation(config)
    initial_model = _initial_model(config, folder, resume=resume) if is_chief else None
    dataset = load_dataset(
        config.dataset,
        seed=config.seed,
        download=download,
        decoding=Decoding.from_config(config),
    )
    check_splits_hold_images(dataset)
    check_boxes(config.task, dataset)
    inputs: dict[str, Any] = {}
    messages: list[str] = []
    if is_chief and resume:
        check_resumable_dataset(folder, dataset)
        messages = check_inputs(folder, dataset, verify=verify)
    elif is_chief:
        inputs = record_inputs(dataset, verify=verify)
    if not config.fast_decode:
        splits = {name: cache_in_memory(split) for name, split in dataset.splits.items()}
        dataset = dataclasses.replace(dataset, splits=splits)
    work = {"configuration": dataclasses.asdict(config), "dataset": dataset.fingerprint}
    check_same_configuration_everywhere(strategy, work)
    statistics: dict[str, np.ndarray] = {}
    if is_chief:
        statistics = _input_statistics(config, folder, dataset, initial_model, resume=resume)
    statistics = broadcast_arrays(strategy, statistics)
    augmentations = training_augmentation(config, statistics), held_out_augmentation(config)
    components = build_components(
        config, dataset.class_names, statistics, strategy, images=kept_outputs(config, dataset)
    )
    messages += frozen_messages(config, components, dataset)
    messages += startup_warnings(config, dataset, strategy)
    state, begins_whole = TrainingState(), False
    if is_chief:
        if initial_model is not None:
            copied = initialize_from(initial_model, config, components.model)
            messages += initialization_messages(initial_model, config, copied, dataset.class_names)
            begins_whole = not copied.reinitialized
        if resume:
            variables = components.step_runner.checkpoint_variables
            state = restore_run(config, folder, variables, report=messages.append)
        else:
            environment = describe_environment(dataset, config.seed, strategy)
            facts = {**metadata, **environment}
            facts[INPUTS] = {**inputs, "statistics": digest_arrays(statistics)}
            folder.create(config, dataset.class_names, facts, statistics, overwrite=overwrite)
            held.enter_context(folder.lock())
    steps = step_count(len(dataset.splits["train"]), config.batch_size)
    of_keras = KerasCallbacks(callbacks, components.model, config.epochs, steps)
    run = TrainingRun(
        config=config,
        dataset=dataset,
        folder=folder,
        components=components,
        train_augmentation=augmentations[0],
        held_out_augmentation=augmentations[1],
        state=_broadcast_state(strategy, state, components),
        callbacks=CallbackList([*own_callbacks(callbacks), of_keras]),
        keras_callbacks=of_keras,
        monitor=LossMonitor(
            len(dataset.class_names), config.learning_rate, len(dataset.splits["train"])
        ),
        is_chief=is_chief,
        begins_whole=begins_whole,
    )
    stored = folder.environment if is_chief else metadata
    recipe = {name: stored.get(name, ()) for name in ("deviations", "changes")}
    recipe["recipe"] = stored.get("recipe")
    run.callbacks.on_train_begin({**describe_run(run), **recipe})
    for message in messages:
        run.callbacks.on_message(message)
    return run


def _initial_model(
    config: TrainingConfig, folder: RunFolder, *, resume: bool
) -> keras.Model | None:
    """Return the network whose weights training begins with; None if there is none."""
    has_checkpoint = resume and checkpoints_newest_first(folder.checkpoints)
    return load_initial_model(config) if config.init_from and not has_checkpoint else None


def _input_statistics(
    config: TrainingConfig,
    folder: RunFolder,
    dataset: Dataset,
    initial_model: keras.Model | None,
    *,
    resume: bool,
) -> dict[str, np.ndarray]:
    if resume:
        # Read, not computed again: a resumed run subtracts the same bits.
        return check_statistics(folder, config.image_size)
    initial = initial_model and initial_preprocessing(initial_model, config.image_size)
    return compute_input_statistics(config, dataset, initial)


def _broadcast_state(
    strategy: tf.distribute.Strategy, state: TrainingState, components: TrainingComponents
) -> TrainingState:
    """Copy the state and the variables of the chief to every process."""
    text = broadcast_bytes(strategy, json.dumps(state.to_dict()).encode())
    broadcast_variables(strategy, components.step_runner.checkpoint_variables)
    return TrainingState.from_dict(json.loads(text))
