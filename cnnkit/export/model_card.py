"""Model card and assets of an exported version."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from cnnkit._export_formats import LABELS, PREPROCESSING
from cnnkit._files import join_lines, json_text
from cnnkit.data import Augmentation, Decoding
from cnnkit.errors import escape_controls, truncate
from cnnkit.export.classifier import ServedClassifier
from cnnkit.export.image_header import ImageLimits
from cnnkit.export.reference_outputs import CREDIT
from cnnkit.wire.pixels import LARGEST_PIXEL, LEAST_PIXEL

# Characters of a name in the model card, at most.
_MAX_NAME = 500
# What Markdown and GitHub read as markup in running text: code, emphasis, links, HTML, tables,
# formulas, addresses. An underscore inside a word is none.
_MARKUP = re.compile(r"[\\`*\[\]<>|#~$&!@]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.")


@dataclass(frozen=True)
class Origin:
    """Where a network comes from.

    Attributes:
        source: The run folder or the file, in words.
        dataset: What it was trained on, or None if unknown.
        epochs: Epochs of training, or None if unknown.
        error: Top-1 error on held-out images, 0..1, or None if it was not measured.
    """

    source: str | None = None
    dataset: str | None = None
    epochs: int | None = None
    error: float | None = None


def describe_preprocessing(
    network: ServedClassifier,
    augmentation: Augmentation,
    limits: ImageLimits,
    decoding: Decoding,
) -> dict[str, Any]:
    """Returns the preprocessing of an exported network as the content of `preprocessing.json`.

    Args:
        network: The classifier.
        augmentation: Rescaling and crop of encoded images.
        limits: Sizes that are refused.
        decoding: Background and orientation of encoded images.
    """
    inside = network.preprocessing
    scale, _ = augmentation.scales
    return {
        "network": network.model.name,
        "dtype": network.dtype,
        "images": "RGB, 0..255, float32, (n, height, width, 3)",
        "side": network.image_size,
        "free_size": network.variable_size,
        "shorter_side_before_crop": scale,
        # The spelling of version 0.1.0: programs that read the file compare the value.
        "crop": "centre",
        "resize": "bilinear" if augmentation.fast_decode else "bilinear, antialiased",
        "background": decoding.background,
        "exif_orientation": decoding.exif_orientation,
        "mean": None if inside is None else _mean_color(inside.mean),
        "std": None if inside is None or inside.std is None else _mean_color(inside.std),
        "features_layer": network.features_layer,
        "limits": dataclasses.asdict(limits),
    }


def write_assets(
    folder: Path, labels: Sequence[str], preprocessing: Mapping[str, Any]
) -> list[Path]:
    """Writes `labels.txt` and `preprocessing.json` into a folder.

    Returns:
        The paths of both files.
    """
    labels_file, preprocessing_file = folder / LABELS, folder / PREPROCESSING
    labels_file.write_text(join_lines(labels), encoding="utf-8")
    preprocessing_file.write_text(json_text(preprocessing, indent=2) + "\n")
    return [labels_file, preprocessing_file]


def write_card(
    folder: Path,
    name: str,
    network: ServedClassifier,
    labels: Sequence[str],
    preprocessing: Mapping[str, Any],
    signatures: Mapping[str, tf.types.experimental.ConcreteFunction],
    origin: Origin,
) -> None:
    """Writes the model card, README.md, into a version folder.

    Args:
        folder: The version folder.
        name: The model's name on the server.
        network: The classifier.
        labels: Names of the classes.
        preprocessing: Content of `preprocessing.json`.
        signatures: The traced functions by signature.
        origin: Where the network comes from.
    """
    source = plain_text(origin.source or "memory")
    word = shlex.quote(escape_controls(name))
    lines = [
        f"# {plain_text(name)}",
        "",
        f"A SavedModel for TensorFlow Serving, written by cnnkit from {source}.",
        "",
        *facts_table(network, labels, origin),
        "",
        "## Preprocessing",
        "",
        *preprocessing_text(network, preprocessing, served=True),
        "",
        "## Signatures",
        "",
        "| signature | takes | answers |",
        "|---|---|---|",
        *(_signature_row(signature, function) for signature, function in signatures.items()),
        "",
        *_limits_text(network, preprocessing),
        "",
        "## Commands",
        "",
        "```",
        f"cnnkit export verify models/{word}",
        f"cnnkit serve models/{word} --port 8500",
        f"cnnkit query IMAGE --server localhost:8500 --model {word}",
        "```",
        "",
        CREDIT,
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def facts_table(network: ServedClassifier, labels: Sequence[str], origin: Origin) -> list[str]:
    """Returns the table of a model card: network, classes, dataset and error.

    Args:
        network: The classifier.
        labels: Names of the classes.
        origin: Where the network comes from.
    """
    model = network.model
    shown = ", ".join(map(plain_text, labels[:10])) + (", ..." if len(labels) > 10 else "")
    trained = plain_text(origin.dataset or "not recorded")
    if origin.epochs is not None:
        trained += f", {origin.epochs} epochs"
    error = "not measured" if origin.error is None else f"{100 * origin.error:.2f} %"
    return [
        "| | |",
        "|---|---|",
        f"| network | {plain_text(model.name)}, {model.count_params():,} parameters, "
        f"{network.dtype} |",
        f"| classes | {len(labels)}: {shown} |",
        f"| trained on | {trained} |",
        f"| top-1 error on held-out images | {error} |",
    ]


def preprocessing_text(
    network: ServedClassifier, preprocessing: Mapping[str, Any], *, served: bool
) -> list[str]:
    """Returns in words what is done to images, outside and inside of the network.

    Args:
        network: The classifier.
        preprocessing: Content of `preprocessing.json`.
        served: Whether the exported graph itself decodes image files and checks numbers.
    """
    side = network.image_size
    mean, std = preprocessing["mean"], preprocessing["std"]
    sizes = f"any height and width from {side} on" if network.variable_size else f"{side} x {side}"
    normalization = (
        f"subtracts {mean}" if mean is not None else "does what its first layers do"
    ) + (f" and divides by {std}" if std is not None else "")
    webp = " WebP files need a server on TensorFlow 2.20 or newer." if served else ""
    refused = f" NaN and values outside of {LEAST_PIXEL:g} to {LARGEST_PIXEL:g} are refused."
    return [
        f"Encoded images: the shorter side becomes {preprocessing['shorter_side_before_crop']} "
        f"pixels ({preprocessing['resize']}), the center of {side} x {side} is taken.{webp}",
        _decoding_text(preprocessing),
        f"Images as numbers: RGB in 0..255, {sizes}.{refused if served else ''}",
        f"The network itself {normalization}.",
    ]


def _decoding_text(preprocessing: Mapping[str, Any]) -> str:
    color = preprocessing["background"]
    behind = "ignored" if color is None else "replaced by RGB " + " ".join(map(str, color))
    turned = "turned upright" if preprocessing["exif_orientation"] else "left as they are stored"
    return (
        f"Images with EXIF orientation are {turned}; transparency is {behind}; of an animation the "
        "first picture is taken."
    )


def _limits_text(network: ServedClassifier, preprocessing: Mapping[str, Any]) -> list[str]:
    limits = ", ".join(f"{key} {value:,}" for key, value in preprocessing["limits"].items())
    lines = [f"Images beyond these limits are INVALID_ARGUMENT: {limits}."]
    if network.features_layer is not None:
        lines.append(f"Features are those of {code_text(network.features_layer)}, of length 1.")
    return lines


def _signature_row(name: str, function: tf.types.experimental.ConcreteFunction) -> str:
    [given] = function.structured_input_signature[0]
    outputs = ", ".join(
        f"{code_text(key)} {_shape_text(value.dtype.name, value.shape)}"
        for key, value in function.structured_outputs.items()
    )
    takes = f"{code_text(given.name)} {_shape_text(given.dtype.name, given.shape)}"
    return f"| {code_text(name)} | {takes} | {outputs} |"


def plain_text(text: str) -> str:
    r"""Returns a name as Markdown that shows its characters: on one line, without markup.

    Example:
        >>> plain_text("golden_retriever | <b>x</b> [a](http://b)")
        'golden_retriever \\| \\<b\\>x\\</b\\> \\[a\\](http\\://b)'
    """
    return _MARKUP.sub(r"\\\g<0>", escape_controls(truncate(text, _MAX_NAME)))


def code_text(text: str) -> str:
    r"""Returns a name as code in Markdown.

    Example:
        >>> code_text("fc7"), code_text("a`|b")
        ('`fc7`', '`` a`\\|b ``')
    """
    text = escape_controls(truncate(text, _MAX_NAME)).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"`{text}`" if fence == "`" else f"{fence} {text} {fence}"


def _shape_text(dtype: str, shape: tf.TensorShape) -> str:
    sides = ["n", *("any" if side is None else str(side) for side in shape[1:])]
    return f"{dtype} ({', '.join(sides)}{',' if len(sides) == 1 else ''})"


def _mean_color(values: np.ndarray) -> list[float]:
    """Returns a color; the mean color of an image."""
    array = np.asarray(values, np.float64)
    return [round(float(value), 4) for value in array.reshape(-1, array.shape[-1]).mean(axis=0)]
