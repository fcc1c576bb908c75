"""Conversion of third-party weights to a `.keras` model."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import keras

from cnnkit._staging import staged_file
from cnnkit.errors import UsageError
from cnnkit.models import WeightsFile, build
from cnnkit.models.loading import options_for_weights
from cnnkit.models.weights.output_fingerprint import write_fingerprint


def convert_weights(
    file: WeightsFile, network: str, output: str | Path, *, overwrite: bool = False, **options: Any
) -> keras.Model:
    """Save a network with the weights of `file` as a `.keras` file.

    The file contains the network, its weights, its preprocessing, its class names, and its output
    for one fixed image. `load_model` and the `weights` argument of every builder recompute and
    compare that output.

    Args:
        file: Result of `open_weights`.
        network: Name of the network, as `build` takes it.
        output: The new file, with the suffix `.keras`.
        overwrite: Whether `output` may exist.
        options: Arguments of the builder. The number of classes is that of the file; a file
            without dense layers gives a network without them.

    Returns:
        The network.

    Raises:
        UsageError: If the file does not fit the network, or `output` exists or has another suffix.

    Example:
        >>> from cnnkit.models.weights.convert import convert_weights
        >>> from cnnkit.models import open_weights
        >>> weights = open_weights("vgg16.pth")  # doctest: +SKIP
        >>> convert_weights(weights, "vgg16", "vgg16.keras").name  # doctest: +SKIP
        'vgg16'
    """
    output = Path(output)
    if output.suffix != ".keras":
        raise UsageError("`output` must end in .keras", expected="FILE.keras", received=output)
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists", hint="Remove it, or give `overwrite=True`")
    model = build(network, weights=file, **options_for_weights(file, options))
    output.parent.mkdir(parents=True, exist_ok=True)
    with staged_file(output) as aside:
        model.save(aside)
        with zipfile.ZipFile(aside, "a") as archive:
            write_fingerprint(model, archive)
    return model
