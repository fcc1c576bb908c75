"""The networks of an evaluation, and what each has to see of an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from cnnkit.data import Dataset, Split, load_dataset
from cnnkit.data.multi_crop import CropSpec
from cnnkit.errors import DataError, UsageError
from cnnkit.evaluation.protocols import TestProtocol
from cnnkit.models import load_model, logits_tensor, to_fully_convolutional
from cnnkit.models.surgery.sequential import as_sequential, spatial_maps
from cnnkit.run_folder import RunFolder
from cnnkit.training.inputs import held_out_augmentation

# The smallest probability that has a logarithm in float32.
SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class EvaluatedModel:
    """A network and how it is tested.

    Attributes:
        name: What its figures are listed under.
        model: A classifier, (n, h, w, 3) RGB 0..255 -> (n, classes).
        scales: Shorter sides of the rescaled image, in pixels.
        size: Side of the crops that it takes, in pixels.
        columns: Its outputs in the order of the evaluation's classes; None as they are.
    """

    name: str
    model: keras.Model
    scales: tuple[int, ...]
    size: int
    columns: tuple[int, ...] | None = None

    def views(self, protocol: TestProtocol) -> list[CropSpec]:
        """Returns what the network sees of an image: crops at each scale, then whole images.

        Raises:
            UsageError: If a scale is too small.
        """
        views = []
        if protocol.places:
            places, square = protocol.places, protocol.square
            views += [CropSpec(scale, self.size, places, square) for scale in self.scales]
        if protocol.dense:
            views += [CropSpec(scale) for scale in self.scales]
        return views


def evaluated_model(
    model: keras.Model, scales: Sequence[int] | None, name: str | None = None
) -> EvaluatedModel:
    """Returns a model as a member, at the size that it is made for.

    Raises:
        UsageError: If it takes images of any size, so that its crops are unknown.
    """
    _, height, width, *_ = model.input_shape
    if height is None or height != width:
        raise UsageError(
            f"Model {model.name!r} does not tell which size of square its crops have",
            expected="a model for images of one size, height equal to width",
            received=f"{height} x {width}",
            hint="Pass a Member with its size",
        )
    return EvaluatedModel(name or model.name, model, tuple(scales or (height,)), height)


def dense_network(member: EvaluatedModel) -> keras.Model:
    """Returns the network for images of any size.

    Raises:
        UsageError: If it cannot be made of the member's, or a scale is too small for it.
    """
    model = member.model
    network = model if model.input_shape[1] is None else to_fully_convolutional(model)
    for layer in network.layers:
        mean = getattr(layer, "mean", None)
        if getattr(mean, "ndim", 1) > 1 and mean.shape[0] > 1:
            raise UsageError(
                f"The network {member.name} subtracts a mean image of {mean.shape[0]} x "
                f"{mean.shape[1]} pixels, which fits no larger image",
                expected="a network with a mean color for dense testing",
                hint="Test it with crops, or train it with --mean dataset",
            )
    try:
        chain = as_sequential(network)
    except UsageError:
        return network
    for scale in member.scales:
        spatial_maps(chain, (scale, scale))
    return network


def score_function(network: keras.Model, *, flip: bool, average: str):
    """Returns a graph function from images to the scores of the classes.

    Args:
        network: (n, h, w, 3) -> (n, classes), or (n, rows, columns, classes).
        flip: Whether to look at the mirror images too.
        average: Of a map of scores, what is averaged over its positions: `"scores"` or
            `"probabilities"`.

    Returns:
        A function (n, h, w, 3) float32 -> (n, flips, classes) float32: logits, up to a constant
        for each look.
    """
    read = _reading(network)

    def scores(images):
        values = read(images)
        if values.shape.rank != 4:
            return values
        if average == "scores":
            return tf.reduce_mean(values, axis=(1, 2))
        return _log_mean_probability(values)

    def looks(images):
        mirrored = [scores(tf.reverse(images, [2]))] if flip else []
        return tf.stack([scores(images), *mirrored], axis=1)

    return looks


def _reading(network: keras.Model):
    """Returns the function that gives logits; of a softmax that cannot be taken off, logarithms."""
    try:
        inner, fused = keras.Model(network.input, logits_tensor(network)), False
    except UsageError:
        inner, fused = network, True

    def read(images):
        values = tf.cast(inner(images, training=False), tf.float32)
        # The logits less a constant, which no softmax sees.
        return tf.math.log(tf.maximum(values, SMALLEST)) if fused else values

    return read


def _log_mean_probability(scores: tf.Tensor) -> tf.Tensor:
    logs = tf.nn.log_softmax(scores)
    positions = tf.cast(tf.shape(scores)[1] * tf.shape(scores)[2], tf.float32)
    return tf.reduce_logsumexp(logs, axis=(1, 2)) - tf.math.log(positions)


def evaluated_run(
    run: RunFolder, scales: Sequence[int] | None, labels: Sequence[str]
) -> EvaluatedModel:
    """Returns the trained network of a run.

    Args:
        run: A finished run.
        scales: Shorter sides at which it is tested; None is the one at which the held-out images
            were seen in training.
        labels: Names of the evaluation's classes.

    Raises:
        UsageError: If the run knows other classes.
        RunError: If it is not finished.
    """
    model = load_model(run.finished_model())
    augmentation = held_out_augmentation(run.config)
    columns = None
    if tuple(labels) != run.labels:
        _check_unique(run.labels, str(run.path))
        if set(labels) != set(run.labels):
            other = sorted(set(labels) ^ set(run.labels))
            raise UsageError(
                f"The runs know different classes: {run.path} is not like the first",
                expected=f"the same {len(labels)} classes in every run",
                received=f"only one of them knows {_some(other)}",
            )
        columns = tuple(run.labels.index(label) for label in labels)
    sides = tuple(scales or augmentation.scales[:1])
    return EvaluatedModel(str(run.path), model, sides, augmentation.image_size, columns)


def held_out_images(runs: Sequence[RunFolder], spec: str | None) -> tuple[Dataset, int]:
    """Opens the dataset of an evaluation.

    Args:
        runs: Whose networks are evaluated.
        spec: As `cnnkit.data.load_dataset` takes it; None is the dataset of the runs.

    Returns:
        The dataset, and the seed of its split.

    Raises:
        UsageError: If the runs were trained on different images, so that those which one did not
            see were shown to another.
    """
    known = {run.config.dataset for run in runs}
    if spec is None and len(known) > 1:
        raise UsageError(
            "The runs were trained on different datasets",
            expected="--dataset SPEC, which names the one to evaluate on",
            received=", ".join(sorted(known)),
        )
    spec = spec or known.pop()
    # A dataset without a test split is split by the seed of the training.
    own = [run.config.seed for run in runs if run.config.dataset == spec]
    seeds = list(dict.fromkeys(own or [runs[0].config.seed]))
    sources = [load_dataset(spec, seed=seed) for seed in seeds]
    if len({source.fingerprint for source in sources}) > 1:
        raise UsageError(
            "The runs held out different images, by their different seeds: what one did not see "
            "was shown to another",
            expected="runs of one --seed, or a dataset with a test split of its own",
        )
    return sources[0], seeds[0]


def align_classes(source: Dataset, labels: Sequence[str]) -> Split:
    """Returns the test images of a dataset, their classes numbered as in `labels`.

    Raises:
        DataError: If a class of theirs is none of `labels`.
    """
    split = source.splits["test"]
    if tuple(labels) == source.class_names:
        return split
    _check_unique(labels, "the run")
    _check_unique(source.class_names, source.spec)
    # A class without a test image asks nothing of the network.
    shown = [source.class_names[label] for label in np.unique(split.labels)]
    missing = [label for label in shown if label not in labels]
    if missing:
        raise DataError(
            f"The classes of {source.spec} do not fit those of the network",
            expected=f"classes among its {len(labels)}: {_some(labels)}",
            received=f"{len(missing)} that it does not know: {_some(missing)}",
        )
    places = {label: number for number, label in enumerate(labels)}
    lookup = np.array([places.get(label, -1) for label in source.class_names], np.int32)
    return dataclasses.replace(split, labels=lookup[split.labels])


def _check_unique(labels: Sequence[str], where: str) -> None:
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise DataError(
            f"Classes are matched by their names, and {where} has several of one name",
            received=_some(twice),
        )


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:5]) + (" ..." if len(labels) > 5 else "")
