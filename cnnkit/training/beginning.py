"""The trained network that a training begins with."""

from __future__ import annotations

from pathlib import Path

import keras

from cnnkit import models
from cnnkit.config import TrainingConfig
from cnnkit.errors import UsageError
from cnnkit.layers import SubtractMean
from cnnkit.models.preprocessing import Preprocessing


def first_network(config: TrainingConfig) -> keras.Model:
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


def preprocessing_of(network: keras.Model, side: int) -> Preprocessing | None:
    """Returns what a network does to images of `side` pixels first, or None where that is unknown.

    A mean image of another size is its mean colour.
    """
    for layer in network.layers:
        if isinstance(layer, SubtractMean):
            fits = layer.mean.ndim == 1 or layer.mean.shape[:2] == (side, side)
            mean = layer.mean if fits else layer.mean.mean(axis=(0, 1))
            return Preprocessing(mean, layer.std)
    return None


def begin_from(first: keras.Model, config: TrainingConfig, model: keras.Model) -> models.Surgery:
    """Copies the weights of `first` into `model` by the rule of `config`.

    Raises:
        UsageError: If none of its weights fit.
    """
    copied = models.copy_weights(first, model, config.init_rule)
    if not copied.carried:
        raise UsageError(
            f"No weights of {config.init_from} fit {config.model}",
            expected="a network with layers of the same names and shapes",
        )
    return copied
