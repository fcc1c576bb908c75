"""Models from files, and the `weights` argument of every builder."""

from __future__ import annotations

import os
from pathlib import Path

import keras

import cnnkit.layers  # noqa: F401  registers our layers for keras.saving
from cnnkit.errors import UsageError
from cnnkit.models.weights.assign import assign_weights, defer_initializers, restore_initializers
from cnnkit.models.weights.download import IMAGENET, download_imagenet_weights
from cnnkit.models.weights.open import open_weights
from cnnkit.models.weights.output_fingerprint import check_fingerprint
from cnnkit.models.weights.weights_file import WeightsFile

Weights = str | os.PathLike | WeightsFile | None


def load_model(path: str | Path) -> keras.Model:
    """Loads a model that cnnkit or Keras saved.

    A file that `cnnkit weights convert` wrote keeps what its network answered then; the loaded
    model is compared with it.

    Args:
        path: A `.keras` file, or a run folder that holds `model.keras`.

    Raises:
        UsageError: If there is no such file, or it is no Keras model.
        RunError: If the model does not answer as when it was converted.

    Example:
        >>> from cnnkit import load_model
        >>> load_model("runs/demo").name  # doctest: +SKIP
        'alexnet'
    """
    path = Path(path)
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"No model at {path}", expected="a .keras file or a run folder")
    try:
        model = keras.saving.load_model(file, compile=False)
    except (ValueError, OSError, KeyError) as error:
        raise UsageError(
            f"{file} is no model that Keras can load", expected="a .keras file", received=error
        ) from error
    check_fingerprint(model, file)
    return model


def find_weights(
    weights: Weights, network: str | None = None, *, include_top: bool = True, classes: int = 1000
) -> WeightsFile | None:
    """Opens what a builder's `weights` argument names: None, a file, or `"imagenet"`.

    Raises:
        UsageError: If there is no such file, or it is of no known kind.
        RunError: If the ImageNet weights cannot be downloaded.
    """
    if weights is None or isinstance(weights, WeightsFile):
        return weights
    if weights == IMAGENET:
        return download_imagenet_weights(network, include_top=include_top, classes=classes)
    return open_weights(weights)


def initializer_arguments(options: dict, file: WeightsFile | None) -> dict:
    """Returns a layer's initializer arguments; without random numbers where a file fills it."""
    return options if file is None else defer_initializers(options)


def with_weights(
    model: keras.Model, file: WeightsFile | None, *, keep_mean: bool = False
) -> keras.Model:
    """Fills a network that was built with `initial`, and returns it.

    Raises:
        UsageError: If the file does not fit the network.
        RunError: If the network does not answer as when the file was converted.
    """
    if file is None:
        return model
    assign_weights(model, file, keep_mean=keep_mean)
    restore_initializers(model)
    if not keep_mean:
        check_fingerprint(model, file.path)
    return model
