"""Batches of the steps of a run: images, or outputs of the frozen layers in their place."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from cnnkit.data import batches, report_undecodable
from cnnkit.data.pipeline import epoch_order
from cnnkit.training.diagnostics import pixel_range_warnings
from cnnkit.training.distribute import process_index_and_count
from cnnkit.training.frozen import FrozenPart

if TYPE_CHECKING:
    from cnnkit.training.epoch import TrainingRun


def step_batches(
    run: TrainingRun,
    name: str,
    *,
    order: np.ndarray | None = None,
    epoch: int = 0,
    first_step: int = 0,
    is_whole: bool = False,
) -> Iterator[dict[str, tf.Tensor]]:
    """Return the batches of a split: images, or outputs of the frozen layers in their place.

    Args:
        run: The run.
        name: The split.
        order: Order of the images; None is their own.
        epoch: The epoch, whose augmentation the images get.
        first_step: Number of steps to skip.
        is_whole: Whether the batches are for the whole network.
    """
    split = run.dataset.splits[name]
    step_runner, part = run.components.step_runner, None if is_whole else run.frozen_part
    draw = epoch
    if name == "train" and run.config.augmentation_draws is not None:
        draw = (epoch - 1) % run.config.augmentation_draws + 1
    cut: dict[str, Any] = {
        "batch_size": run.config.batch_size,
        "replicas": step_runner.batch_divisor,
    }
    images: dict[str, Any] = {
        "augmentation": run.train_augmentation if name == "train" else run.held_out_augmentation,
        "seed": run.config.seed,
        "epoch": draw,
        "shard": process_index_and_count(step_runner.strategy),
    }
    place: dict[str, Any] = {"order": order, "first_step": first_step}
    with report_undecodable(split):
        if part is None:
            yield from batches(split, **images, **cut, **place)
        else:
            # The functions that read images are traced only where they are needed.
            if (name, draw) not in part.outputs:
                _compute_outputs(run, part, (name, draw), batches(split, **images, **cut))
            yield from part.batches((name, draw), split.labels, **cut, **place)


def training_batches(run: TrainingRun) -> Iterator[dict[str, tf.Tensor]]:
    """Return the batches of the training images, epoch after epoch without an end."""
    count = len(run.train_split)
    for epoch in itertools.count(1):
        order = epoch_order(count, run.config.seed, epoch)
        yield from step_batches(run, "train", order=order, epoch=epoch)


def _compute_outputs(
    run: TrainingRun, part: FrozenPart, key: tuple[str, int], images: tf.data.Dataset
) -> None:
    """Compute the outputs of the frozen layers for a split, if they are not known yet."""
    count = len(run.dataset.splits[key[0]])

    def progress(done: int) -> None:
        run.callbacks.on_frozen_outputs(key[0], done, count)
        run.request_stop(run.state.step)
        run.stop_if_requested()

    def warned() -> Iterator[dict[str, tf.Tensor]]:
        for number, batch in enumerate(images):
            if number == 0 and key == ("train", 1):
                for message in pixel_range_warnings(batch["images"]):
                    run.callbacks.on_message(message)
            yield batch

    part.compute(key, warned(), progress)
