"""Everything up to the first step: dataset, network, run folder, and where the run stands."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from cnnkit.config import TrainingConfig
from cnnkit.data import Source, load_source, resident
from cnnkit.runs import Run
from cnnkit.training import agreement, checkpoint, resuming
from cnnkit.training.assembly import Assembly, assemble
from cnnkit.training.beginning import begin_from, first_network, preprocessing_of
from cnnkit.training.environment import environment
from cnnkit.training.guards import Watch, notes_at_start
from cnnkit.training.job import Job
from cnnkit.training.measured import held_out_augmentation, measure, training_augmentation
from cnnkit.training.progress import Progress
from cnnkit.training.state import State
from cnnkit.training.strategy import devices, process_of


def set_up(
    config: TrainingConfig,
    run: Run,
    strategy: tf.distribute.Strategy,
    *,
    resume: bool,
    overwrite: bool,
    download: bool,
    progress: Progress,
    about: Mapping[str, Any],
) -> Job:
    """Gets everything ready; nothing is written before everything has been checked.

    The first process reads and writes the run folder and tells the others.

    Raises:
        UsageError, DataError, RunError: As `cnnkit.training.train`.
    """
    first = process_of(strategy)[0] == 0
    if first and resume:
        resuming.check_same_configuration(Run.open(run.path), config)
    elif first:
        run.check_free(overwrite=overwrite)
    source = load_source(config.dataset, seed=config.seed, download=download)
    if not config.fast_decode:
        splits = {part: resident(split) for part, split in source.splits.items()}
        source = dataclasses.replace(source, splits=splits)
    work = {"configuration": dataclasses.asdict(config), "dataset": source.fingerprint}
    agreement.check_same_work(strategy, work)
    # Kept, not measured again: a resumed run subtracts the same bits.
    measured, trained = {}, None
    if first and config.init_from and not (resume and checkpoint.newest_first(run.checkpoints)):
        trained = first_network(config)
    if first:
        before = trained and preprocessing_of(trained, config.image_size)
        measured = run.statistics if resume else measure(config, source, before)
    measured = agreement.same_arrays(strategy, measured)
    shown, held_out = training_augmentation(config, measured), held_out_augmentation(config)
    assembly = assemble(config, source.labels, measured, strategy)

    state, notes = State(), notes_at_start(config, source, strategy)
    if first:
        if trained is not None:
            copied = begin_from(trained, config, assembly.model)
            notes.append(f"weights of {config.init_from} in {', '.join(copied.carried)}")
        if resume:
            state = _go_on(config, run, source, assembly)
        else:
            facts = {**about, **environment(source, config.seed, strategy)}
            run.create(config, source.labels, facts, measured)
    text = agreement.first_tells(strategy, json.dumps(state.to_dict()).encode())
    state = State.from_dict(json.loads(text))
    agreement.same_variables(strategy, assembly.steps.state)

    job = Job(
        config=config,
        source=source,
        run=run,
        assembly=assembly,
        shown=shown,
        held_out=held_out,
        state=state,
        progress=progress,
        watch=Watch(len(source.labels), config.learning_rate),
        writes=first,
    )
    kept = run.environment if first else about
    progress.begin({**_facts(job), "deviations": kept.get("deviations", ())})
    for note in notes:
        progress.note(note)
    return job


def _go_on(config: TrainingConfig, run: Run, source: Source, assembly: Assembly) -> State:
    resuming.check_same_dataset(run, source)
    run.remove_torn()
    run.write_config(config)
    state = checkpoint.restore(run.checkpoints, assembly.steps.state)
    resuming.keep_metrics(run, state.epochs)
    return state


def _facts(job: Job) -> dict[str, Any]:
    config, source, state = job.config, job.source, job.state
    return {
        "run": job.run.path,
        "model": config.model,
        "parameters": job.assembly.model.count_params(),
        "training_images": len(source.splits["train"]),
        "test_images": len(source.splits["test"]),
        "classes": len(source.labels),
        "unreadable": source.unreadable,
        "devices": devices(job.assembly.steps.strategy),
        "epochs": config.epochs,
        "first_epoch": state.epochs + 1,
        "first_step": state.step + 1,
    }
