"""Models and weights from files."""

from __future__ import annotations

import warnings
from pathlib import Path

import keras

import cnnkit.layers  # noqa: F401  registers our layers for keras.saving
from cnnkit.errors import UsageError

SUFFIXES = (".keras", ".weights.h5")


def load_model(path: str | Path) -> keras.Model:
    """Loads a model that cnnkit or Keras saved.

    Args:
        path: A `.keras` file, or a run folder that holds `model.keras`.

    Raises:
        UsageError: If there is no such file, or it is no Keras model.

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
        return keras.saving.load_model(file, compile=False)
    except (ValueError, OSError, KeyError) as error:
        raise UsageError(
            f"{file} is no model that Keras can load", expected="a .keras file", received=error
        ) from error


def load_weights(model: keras.Model, weights: str | Path | None) -> keras.Model:
    """Fills `model` from a weights file and returns it; None leaves it as it is.

    Raises:
        UsageError: If the file is missing, of another kind, or does not fit the network.
    """
    if weights is None:
        return model
    file = Path(weights)
    if not file.name.endswith(SUFFIXES):
        raise UsageError(
            "Weights of an unknown kind",
            expected=f"None or a file that ends in {' or '.join(SUFFIXES)}",
            received=weights,
        )
    if not file.is_file():
        raise UsageError(f"No weights file {file}")
    try:
        with warnings.catch_warnings():
            # Keras only warns where it leaves a layer as it was.
            warnings.simplefilter("error", UserWarning)
            model.load_weights(file)
    except (ValueError, OSError, KeyError, UserWarning) as error:
        raise UsageError(
            f"The weights in {file} do not fit {model.name}", received=error
        ) from error
    return model
