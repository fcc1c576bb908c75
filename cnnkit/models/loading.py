"""Load models, and open the `weights` argument of the builders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras

import cnnkit.layers  # noqa: F401  registers our layers for keras.saving
from cnnkit.errors import UsageError
from cnnkit.models.weights.assign import assign_weights, defer_initializers, restore_initializers
from cnnkit.models.weights.download import IMAGENET, download_imagenet_weights
from cnnkit.models.weights.open import open_weights
from cnnkit.models.weights.output_fingerprint import check_fingerprint
from cnnkit.models.weights.weights_file import WeightsFile

Weights = str | os.PathLike[str] | WeightsFile | None


def load_model(path: str | Path) -> keras.Model:
    """Load a model that cnnkit or Keras saved.

    A file from `cnnkit weights convert` holds outputs of its network, with which the outputs of the
    loaded model are compared.

    Args:
        path: A `.keras` file, or a run folder that holds `model.keras`.

    Raises:
        UsageError: If there is no such file, or it is not a Keras model.
        RunError: If the outputs differ from those at conversion.

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
            f"{file} is not a model that Keras can load", expected="a .keras file", received=error
        ) from error
    check_fingerprint(model, file)
    return model


def find_weights(
    weights: Weights, network: str | None = None, *, include_top: bool = True, classes: int = 1000
) -> WeightsFile | None:
    """Open the `weights` argument of a builder: None, a file, or `"imagenet"`.

    Args:
        weights: The argument.
        network: Name of the network in keras.applications, for `"imagenet"`.
        include_top: Whether the network has its dense head.
        classes: Number of classes.

    Raises:
        UsageError: If there is no such file, or its kind is unknown.
        RunError: If the ImageNet weights cannot be downloaded.
    """
    if weights is None or isinstance(weights, WeightsFile):
        return weights
    if not isinstance(weights, (str, os.PathLike)) or not os.fspath(weights):
        raise UsageError(
            "`weights` must be None, a file or what `open_weights` returned", received=repr(weights)
        )
    if weights == IMAGENET:
        return download_imagenet_weights(network, include_top=include_top, classes=classes)
    return open_weights(Path(weights))


def initializer_arguments(options: dict[str, Any], file: WeightsFile | None) -> dict[str, Any]:
    """Return the initializer arguments of a layer, without random numbers if a file fills it."""
    return options if file is None else defer_initializers(options)


def with_weights(
    model: keras.Model, file: WeightsFile | None, *, keep_mean: bool = False
) -> keras.Model:
    """Assign the weights of a file to a model built with `initializer_arguments`, and return it.

    Args:
        model: The model.
        file: The file; None leaves the model unchanged.
        keep_mean: Whether the model keeps its own mean.

    Raises:
        UsageError: If the file does not fit the model.
        RunError: If the outputs differ from those at conversion.
    """
    if file is None:
        return model
    assign_weights(model, file, keep_mean=keep_mean)
    restore_initializers(model)
    if not keep_mean:
        check_fingerprint(model, file.path)
    return model
