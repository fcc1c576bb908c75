"""Networks of an evaluation: single models or finished runs, and their score functions.

The score function of a network maps images to logits, one row per image and mirror image. A dense
network is applied at every position of an image, and its map of scores is averaged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from cnnkit.data import Dataset, Decoding, Split, load_dataset
from cnnkit.data.crops import fit_images
from cnnkit.data.multi_crop import CropSpec
from cnnkit.errors import DataError, UsageError
from cnnkit.evaluation.protocols import TestProtocol
from cnnkit.models import load_model, logits_tensor, to_fully_convolutional
from cnnkit.models.class_names import class_count
from cnnkit.models.localizer import class_part
from cnnkit.models.logits import output_activation
from cnnkit.models.surgery.sequential import as_sequential, spatial_maps
from cnnkit.run_folder import RunFolder
from cnnkit.training.inputs import held_out_augmentation

# Smallest normal number of float32, the lower limit of probabilities before their logarithm.
SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class EvaluatedModel:
    """A network and the scales at which it is tested.

    Attributes:
        name: Name in the results.
        model: A classifier, (n, h, w, 3) RGB 0..255 -> (n, classes).
        scales: Shorter sides of the rescaled image, in pixels.
        size: Side of its crops, in pixels.
        columns: Its outputs in the order of the evaluation's classes; None if the orders agree.
    """

    name: str
    model: keras.Model
    scales: tuple[int, ...]
    size: int
    columns: tuple[int, ...] | None = None

    def views(self, protocol: TestProtocol) -> list[CropSpec]:
        """Return the views of an image: crops at each scale, then whole images at each scale.

        Raises:
            UsageError: If a scale is smaller than the crops.
        """
        views = []
        if protocol.positions:
            positions, square = protocol.positions, protocol.central_square
            views += [CropSpec(scale, self.size, positions, square) for scale in self.scales]
        if protocol.dense:
            views += [CropSpec(scale) for scale in self.scales]
        return views


def evaluated_model(
    model: keras.Model,
    scales: Sequence[int] | None,
    name: str | None = None,
    own_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
) -> EvaluatedModel:
    """Return a model with the crops of its own input size.

    Args:
        model: A classifier of images of a fixed size. If they are no squares, a rectangle is cut
            from the center of a square of the longer side.
        scales: Shorter sides of the rescaled image; None for the longer side of the input.
        name: Name in the results; None for the name of the model.
        own_names: Class names of the model; None if they are those of the evaluation.
        class_names: Class names of the evaluation.

    Raises:
        UsageError: If the input size is not fixed, or the model has other classes.
    """
    model = class_part(model)
    _, height, width, *_ = model.input_shape
    if height is None or width is None:
        raise UsageError(
            f"Model {model.name!r} has no fixed input, so the size of its crops is unknown",
            expected="a model for images of one size",
            received=f"{height} x {width}",
            hint="Pass an EvaluatedModel with its size",
        )
    side = max(height, width)
    columns = None
    if own_names is not None and class_names is not None:
        if len(own_names) != class_count(model):
            raise UsageError(
                f"The classes of model {name or model.name!r} do not fit their names",
                expected=f"{class_count(model)} names",
                received=f"{len(own_names)}: {_first_few(own_names)}",
                hint="`own_names` takes others",
            )
        columns = _columns(own_names, class_names, name or model.name)
    return EvaluatedModel(name or model.name, model, tuple(scales or (side,)), side, columns)


def _columns(
    own_names: Sequence[str], class_names: Sequence[str], where: str
) -> tuple[int, ...] | None:
    """Return the outputs of a network in the order of the evaluation's classes; None if equal."""
    if tuple(class_names) == tuple(own_names):
        return None
    _check_unique(own_names, where)
    if set(class_names) != set(own_names):
        other = sorted(set(class_names) ^ set(own_names))
        raise UsageError(
            f"The networks have different classes: {where} differs from the first",
            expected=f"the same {len(class_names)} classes in every network",
            received=f"only one of them knows {_first_few(other)}",
        )
    return tuple(list(own_names).index(name) for name in class_names)


