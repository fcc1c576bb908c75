"""Weights that others made, as a network of ours in one file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import keras

from cnnkit._files import staged_file
from cnnkit.errors import UsageError
from cnnkit.models import WeightsFile, build
from cnnkit.models.weights.output_fingerprint import write_fingerprint


def convert_weights(
    file: WeightsFile, network: str, output: str | Path, *, overwrite: bool = False, **options: Any
) -> keras.Model:
    """Writes a network with the weights of `file` as a `.keras` file.

    The file holds the network, its weights, its preprocessing, its class names, and what it answers
    to one fixed image: `load_model` and every builder's `weights` argument compare the answer.

    Args:
        file: What `open_weights` returned.
        network: Name of the network, as `build` takes it.
        output: The new file, whose name ends in `.keras`.
        overwrite: Whether `output` may exist.
        options: Arguments of the builder; the number of classes is the file's, and a file without
            dense layers gives a network without them.

    Returns:
        The network.

    Raises:
        UsageError: If the file does not fit the network, or `output` exists or has another ending.

    Example:
        >>> from cnnkit.models.weights.convert import convert_weights
        >>> from cnnkit.models import open_weights
        >>> convert_weights(open_weights("vgg16.pth"), "vgg16", "vgg16.keras").name  # doctest: +SKIP
        'vgg16'
    """
    output = Path(output)
    if output.suffix != ".keras":
        raise UsageError("A network is written as FILE.keras", received=output)
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists", hint="Remove it, or allow to overwrite it")
    model = build(network, weights=file, **{**_shape_of(file), **options})
    output.parent.mkdir(parents=True, exist_ok=True)
    with staged_file(output) as aside:
        model.save(aside)
        with zipfile.ZipFile(aside, "a") as archive:
            write_fingerprint(model, archive)
    return model


def _shape_of(file: WeightsFile) -> dict[str, Any]:
    head = file.classes
    return {"include_top": False} if head is None else {"classes": head}
