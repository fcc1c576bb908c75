"""From a configuration to a network with its optimizer."""

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
    """A network and what trains it.

    Attributes:
        model: The network.
        steps: Its steps of training and validation.
        build: Builds the same network with fresh weights.
    """

    model: keras.Model
    steps: StepRunner
    build: Callable[[], keras.Model]


def build_components(
    config: TrainingConfig,
    labels: Sequence[str],
    measured: Mapping[str, np.ndarray],
    strategy: tf.distribute.Strategy,
) -> TrainingComponents:
    """Builds the network of `config` and what trains it.

    Args:
        config: What is trained.
        labels: Names of the classes, which are saved with the network.
        measured: What `measure` returned.
        strategy: Where it runs.

    Raises:
        UsageError: If the configuration names something unknown, or weights that do not fit.
    """
    options = {
        **config.model_options,
        "classes": len(labels),
        "input_shape": (config.image_size, config.image_size, 3),
        "mean": measured["mean"].tolist(),
    }

    def build() -> keras.Model:
        model = models.build(config.model, **options)
        models.set_class_names(model, labels)
        if "std" in measured:
            model.get_layer("preprocessing").set(measured["mean"], measured["std"])
        return model

    with strategy.scope(), _seeded(config.seed), _computing_in(config.precision):
        model = build()
        optimizer = SGD(
            config.learning_rate,
            momentum=config.momentum,
            decay=config.weight_decay,
            weight_decay_on_biases=config.weight_decay_on_biases,
            lr_multipliers=config.lr_multipliers,
            weight_decay_multipliers=config.weight_decay_multipliers,
            max_filter_rms=config.max_filter_rms,
        )
        steps = StepRunner(
            model,
            optimizer,
            strategy,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            loss_scale=LossScale() if config.precision == "mixed_float16" else None,
            jit_compile=config.jit_compile,
        )
    return TrainingComponents(model, steps, build)


def save_model(config: TrainingConfig, assembly: TrainingComponents, path: Path) -> None:
    """Writes the network; it computes in float32 whatever it was trained in.

    Raises:
        RunError: If it cannot be written.
    """
    model = assembly.model
    if config.precision != "float32":
        with _computing_in("float32"):
            plain = assembly.build()
        plain.set_weights(model.get_weights())
        model = plain
    with staged_file(path) as aside:
        model.save(aside)


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


@contextmanager
def _computing_in(precision: str) -> Iterator[None]:
    """Sets Keras's policy for the layers that are made meanwhile; it is the caller's otherwise."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def load_initial_model(config: TrainingConfig) -> keras.Model:
    """Returns the network of `config.init_from`: of a run, of a model file, or of a weights file.

    A weights file of others becomes the network of `config` at its own size and classes; without
    dense layers in the file, without a head.

    Raises:
        UsageError: If there is no such network, or the file does not fit it.
    """
    path = Path(config.init_from or "")
    if path.is_dir() or path.suffix == ".keras" or not path.exists():
        return models.load_model(path)
    file = models.open_weights(path)
    shape = {"include_top": False} if file.classes is None else {"classes": file.classes}
    return models.build(config.model, weights=file, **{**config.model_options, **shape})


def initial_preprocessing(network: keras.Model, side: int) -> Preprocessing | None:
    """Returns what a network does to images of `side` pixels first, or None where that is unknown.

    A mean image of another size is its mean color.
    """
    for layer in network.layers:
        if isinstance(layer, SubtractMean):
            fits = layer.mean.ndim == 1 or layer.mean.shape[:2] == (side, side)
            mean = layer.mean if fits else layer.mean.mean(axis=(0, 1))
            return Preprocessing(mean, layer.std)
    return None


def initialize_from(
    first: keras.Model, config: TrainingConfig, model: keras.Model
) -> models.SurgeryResult:
    """Copies the weights of `first` into `model` by the rule of `config`.

    Raises:
        UsageError: If none of its weights fit.
    """
    copied = models.copy_weights(first, model, config.weight_mapping)
    if not copied.carried:
        raise UsageError(
            f"No weights of {config.init_from} fit {config.model}",
            expected="a network with layers of the same names and shapes",
        )
    return copied
