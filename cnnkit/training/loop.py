"""The training loop: epochs of steps, metrics, checkpoints, the run folder."""

from __future__ import annotations

import json
import math
import platform
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import cnnkit
from cnnkit import models
from cnnkit.config import TrainingConfig
from cnnkit.data import Augmentation, Source, batches, load_source, mean_colour
from cnnkit.data.pipeline import epoch_order, step_count
from cnnkit.errors import RunError, UsageError
from cnnkit.models.stem import IMAGENET_MEAN
from cnnkit.runs import Run, write_text, written_aside
from cnnkit.training import checkpoint
from cnnkit.training.optimizer import SGD
from cnnkit.training.progress import Progress
from cnnkit.training.schedule import learning_rate
from cnnkit.training.steps import Steps
from cnnkit.training.strategy import devices, get_strategy, shared_out

# A longer training continues the same one, so a resumed run may ask for more of it.
CHANGEABLE = {"epochs"}


def train(
    config: TrainingConfig,
    output: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    download: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Trains a network and leaves a run folder behind.

    After every epoch the state is on disk, so that a run that was interrupted at any moment goes
    on with `resume`: same order of the images, same dropout, same metrics file.

    Args:
        config: What to train.
        output: The run folder.
        resume: Goes on with the run in `output`; only `epochs` may differ from its configuration.
        overwrite: Starts afresh where `output` is a run already.
        download: Whether a TensorFlow dataset may be downloaded.
        progress: Hears what happens.

    Returns:
        The finished run.

    Raises:
        UsageError: If the configuration names something unknown, `output` is taken, or a resumed
            run was started with another configuration.
        DataError: If the dataset cannot be used.
        RunError: If the loss is no longer finite.

    Example:
        >>> from cnnkit.recipes import find_recipe
        >>> from cnnkit.training import train
        >>> run = train(find_recipe("demo").config, "runs/demo")  # doctest: +SKIP
        >>> run.metrics[-1]["val_accuracy"] > 0.95  # doctest: +SKIP
        True
    """
    progress = progress or Progress()
    run = Run(Path(output))
    if resume:
        _check_same_configuration(Run.open(output), config)
    else:
        run.check_free(overwrite=overwrite)
    strategy = get_strategy(config.strategy, config.replicas)
    source = load_source(config.dataset, seed=config.seed, download=download)
    with strategy.scope(), _seeded(config.seed):
        model = _build(config, source)
        optimizer = SGD(config.learning_rate, momentum=config.momentum, decay=config.weight_decay)
        steps = Steps(model, optimizer, strategy)

    environment = _environment(source, strategy)
    if resume:
        _check_same_dataset(run, source)
        run.remove_torn()
        run.write_config(config)
    else:
        run.create(config, source.labels, environment)
    with strategy.scope():
        done = checkpoint.restore(run.checkpoints, steps.state)
    _keep_metrics(run, done)
    progress.begin(
        {
            "model": config.model,
            "parameters": model.count_params(),
            "training_images": len(source.splits["train"]),
            "test_images": len(source.splits["test"]),
            "classes": len(source.labels),
            "unreadable": source.unreadable,
            "devices": environment["devices"],
            "epochs": config.epochs,
            "first_epoch": done + 1,
        }
    )
    for epoch in range(done + 1, config.epochs + 1):
        line = _epoch(config, source, steps, epoch, progress)
        if not math.isfinite(line["loss"]):
            raise RunError(
                f"The loss is no longer finite in epoch {epoch}",
                received=line["loss"],
                hint=f"Lower the learning rate, now {line['learning_rate']:g}, and start afresh",
            )
        with run.metrics_file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        checkpoint.save(run.checkpoints, epoch, steps.state)
        progress.epoch(line)
    if done < config.epochs or not run.model_file.is_file():
        _save(model, run.model_file)
    return run


def _build(config: TrainingConfig, source: Source) -> keras.Model:
    options = dict(config.model_options)
    if config.mean == "imagenet":
        options["mean"] = IMAGENET_MEAN
    else:
        options["mean"] = mean_colour(source.splits["train"], image_size=config.image_size)
    shape = (config.image_size, config.image_size, 3)
    return models.build(config.model, classes=len(source.labels), input_shape=shape, **options)


def _epoch(
    config: TrainingConfig, source: Source, steps: Steps, epoch: int, progress: Progress
) -> dict[str, Any]:
    rate = learning_rate(config, epoch)
    steps.optimizer.learning_rate = rate
    images = source.splits["train"]
    count = step_count(len(images), config.batch_size)
    order = epoch_order(len(images), config.seed, epoch)
    start = time.perf_counter()
    for step, batch in enumerate(_batches(config, images, steps.strategy, order), start=1):
        steps.train(batch)
        progress.step(epoch, step, count)
    loss, accuracy = steps.results()
    seconds = time.perf_counter() - start
    for batch in _batches(config, source.splits["test"], steps.strategy):
        steps.validate(batch)
    val_loss, val_accuracy = steps.results()
    return {
        "epoch": epoch,
        "step": epoch * count,
        "loss": loss,
        "accuracy": accuracy,
        "val_loss": val_loss,
        "val_accuracy": val_accuracy,
        "learning_rate": rate,
        "images_per_second": round(len(images) / seconds, 1),
    }


def _batches(config: TrainingConfig, split, strategy, order=None) -> Iterator:
    dataset = batches(
        split,
        augmentation=Augmentation(config.image_size),
        batch_size=config.batch_size,
        order=order,
        replicas=strategy.num_replicas_in_sync,
    )
    return (shared_out(batch, strategy) for batch in dataset)


def _check_same_configuration(run: Run, config: TrainingConfig) -> None:
    differences = run.config.differences(config)
    wrong = {name: values for name, values in differences.items() if name not in CHANGEABLE}
    if wrong:
        raise UsageError(
            f"The run {run.path} was started with another configuration",
            received="; ".join(
                f"{name} {was!r}, now {now!r}" for name, (was, now) in wrong.items()
            ),
            hint="Resume it as it was, or use another --output",
        )
    done = len(run.metrics)
    if config.epochs < done:
        raise UsageError(
            f"The run {run.path} is past the end asked for",
            expected=f"epochs of at least {done}",
            received=config.epochs,
        )


def _check_same_dataset(run: Run, source: Source) -> None:
    before = run.environment["dataset"]["fingerprint"]
    if before != source.fingerprint:
        raise RunError(
            f"The dataset {source.spec} has changed since the run {run.path} was started",
            expected=f"fingerprint {before[:12]}",
            received=source.fingerprint[:12],
            hint="Restore it, or train afresh in another --output",
        )


def _keep_metrics(run: Run, epochs: int) -> None:
    """Drops the lines after the checkpoint: those epochs are trained again."""
    lines = [line for line in run.metrics if line["epoch"] <= epochs]
    write_text(run.metrics_file, "".join(json.dumps(line) + "\n" for line in lines))


def _environment(source: Source, strategy) -> dict[str, Any]:
    return {
        "cnnkit": cnnkit.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": devices(strategy),
        "dataset": {
            "spec": source.spec,
            "fingerprint": source.fingerprint,
            "images": {name: len(split) for name, split in source.splits.items()},
            "unreadable": list(source.unreadable),
        },
    }


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Makes the seeds that Keras draws for initializers and dropout follow from `seed`.

    Keras draws them from Python's generator, which is the caller's and is given back untouched.
    """
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def _save(model: keras.Model, path: Path) -> None:
    with written_aside(path) as aside:
        model.save(aside)
