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
from cnnkit.config import TrainingConfig
from cnnkit.training.loss_scale import LossScale
from cnnkit.training.optimizer import SGD
from cnnkit.training.steps import Steps
from cnnkit.writing import written_aside


@dataclass(frozen=True)
class Assembly:
    """A network and what trains it.

    Attributes:
        model: The network.
        steps: Its steps of training and validation.
        build: Builds the same network with fresh weights.
    """

    model: keras.Model
    steps: Steps
    build: Callable[[], keras.Model]


def assemble(
    config: TrainingConfig,
    labels: Sequence[str],
    measured: Mapping[str, np.ndarray],
    strategy: tf.distribute.Strategy,
) -> Assembly:
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
        models.name_classes(model, labels)
        if "std" in measured:
            model.get_layer("preprocessing").set(measured["mean"], measured["std"])
        return model

    with strategy.scope(), _seeded(config.seed), _computing_in(config.precision):
        model = build()
        optimizer = SGD(
            config.learning_rate,
            momentum=config.momentum,
            decay=config.weight_decay,
            decay_biases=config.decay_biases,
            rate_multipliers=config.rate_multipliers,
            decay_multipliers=config.decay_multipliers,
            max_filter_rms=config.max_filter_rms,
        )
        steps = Steps(
            model,
            optimizer,
            strategy,
            accumulate=config.accumulate,
            loss_scale=LossScale() if config.precision == "mixed_float16" else None,
            jit_compile=config.jit_compile,
        )
    return Assembly(model, steps, build)


def save_model(config: TrainingConfig, assembly: Assembly, path: Path) -> None:
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
    with written_aside(path) as aside:
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