def evaluated_run(
    run: RunFolder, scales: Sequence[int] | None, class_names: Sequence[str]
) -> EvaluatedModel:
    """Return the trained network of a run.

    Args:
        run: A finished run.
        scales: Shorter sides of the rescaled image; None for the scale of the held-out images
            during training.
        class_names: Class names of the evaluation.

    Raises:
        UsageError: If the run has other classes.
        RunError: If the run is not finished.
    """
    model = class_part(load_model(run.finished_model(), preprocessing="raw"))
    augmentation = held_out_augmentation(run.config)
    columns = _columns(run.class_names, class_names, str(run.path))
    sides = tuple(scales or augmentation.scales[:1])
    return EvaluatedModel(str(run.path), model, sides, augmentation.image_size, columns)


def held_out_images(runs: Sequence[RunFolder], spec: str | None) -> tuple[Dataset, int]:
    """Open the dataset of an evaluation.

    Args:
        runs: Runs whose networks are evaluated; networks of files have none.
        spec: As `cnnkit.data.load_dataset` takes it; None for the dataset of the runs.

    Returns:
        The dataset, and the seed of its split.

    Raises:
        UsageError: If one run was trained on test images of another.
    """
    known = {run.config.dataset for run in runs}
    if spec is None and len(known) > 1:
        raise UsageError(
            f"The runs were trained on different datasets, {len(known)} of them",
            expected="`dataset`, the one to evaluate on",
            received=", ".join(sorted(known)),
        )
    spec = spec or known.pop()
    # The seed of the training splits a dataset that has no test split.
    seeds = {run.config.seed for run in runs} or {0}
    decodings = {Decoding.from_config(run.config) for run in runs} or {Decoding()}
    if len(decodings) > 1:
        raise UsageError(
            "`runs` must decode images in one way",
            expected="one background and one exif_orientation",
            received=f"{len(decodings)} ways",
        )
    [decoding] = decodings
    datasets = {seed: load_dataset(spec, seed=seed, decoding=decoding) for seed in seeds}
    # A dataset that was moved is recognized by its fingerprint.
    own = [
        run.config.seed
        for run in runs
        if run.config.dataset == spec
        or trained_fingerprint(run) == datasets[run.config.seed].fingerprint
    ]
    seed = own[0] if own else next((run.config.seed for run in runs), 0)
    if len({datasets[own_seed].fingerprint for own_seed in own}) > 1:
        raise UsageError(
            f"The runs held out different images of {spec}, by their different seeds: test images "
            "of one are training images of another",
            expected="runs of one `TrainingConfig.seed`, or a dataset with a test split of its own",
        )
    return datasets[seed], seed


def trained_fingerprint(run: RunFolder) -> str | None:
    """Return the fingerprint of the dataset that a run was trained on; None if it is not known."""
    fingerprint: str | None = run.environment.get("dataset", {}).get("fingerprint")
    return fingerprint


def runs_of_changed_dataset(runs: Sequence[RunFolder], dataset: Dataset) -> list[RunFolder]:
    """Return the runs that were trained on this dataset before it changed.

    Its test images may have been training images then.
    """
    return [
        run
        for run in runs
        if run.config.dataset == dataset.spec
        and trained_fingerprint(run) not in (None, dataset.fingerprint)
    ]


def align_classes(dataset: Dataset, class_names: Sequence[str]) -> Split:
    """Return the test images of a dataset with their classes numbered as in `class_names`.

    Raises:
        DataError: If a test image has a class that is not in `class_names`.
    """
    split = dataset.splits["test"]
    if tuple(class_names) == dataset.class_names:
        return split
    _check_unique(class_names, "the run")
    _check_unique(dataset.class_names, dataset.spec)
    # A class without test images may be unknown to the network.
    used = [dataset.class_names[label] for label in np.unique(split.labels)]
    missing = [label for label in used if label not in class_names]
    if missing:
        raise DataError(
            f"The classes of {dataset.spec} do not fit those of the network",
            expected=f"classes among its {len(class_names)}: {_first_few(class_names)}",
            received=f"{len(missing)} that it does not know: {_first_few(missing)}",
        )
    numbers = {label: number for number, label in enumerate(class_names)}
    lookup = np.array([numbers.get(label, -1) for label in dataset.class_names], np.int32)
    return dataclasses.replace(split, labels=lookup[split.labels])


