"""A training run from its configuration to its finished folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from cnnkit.config import TrainingConfig
from cnnkit.runs import Run
from cnnkit.training.agreement import all_answering, leave_together
from cnnkit.training.assembly import save_model
from cnnkit.training.epoch import run_epoch
from cnnkit.training.job import Job
from cnnkit.training.progress import Progress
from cnnkit.training.setup import set_up
from cnnkit.training.stopping import signals_remembered
from cnnkit.training.strategy import get_strategy
from cnnkit.writing import append_line


def train(
    config: TrainingConfig,
    output: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    download: bool = False,
    progress: Progress | None = None,
    about: Mapping[str, Any] | None = None,
    workers: Sequence[str] = (),
    index: int | None = None,
) -> Run:
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
    with all_answering(strategy):
        job = set_up(
            config,
            Run(Path(output)),
            strategy,
            resume=resume,
            overwrite=overwrite,
            download=download,
            progress=progress or Progress(),
            about=about or {},
        )
        done = job.state.epochs
        with signals_remembered() as job.stop:
            while job.state.epochs < config.epochs and not job.state.reached:
                _finish_epoch(job, run_epoch(job))
            if job.writes and (done < job.state.epochs or not job.run.model_file.is_file()):
                save_model(config, job.assembly, job.run.model_file)
    # The others wait for the first one, so that a disk that is full then fails all of them.
    leave_together(strategy)
    job.progress.end(job.seconds)
    return job.run


def _finish_epoch(job: Job, line: dict[str, Any]) -> None:
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
    if job.config.until_train_error is not None:
        state.reached = 1 - line["accuracy"] <= job.config.until_train_error
    if job.writes:
        append_line(job.run.metrics_file, json.dumps(line))
    state.next_epoch()
    job.save()
    job.progress.epoch(line)
