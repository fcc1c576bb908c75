"""A training run from its configuration to its finished folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from cnnkit._files import append_line
from cnnkit.config import TrainingConfig
from cnnkit.data import Dataset, cache_in_memory, load_dataset
from cnnkit.run_folder import RunFolder
from cnnkit.training.build import (
    TrainingComponents,
    build_components,
    initial_preprocessing,
    initialize_from,
    load_initial_model,
    save_model,
)
from cnnkit.training.callbacks import Callback
from cnnkit.training.checkpoint import (
    TrainingState,
    check_resumable_configuration,
    check_resumable_dataset,
    checkpoints_newest_first,
    restore_checkpoint,
    truncate_metrics,
)
from cnnkit.training.diagnostics import LossMonitor, startup_warnings
from cnnkit.training.distribute import (
    barrier,
    broadcast_arrays,
    broadcast_bytes,
    broadcast_variables,
    check_same_configuration_everywhere,
    devices,
    get_strategy,
    process_index_and_count,
    translate_worker_loss,
)
from cnnkit.training.environment import describe_environment
from cnnkit.training.epoch import TrainingRun, run_epoch
from cnnkit.training.inputs import (
    compute_input_statistics,
    held_out_augmentation,
    training_augmentation,
)
from cnnkit.training.signals import defer_signals


def prepare_run(
    config: TrainingConfig,
    run: RunFolder,
    strategy: tf.distribute.Strategy,
    *,
    resume: bool,
    overwrite: bool,
    download: bool,
    progress: Callback,
    about: Mapping[str, Any],
) -> TrainingRun:
    """Gets everything ready; nothing is written before everything has been checked.

    The first process reads and writes the run folder and tells the others.

    Raises:
        UsageError, DataError, RunError: As `cnnkit.training.train`.
    """
    first = process_index_and_count(strategy)[0] == 0
    if first and resume:
        check_resumable_configuration(RunFolder.open(run.path), config)
    elif first:
        run.check_free(overwrite=overwrite)
    source = load_dataset(config.dataset, seed=config.seed, download=download)
    if not config.fast_decode:
        splits = {part: cache_in_memory(split) for part, split in source.splits.items()}
        source = dataclasses.replace(source, splits=splits)
    work = {"configuration": dataclasses.asdict(config), "dataset": source.fingerprint}
    check_same_configuration_everywhere(strategy, work)
    # Kept, not measured again: a resumed run subtracts the same bits.
    measured, trained = {}, None
    if first and config.init_from and not (resume and checkpoints_newest_first(run.checkpoints)):
        trained = load_initial_model(config)
    if first:
        before = trained and initial_preprocessing(trained, config.image_size)
        measured = run.statistics if resume else compute_input_statistics(config, source, before)
    measured = broadcast_arrays(strategy, measured)
    shown, held_out = training_augmentation(config, measured), held_out_augmentation(config)
    assembly = build_components(config, source.class_names, measured, strategy)

    state, notes = TrainingState(), startup_warnings(config, source, strategy)
    if first:
        if trained is not None:
            copied = initialize_from(trained, config, assembly.model)
            notes.append(f"weights of {config.init_from} in {', '.join(copied.carried)}")
        if resume:
            state = _go_on(config, run, source, assembly)
        else:
            facts = {**about, **describe_environment(source, config.seed, strategy)}
            run.create(config, source.class_names, facts, measured)
    text = broadcast_bytes(strategy, json.dumps(state.to_dict()).encode())
    state = TrainingState.from_dict(json.loads(text))
    broadcast_variables(strategy, assembly.steps.state)

    job = TrainingRun(
        config=config,
        source=source,
        run=run,
        assembly=assembly,
        shown=shown,
        held_out=held_out,
        state=state,
        progress=progress,
        watch=LossMonitor(len(source.class_names), config.learning_rate),
        writes=first,
    )
    kept = run.environment if first else about
    progress.begin({**_facts(job), "deviations": kept.get("deviations", ())})
    for note in notes:
        progress.note(note)
    return job


def _go_on(
    config: TrainingConfig, run: RunFolder, source: Dataset, assembly: TrainingComponents
) -> TrainingState:
    check_resumable_dataset(run, source)
    run.remove_torn()
    run.write_config(config)
    state = restore_checkpoint(run.checkpoints, assembly.steps.state)
    truncate_metrics(run, state.epochs)
    return state


def _facts(job: TrainingRun) -> dict[str, Any]:
    config, source, state = job.config, job.source, job.state
    return {
        "run": job.run.path,
        "model": config.model,
        "parameters": job.assembly.model.count_params(),
        "training_images": len(source.splits["train"]),
        "test_images": len(source.splits["test"]),
        "classes": len(source.class_names),
        "unreadable": source.unreadable,
        "devices": devices(job.assembly.steps.strategy),
        "epochs": config.epochs,
        "first_epoch": state.epochs + 1,
        "first_step": state.step + 1,
    }


def train(
    config: TrainingConfig,
    output: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    download: bool = False,
    progress: Callback | None = None,
    about: Mapping[str, Any] | None = None,
    workers: Sequence[str] = (),
    index: int | None = None,
) -> RunFolder:
    """Trains a network and leaves a run folder behind.

    After every epoch, and as often as `config.checkpoint_every` says, the state is on disk, so that
    a run that was interrupted at any moment goes on with `resume`: same order of the images, same
    dropout, same metrics file. With `config.deterministic` the weights at the end are those of the
    uninterrupted run, bit for bit. SIGINT and SIGTERM keep the state before they end the run.

    Args:
        config: What to train.
        output: The run folder.
        resume: Goes on with the run in `output`; only `epochs` and what is kept of it, and how
            often, may differ from its configuration.
        overwrite: Starts afresh where `output` is a run already.
        download: Whether a TensorFlow dataset may be downloaded.
        progress: Hears what happens.
        about: What environment.json is to tell beside the environment, for example the recipe and
            its `deviations` from the paper.
        workers: Under the strategy `"multiworker"` the `host:port` of every process; empty to read
            TF_CONFIG. The run folder belongs to the first one: the others write nothing and hear
            from it where to go on, so they need no common disk but for the dataset.
        index: Which of the workers this process is, counted from 0.

    Returns:
        The finished run.

    Raises:
        UsageError: If the configuration names something unknown, `output` is taken, or a resumed
            run was started with another configuration.
        DataError: If the dataset cannot be used.
        RunError: If the loss is no longer finite, the run folder cannot be written, or another
            worker no longer answers.
        Stopped: If a signal came; the state is kept.

    Example:
        >>> from cnnkit.recipes import find_recipe
        >>> from cnnkit.training import train
        >>> run = train(find_recipe("demo").config, "runs/demo")  # doctest: +SKIP
        >>> run.metrics[-1]["val_accuracy"] > 0.95  # doctest: +SKIP
        True
    """
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
        tf.random.set_seed(config.seed)
    strategy = get_strategy(config.strategy, config.replicas, workers=workers, index=index)
    with translate_worker_loss(strategy):
        job = prepare_run(
            config,
            RunFolder(Path(output)),
            strategy,
            resume=resume,
            overwrite=overwrite,
            download=download,
            progress=progress or Callback(),
            about=about or {},
        )
        done = job.state.epochs
        with defer_signals() as job.stop:
            while job.state.epochs < config.epochs and not job.state.reached:
                _finish_epoch(job, run_epoch(job))
            if job.writes and (done < job.state.epochs or not job.run.model_file.is_file()):
                save_model(config, job.assembly, job.run.model_file)
    # The others wait for the first one, so that a disk that is full then fails all of them.
    barrier(strategy)
    job.progress.end(job.seconds)
    return job.run


def _finish_epoch(job: TrainingRun, line: dict[str, Any]) -> None:
    """Writes down an epoch: the networks first, the checkpoint that counts on all that last."""
    state, accuracy = job.state, line["val_accuracy"]
    if state.best_accuracy is None or accuracy > state.best_accuracy:
        state.best_accuracy = accuracy
        if job.config.keep_best and job.writes:
            save_model(job.config, job.assembly, job.run.best_file)
    if line["epoch"] in job.config.keep_epochs and job.writes:
        file = job.run.epoch_file(line["epoch"])
        file.parent.mkdir(exist_ok=True)
        save_model(job.config, job.assembly, file)
    state.plateau = state.plateau.after(
        accuracy, patience=job.config.patience, max_drops=job.config.max_drops
    )
    if job.config.stop_at_train_error is not None:
        state.reached = 1 - line["accuracy"] <= job.config.stop_at_train_error
    if job.writes:
        append_line(job.run.metrics_file, json.dumps(line))
    state.next_epoch()
    job.save()
    job.progress.epoch(line)
