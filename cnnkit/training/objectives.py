"""What a training minimizes, and what it counts as right: of a classifier, and of a localizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from cnnkit._dataset_spec import missing_boxes
from cnnkit.config import TrainingConfig
from cnnkit.data.boxes import center_and_size, corners, overlap
from cnnkit.layers.class_boxes import BOX_VALUES, PER_CLASS

LOCALIZE = "localize"
# Intersection over union of a box that counts as right (Russakovsky et al. 2015, section 4.2).
MIN_OVERLAP = 0.5

# From the outputs (n, units) float32 and the batch to the losses and the right images, (n,) each.
Objective = Callable[[tf.Tensor, Mapping[str, tf.Tensor]], tuple[tf.Tensor, tf.Tensor]]


def objective_of(config: TrainingConfig, classes: int) -> Objective:
    """Return the objective of a configuration.

    Args:
        config: The configuration.
        classes: Number of classes.
    """
    if config.task != LOCALIZE:
        return classification

    def localize(outputs: tf.Tensor, batch: Mapping[str, tf.Tensor]) -> Any:
        return localization(outputs, batch, classes=classes, regression=config.box_regression)

    return localize


def classification(
    outputs: tf.Tensor, batch: Mapping[str, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the cross-entropy of the softmax of logits, and whether the largest is the label's.

    Args:
        outputs: (n, classes) float32.
        batch: {`labels`: (n,) int32}.
    """
    labels = batch["labels"]
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, outputs)
    predictions = tf.argmax(outputs, axis=-1, output_type=labels.dtype)
    return losses, tf.cast(predictions == labels, tf.float32)


def localization(
    outputs: tf.Tensor, batch: Mapping[str, tf.Tensor], *, classes: int, regression: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the loss of classes and boxes, and whether both are right.

    The loss is the cross-entropy of the classes plus half the squared Euclidean distance between
    the center, width and height of the box of the label's class and those of the largest object
    (Simonyan & Zisserman 2014, appendix A), as fractions of the side of the crop. An image is right
    if its class is, and the box overlaps that of one of its objects by half or more.

    Args:
        outputs: (n, units) float32: the logits, then the boxes.
        batch: {`labels`: (n,) int32; `boxes`: (n, m, 4), from `cnnkit.data.batches`}.
        classes: Number of classes.
        regression: `"per-class"` or `"single"`.
    """
    logits, labels, targets = outputs[:, :classes], batch["labels"], batch["boxes"]
    losses, is_class = classification(logits, batch)
    boxes = tf.reshape(outputs[:, classes:], (tf.shape(outputs)[0], -1, BOX_VALUES))
    chosen = labels if regression == PER_CLASS else tf.zeros_like(labels)
    box = tf.gather(boxes, chosen, batch_dims=1)
    distance = tf.reduce_sum(tf.square(box - center_and_size(targets[:, 0])), axis=-1)
    best = tf.reduce_max(overlap(corners(box)[:, None], targets), axis=-1)
    return losses + distance / 2, is_class * tf.cast(best >= MIN_OVERLAP, tf.float32)


def check_boxes(task: str, dataset: Any) -> None:
    """Check that a dataset has boxes if the task needs them.

    Raises:
        UsageError: If it has none.
    """
    if task == LOCALIZE and any(split.boxes is None for split in dataset.splits.values()):
        raise missing_boxes(dataset.spec)
