"""One epoch: steps over the training images, then the held-out images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from cnnkit.data import Augmentation, Split, batches, naming_broken_images
from cnnkit.data.pipeline import epoch_order
from cnnkit.training.guards import check_finite, notes_on_pixels
from cnnkit.training.job import Job
from cnnkit.training.schedule import learning_rate
from cnnkit.training.state import Totals
from cnnkit.training.strategy import process_of


def run_epoch(job: Job) -> dict[str, Any]:
    """Trains what is left of the epoch, validates, and returns its line of metrics.

    Raises:
        RunError: If the loss is no longer finite.
        Stopped: If a signal came; the state is kept.
    """
    epoch = job.state.epochs + 1
    _train(job, epoch)
    with job.timed("validation"):
        held_out = _validate(job)
    totals = job.state.totals
    count = job.steps_per_epoch
    return {
        "epoch": epoch,
        "step": epoch * count,
        "loss": totals.mean_loss,
        "accuracy": totals.accuracy,
        "val_loss": held_out.mean_loss,
        "val_accuracy": held_out.accuracy,
        "learning_rate": learning_rate(job.config, epoch, count - 1, count, job.state.plateau),
        "images_per_second": round(totals.images / totals.seconds, 1),
    }


def _train(job: Job, epoch: int) -> None:
    config, state, steps = job.config, job.state, job.assembly.steps
    images, count = job.training_images, job.steps_per_epoch
    order = epoch_order(len(images), config.seed, epoch)
    where = {"order": order, "seed": config.seed, "epoch": epoch, "first_step": state.step}
    feed = iter(_batches(job, images, job.shown, **where))
    unread: tuple[int, int, float, tf.Tensor] | None = None

    def read() -> None:
        """Counts the step before: reading it late lets the device go on meanwhile."""
        if unread is not None:
            _count(job, epoch, *unread)

    for step in range(state.step + 1, count + 1):
        before = sum(job.seconds[part] for part in ("input", "step"))
        with job.timed("input"):
            batch = next(feed)
        if (epoch, step) == (1, 1):
            for note in notes_on_pixels(batch["images"]):
                job.progress.note(note)
        with job.timed("step"):
            shown = min(config.batch_size, len(images) - (step - 1) * config.batch_size)
            rate = learning_rate(config, epoch, step - 1, count, state.plateau)
            result = steps.train(batch, shown, rate)
            read()
            unread = (step, shown, rate, result)
            due = job.checkpoint_is_due(state.epochs * count + step)
            if due or job.stop.signal is not None or step == count:
                read()
                unread = None
        state.totals.seconds += sum(job.seconds[part] for part in ("input", "step")) - before
        job.stop_if_asked()
        if due and step < count:
            job.save()


def _count(job: Job, epoch: int, step: int, images: int, rate: float, result: tf.Tensor) -> None:
    loss, right = (float(value) for value in result.numpy())
    check_finite(loss, step=step, epoch=epoch, rate=rate)
    job.state.totals.add(images, loss, right)
    job.state.step = step
    job.progress.step(epoch, step, job.steps_per_epoch, images, loss / images)
    for note in job.watch.after_step(loss / images, rate, job.steps_per_epoch):
        job.progress.note(note)


def _validate(job: Job) -> Totals:
    images, totals = job.source.splits["test"], Totals()
    size = job.config.batch_size
    for step, batch in enumerate(_batches(job, images, job.held_out)):
        loss, right = (float(value) for value in job.assembly.steps.validate(batch).numpy())
        totals.add(min(size, len(images) - step * size), loss, right)
        job.stop_if_asked()
    return totals


def _batches(
    job: Job, split: Split, augmentation: Augmentation, **where: Any
) -> Iterator[dict[str, tf.Tensor]]:
    with naming_broken_images(split):
        yield from batches(
            split,
            augmentation=augmentation,
            batch_size=job.config.batch_size,
            replicas=job.assembly.steps.parts,
            share=process_of(job.assembly.steps.strategy),
            **where,
        )
