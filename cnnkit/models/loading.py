"""Load models, and open the `weights` argument of the builders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

import cnnkit.layers  # noqa: F401  registers our layers for keras.saving
from cnnkit.errors import UsageError
from cnnkit.models.preprocessing import (
    FILE,
    Preprocessing,
    override_preprocessing,
    warn_if_assumed,
)
from cnnkit.models.weights.assign import assign_weights, defer_initializers, restore_initializers
from cnnkit.models.weights.download import IMAGENET, download_imagenet_weights
from cnnkit.models.weights.open import open_weights
from cnnkit.models.weights.output_fingerprint import check_fingerprint
from cnnkit.models.weights.weights_file import WeightsFile

HOW_TO_STATE = "preprocessing=, --preprocessing or, with --init-from, --init-option says otherwise."
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
    # Keras raises errors of many kinds for classes that it does not know and for files of Keras 2.
    except (
        ValueError,
        OSError,
        KeyError,
        TypeError,
        AttributeError,
        ImportError,
        RuntimeError,
    ) as e:
        raise UsageError(
            f"{file} is not a model that Keras can load",
            expected="a .keras file of Keras 3, whose own classes are imported and registered",
            received=(str(e).strip() or type(e).__name__).splitlines()[0],
            hint="Register your layers by keras.saving.register_keras_serializable",
        ) from e
    check_fingerprint(model, file)
    return model


def find_weights(
    weights: Weights,
    network: str | None = None,
    *,
    include_top: bool = True,
    classes: int = 1000,
    mean: Sequence[float] | np.ndarray | None = None,
    preprocessing: str | Preprocessing | None = None,
) -> WeightsFile | None:
    """Open the `weights` argument of a builder: None, a file, or `"imagenet"`.

    A warning tells when a convention, not the file or an argument, decides about the preprocessing.

    Args:
        weights: The argument.
        network: Name of the network in keras.applications, for `"imagenet"`.
        include_top: Whether the network has its dense head.
        classes: Number of classes.
        mean: Mean of the builder, in place of that of the file.
        preprocessing: Preprocessing of the builder, in place of that of the file.

    Raises:
        UsageError: If there is no such file, or its kind is unknown.
        RunError: If the ImageNet weights cannot be downloaded.
    """
    if weights is None:
        return None
    if not isinstance(weights, (str, os.PathLike, WeightsFile)) or not weights:
        raise UsageError(
            "`weights` must be None, a file or what `open_weights` returned", received=repr(weights)
        )
    # Checked before a file is opened.
    override_preprocessing(Preprocessing(), preprocessing, mean=mean)
    if isinstance(weights, WeightsFile):
        found = weights
    elif weights == IMAGENET:
        found = download_imagenet_weights(network, include_top=include_top, classes=classes)
    else:
        found = open_weights(Path(weights))
    changed = override_preprocessing(found.preprocessing, preprocessing, mean=mean)
    warn_if_assumed(changed, found.path, HOW_TO_STATE)
    return replace(found, preprocessing=changed)


def options_for_weights(file: WeightsFile, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a builder with the number of classes of a weights file.

    Args:
        file: The weights. A file without dense layers is of a network without them.
        options: Options of the builder.

    Raises:
        UsageError: If an option contradicts the file.
    """
    head = {"include_top": False} if file.classes is None else {"classes": file.classes}
    for name, value in head.items():
        if options.get(name, value) != value:
            raise UsageError(
                f"`{name}` must be that of {file.path}, {value}", received=options[name]
            )
    return {**options, **head}


def initializer_arguments(options: dict[str, Any], file: WeightsFile | None) -> dict[str, Any]:
    """Return the initializer arguments of a layer, without random numbers if a file fills it."""
    return options if file is None else defer_initializers(options)


def with_weights(model: keras.Model, file: WeightsFile | None) -> keras.Model:
    """Assign the weights of a file to a model built with `initializer_arguments`, and return it.

    Raises:
        UsageError: If the file does not fit the model.
        RunError: If the outputs differ from those at conversion.
    """
    if file is None:
        return model
    assign_weights(model, file)
    restore_initializers(model)
    if file.preprocessing.origin == FILE:
        check_fingerprint(model, file.path)
    return model
