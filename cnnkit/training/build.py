"""Build the network of a configuration with its optimizer, and initialize it from another."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cnnkit import models
from cnnkit._network_options import check_trained_options
from cnnkit._staging import staged_file
from cnnkit._untrusted.damage import damage_as_error
from cnnkit._untrusted.zip_archives import open_zip
from cnnkit.config import TrainingConfig
from cnnkit.errors import DataError, UsageError
from cnnkit.layers import SubtractMean
from cnnkit.models.loading import expected_of_file, options_for_weights
from cnnkit.models.localizer import build_localizer, start_boxes
from cnnkit.models.model_input import measured_preprocessing
from cnnkit.models.preprocessing import UNKNOWN, Preprocessing, override_preprocessing
from cnnkit.models.surgery.sequential import layers_with_weights
from cnnkit.models.weights.download import download_imagenet_weights
from cnnkit.run_folder import RunFolder, names_imagenet
from cnnkit.training.distribute import process_index_and_count
from cnnkit.training.frozen import MAX_OUTPUT_BYTES, FrozenPart, frozen_layers, split_frozen
from cnnkit.training.objectives import LOCALIZE, objective_of
from cnnkit.training.optimizer import SGD
from cnnkit.training.step import LossScale, StepRunner


@dataclass(frozen=True)
class TrainingComponents:
    """A network and its step runner.

    Attributes:
        model: The network.
        step_runner: Compiled steps of training and validation.
        build_model: Builds the same network with new weights.
        frozen_part: The layers whose outputs the steps take in place of images, or None.
    """

    model: keras.Model
    step_runner: StepRunner
    build_model: Callable[[], keras.Model]
    frozen_part: FrozenPart | None = None

    def float32_model(self) -> keras.Model:
        """Return a copy of the network that computes in float32.

        Its variables belong to the strategy in whose scope it is called.
        """
        with _dtype_policy("float32"):
            model = self.build_model()
        model.set_weights(self.model.get_weights())
        return model


# Hidden dense layers of the networks.
HIDDEN_LAYERS = ("fc6", "fc7", "fc1", "fc2")
# Class names that a message lists at most.
LISTED_CLASSES = 3


def check_model_options(config: TrainingConfig) -> None:
    """Check the network and the options of a configuration, before anything slow is done.

    Raises:
        UsageError: If there is no such network or option, a value is out of range, or training
            decides the option itself.
    """
    models.check_options(config.model, config.model_options)
    check_trained_options(config.model_options, begins_trained=config.init_from is not None)


def build_components(
    config: TrainingConfig,
    class_names: Sequence[str],
    statistics: Mapping[str, np.ndarray],
    strategy: tf.distribute.Strategy,
    *,
    images: int = 0,
) -> TrainingComponents:
    """Build the network of a configuration, its optimizer and its step runner.

    Args:
        config: The configuration.
        class_names: Class names, which are saved with the network.
        statistics: Result of `compute_input_statistics`.
        strategy: The distribution strategy.
        images: Number of images whose outputs of frozen layers would be kept in memory.

    Raises:
        UsageError: If the configuration contains an unknown name, or weights that do not fit.
    """
    options = {
        **config.model_options,
        "classes": len(class_names),
        "input_shape": (config.image_size, config.image_size, 3),
        "mean": statistics["mean"].tolist(),
    }

    def build_model() -> keras.Model:
        with _seeded(config.seed):
            model = (
                build_localizer(config.model, class_names, config.box_regression, options)
                if config.task == LOCALIZE
                else models.build(config.model, **options)
            )
        models.set_class_names(model, class_names)
        if "std" in statistics:
            _set_statistics(model, statistics)
        return model

    with strategy.scope(), _dtype_policy(config.precision):
        model = build_model()
        optimizer = SGD(
            config.learning_rate,
            momentum=config.momentum,
            decay=config.weight_decay,
            weight_decay_on_biases=config.weight_decay_on_biases,
            lr_multipliers=config.lr_multipliers,
            weight_decay_multipliers=config.weight_decay_multipliers,
            max_filter_rms=config.max_filter_rms,
        )
        frozen = frozen_layers(model, config.freeze)
        part = None
        if config.augmentation_draws is not None and process_index_and_count(strategy)[1] == 1:
            part = split_frozen(model, frozen)
        if part is not None and images * part.bytes_per_image > MAX_OUTPUT_BYTES:
            part = None
        step_runner = StepRunner(
            model,
            optimizer,
            strategy,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            loss_scale=LossScale() if config.precision == "mixed_float16" else None,
            jit_compile=config.jit_compile,
            frozen=frozen,
            rest=None if part is None else part.rest,
            objective=objective_of(config, len(class_names)),
        )
    return TrainingComponents(model, step_runner, build_model, part)


def save_model(config: TrainingConfig, components: TrainingComponents, path: Path) -> None:
    """Save the network as a `.keras` file that computes in float32, whatever the precision.

    Raises:
        RunError: If the file cannot be written.
    """
    model = components.model if config.precision == "float32" else components.float32_model()
    with staged_file(path) as staging:
        model.save(staging)


def is_whole_model(path: Path) -> bool:
    """Return whether all bytes of a `.keras` file are those that were written."""
    try:
        with open_zip(path) as archive, damage_as_error(path):
            return archive.testzip() is None
    except DataError:
        return False


def load_initial_model(config: TrainingConfig) -> keras.Model:
    """Load the network of `config.init_from`.

    `init_from` is a run folder, a `.keras` file, a weights file of others, or `imagenet`. A weights
    file is loaded into the network of `config` with the file's own input size and number of
    classes, or without a head if the file has no dense layers. Those of ImageNet are downloaded
    without dense layers if the network omits one.

    Raises:
        UsageError: If `init_from` does not exist, or the file does not fit the network.
        RunError: If the ImageNet weights cannot be downloaded.
    """
    if names_imagenet(config.init_from):
        omitted = {*config.model_options.get("omit_layers", ())}
        downloaded = download_imagenet_weights(
            config.model, include_top=omitted.isdisjoint(HIDDEN_LAYERS), **config.init_options
        )
        return models.build(
            config.model,
            weights=downloaded,
            **options_for_weights(downloaded, config.model_options),
        )
    path = Path(config.init_from or "")
    if path.is_dir() or not path.exists():
        return models.load_model(path)
    stated = dict(config.init_options)
    if path.suffix == ".keras":
        expected = expected_of_file(path)
        _check_pixels_are_known(path, expected, stated)
        given = None
        if stated:
            given = override_preprocessing(expected, stated.pop("preprocessing", None), **stated)
        model = models.load_model(path, preprocessing=given)
        inside = measured_preprocessing(model)
        is_nested = any(isinstance(layer, keras.Model) and layer.weights for layer in model.layers)
        if not is_nested and (inside is None or inside.channels == "RGB"):
            return model
    # The layers of inner models, and a first kernel in RGB order, as the network to train has them.
    file = models.open_weights(path, **config.init_options)
    _check_pixels_are_known(path, file.preprocessing, config.init_options)
    return models.build(
        config.model, weights=file, **options_for_weights(file, config.model_options)
    )


def _check_pixels_are_known(
    path: Path, preprocessing: Preprocessing, stated: Mapping[str, Any]
) -> None:
    if preprocessing.origin == UNKNOWN and not stated:
        raise UsageError(
            f"`init_options` must say what pixels {path} expects",
            expected="`preprocessing=caffe`, torch, tf, unit or raw",
            received=preprocessing.reason or "nothing in the file",
        )


def initial_preprocessing(model: keras.Model, image_size: int) -> Preprocessing | None:
    """Return the mean and the standard deviation that a network normalizes with.

    Args:
        model: The network.
        image_size: Side of the images that the mean is for; a mean image of another size is
            replaced by its mean color.

    Returns:
        The preprocessing, or None if the network has none.
    """
    for layer in model.layers:
        if isinstance(layer, SubtractMean):
            fits = layer.mean.ndim == 1 or layer.mean.shape[:2] == (image_size, image_size)
            mean = layer.mean if fits else layer.mean.mean(axis=(0, 1))
            return Preprocessing(mean, layer.std)
    return measured_preprocessing(model)


def _set_statistics(model: keras.Model, statistics: Mapping[str, np.ndarray]) -> None:
    """Give a network the mean and the deviation of the one that it begins with.

    Raises:
        UsageError: If it normalizes by layers of its own, and in another way.
    """
    mean, std = statistics["mean"], statistics["std"]
    for layer in model.layers:
        if isinstance(layer, SubtractMean):
            layer.set_statistics(mean, std)
            return
    own = measured_preprocessing(model)
    if own is None or not all(
        np.allclose(*pair, rtol=1e-4, atol=1e-3) for pair in ((own.mean, mean), (own.std, std))
    ):
        raise UsageError(
            f"{model.name} must normalize images as `init_from` does, and has no layer "
            "`preprocessing` to do it",
            expected=f"mean {mean.tolist()}, deviation {std.tolist()}",
            received=None if own is None else f"mean {own.mean}, deviation {own.std}",
        )


def initialize_from(
    initial_model: keras.Model, config: TrainingConfig, model: keras.Model
) -> models.SurgeryResult:
    """Copy the weights of `initial_model` into `model` according to `config.weight_mapping`.

    Raises:
        UsageError: If no weights fit.
    """
    has_new_classifier = config.weight_mapping == "new-classifier"
    rule = "features" if has_new_classifier else config.weight_mapping
    copied = models.copy_weights(initial_model, model, rule)
    if not copied.copied:
        raise UsageError(
            f"No weights of {config.init_from} fit {config.model}",
            expected="a network with layers of the same names and shapes",
        )
    if has_new_classifier:
        classifier = layers_with_weights(model.layers)[-1]
        others = ", ".join(name for name in copied.reinitialized if name != classifier.name)
        if others:
            raise UsageError(
                f"The weights of {config.init_from} do not fit {others} of {config.model}",
                expected="the network that they were trained in, with the same image size",
                hint="`model`, `model_options` and `image_size` describe it",
            )
        # Random weights would answer at random where the training images say nothing.
        classifier.set_weights([np.zeros(weight.shape) for weight in classifier.weights])
        start_boxes(model)
    return copied


def initialization_messages(
    initial_model: keras.Model,
    config: TrainingConfig,
    copied: models.SurgeryResult,
    class_names: Sequence[str],
) -> list[str]:
    """Return what `initialize_from` did, one sentence each.

    An output layer that fits by its shape may be of other classes, which is said by their names.

    Args:
        initial_model: The network whose weights were read.
        config: The configuration.
        copied: Result of `initialize_from`.
        class_names: Names of the classes of the dataset.
    """
    origin, after = config.init_from, tuple(class_names)
    messages = [f"weights of {origin} in {', '.join(copied.copied)}"]
    if copied.reinitialized:
        messages.append(f"new weights in {', '.join(copied.reinitialized)}")
    run = RunFolder(Path(origin or ""))
    before = run.class_names if run.exists() else models.class_names(initial_model)
    head = layers_with_weights(copied.model.layers)[-1].name
    if head not in copied.copied or before == after:
        return messages
    if before is None:
        messages.append(
            f"{head} begins with weights of {origin}, whose classes have no names: make sure that "
            f"they are {_listed(after)} in this order"
        )
    else:
        what = "in another order" if set(before) == set(after) else "others"
        messages.append(
            f"{head} begins with weights of {origin}, whose classes are {what}: {_listed(before)} "
            f"there, {_listed(after)} here; `weight_mapping='features'` gives {head} new weights"
        )
    return messages


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:LISTED_CLASSES])
    return f"{shown} ..." if len(names) > LISTED_CLASSES else shown


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the generator that Keras draws the seeds of initializers and dropout from.

    Keras 3.15 draws them from Python's global generator; its state is restored afterwards.
    """
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


@contextmanager
def _dtype_policy(precision: str) -> Iterator[None]:
    """Set Keras's global dtype policy for a block, then restore it."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