def _check_unique(class_names: Sequence[str], where: str) -> None:
    twice = sorted({name for name in class_names if class_names.count(name) > 1})
    if twice:
        raise DataError(
            f"Classes are matched by their names, and {where} has several of one name",
            received=_first_few(twice),
        )


def _first_few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


def dense_network(member: EvaluatedModel) -> keras.Model:
    """Return the network as a fully convolutional one, for images of any size.

    Raises:
        UsageError: If the network cannot be converted, or a scale is too small for it.
    """
    model = member.model
    network = model if model.input_shape[1] is None else to_fully_convolutional(model)
    for layer in network.layers:
        mean = getattr(layer, "mean", None)
        if mean is not None and getattr(mean, "ndim", 1) > 1 and mean.shape[0] > 1:
            raise UsageError(
                f"The network {member.name} subtracts a mean image of {mean.shape[0]} x "
                f"{mean.shape[1]} pixels, which fits no larger image",
                expected="a network with a mean color for dense testing",
                hint="Test it with crops, or train it with `TrainingConfig.mean='dataset'`",
            )
    try:
        chain = as_sequential(network)
    except UsageError:
        return network
    for scale in member.scales:
        spatial_maps(chain, (scale, scale))
    return network


ScoreFunction = Callable[[tf.Tensor], tf.Tensor]


def score_function(network: keras.Model, *, flip: bool, average: str) -> ScoreFunction:
    """Return a graph function from images to the scores of the classes.

    Args:
        network: (n, h, w, 3) -> (n, classes), or (n, rows, columns, classes).
        flip: Whether to score the mirror images too.
        average: What is averaged over the positions of a map of scores: `"scores"` or
            `"probabilities"`.

    Returns:
        A function (n, h, w, 3) float32 -> (n, flips, classes) float32: logits, up to a constant
        for each row.
    """
    logits = _logits_function(network)

    def scores(images: tf.Tensor) -> tf.Tensor:
        values = logits(images)
        if values.shape.rank != 4:
            return values
        if average == "scores":
            return tf.reduce_mean(values, axis=(1, 2))
        return _log_mean_probability(values)

    def scores_of_flips(images: tf.Tensor) -> tf.Tensor:
        mirrored = [scores(tf.reverse(images, [2]))] if flip else []
        return tf.stack([scores(images), *mirrored], axis=1)

    return scores_of_flips


def _logits_function(network: keras.Model) -> ScoreFunction:
    """Return a function to the logits, or to the logarithms of the network's probabilities.

    A network with one output has two classes; those of sigmoids are divided by their sum.
    """
    by_sigmoid = output_activation(network) == "sigmoid"
    try:
        inner, fused = keras.Model(network.inputs[0], logits_tensor(network)), by_sigmoid
    except UsageError:
        inner, fused = network, True
    is_binary = class_count(network) != network.output_shape[-1]

    def logits(images: tf.Tensor) -> tf.Tensor:
        fitted = fit_images(images, network.input_shape[1:])
        values = tf.cast(inner(fitted, training=False), tf.float32)
        if is_binary:
            values = tf.concat([1 - values if fused else tf.zeros_like(values), values], axis=-1)
        # Log probabilities are the logits minus a constant, which a softmax ignores.
        return tf.math.log(tf.maximum(values, SMALLEST)) if fused else values

    return logits


def _log_mean_probability(scores: tf.Tensor) -> tf.Tensor:
    logs = tf.nn.log_softmax(scores)
    positions = tf.cast(tf.shape(scores)[1] * tf.shape(scores)[2], tf.float32)
    return tf.reduce_logsumexp(logs, axis=(1, 2)) - tf.math.log(positions)
