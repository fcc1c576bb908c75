"""Build the network of a configuration with its optimizer, and initialize it from another."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from cnnkit import models
from cnnkit._files import staged_file
from cnnkit.config import TrainingConfig
from cnnkit.errors import UsageError
from cnnkit.layers import SubtractMean
from cnnkit.models.preprocessing import Preprocessing
from cnnkit.training.optimizer import SGD
from cnnkit.training.step import LossScale, StepRunner


@dataclass(frozen=True)
class TrainingComponents:
    """A network and its step runner.

    Attributes:
        model: The network.
        step_runner: Compiled steps of training and validation.
        build_model: Builds the same network with new weights.
    """

    model: keras.Model
    step_runner: StepRunner
    build_model: Callable[[], keras.Model]


def build_components(
    config: TrainingConfig,
    class_names: Sequence[str],
    statistics: Mapping[str, np.ndarray],
    strategy: tf.distribute.Strategy,
) -> TrainingComponents:
    """Build the network of a configuration, its optimizer and its step runner.

    Args:
        config: The configuration.
        class_names: Class names, which are saved with the network.
        statistics: Result of `compute_input_statistics`.
        strategy: The distribution strategy.

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
        model = models.build(config.model, **options)
        models.set_class_names(model, class_names)
        if "std" in statistics:
            model.get_layer("preprocessing").set_statistics(statistics["mean"], statistics["std"])
        return model

    with strategy.scope(), _seeded(config.seed), _dtype_policy(config.precision):
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
        step_runner = StepRunner(
            model,
            optimizer,
            strategy,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            loss_scale=LossScale() if config.precision == "mixed_float16" else None,
            jit_compile=config.jit_compile,
        )
    return TrainingComponents(model, step_runner, build_model)


def save_model(config: TrainingConfig, components: TrainingComponents, path: Path) -> None:
    """Save the network as a `.keras` file that computes in float32, whatever the precision.

    Raises:
        RunError: If the file cannot be written.
    """
    model = components.model
    if config.precision != "float32":
        with _dtype_policy("float32"):
            float32_model = components.build_model()
        float32_model.set_weights(model.get_weights())
        model = float32_model
    with staged_file(path) as staging:
        model.save(staging)


def load_initial_model(config: TrainingConfig) -> keras.Model:
    """Load the network of `config.init_from`.

    `init_from` is a run folder, a `.keras` file or a third-party weights file. A weights file is
    loaded into the network of `config` with the file's own input size and number of classes, or
    without a head if the file has no dense layers.

    Raises:
        UsageError: If `init_from` does not exist, or the file does not fit the network.
    """
    path = Path(config.init_from or "")
    if path.is_dir() or path.suffix == ".keras" or not path.exists():
        return models.load_model(path)
    file = models.open_weights(path)
    shape = {"include_top": False} if file.classes is None else {"classes": file.classes}
    return models.build(config.model, weights=file, **{**config.model_options, **shape})


def initial_preprocessing(model: keras.Model, image_size: int) -> Preprocessing | None:
    """Return the mean and the standard deviation that a network normalizes with.

    Args:
        model: The network.
        image_size: Side of the images that the mean is for; a mean image of another size is
            replaced by its mean color.

    Returns:
        The preprocessing, or None if the network has no `SubtractMean` layer.
    """
    for layer in model.layers:
        if isinstance(layer, SubtractMean):
            fits = layer.mean.ndim == 1 or layer.mean.shape[:2] == (image_size, image_size)
            mean = layer.mean if fits else layer.mean.mean(axis=(0, 1))
            return Preprocessing(mean, layer.std)
    return None


def initialize_from(
    initial_model: keras.Model, config: TrainingConfig, model: keras.Model
) -> models.SurgeryResult:
    """Copy the weights of `initial_model` into `model` according to `config.weight_mapping`.

    Raises:
        UsageError: If no weights fit.
    """
    copied = models.copy_weights(initial_model, model, config.weight_mapping)
    if not copied.copied:
        raise UsageError(
            f"No weights of {config.init_from} fit {config.model}",
            expected="a network with layers of the same names and shapes",
        )
    return copied


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
