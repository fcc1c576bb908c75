"""The model card: what a version is, for whoever finds its folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnkit.data import Augmentation
from cnnkit.export.classifier import ServedClassifier
from cnnkit.export.graph_checks import ImageLimits
from cnnkit.export.reference_outputs import CREDIT
from cnnkit.export.signatures import ExportedModule

PREPROCESSING = "preprocessing.json"
LABELS = "labels.txt"


@dataclass(frozen=True)
class Origin:
    """Where a network comes from.

    Attributes:
        source: The run or the file, in words.
        dataset: What it was trained on, or None where that is not known.
        epochs: How long, or None.
        error: Its top-1 error on held-out images, 0..1, or None where it was not measured.
    """

    source: str | None = None
    dataset: str | None = None
    epochs: int | None = None
    error: float | None = None


def describe_preprocessing(
    network: ServedClassifier, augmentation: Augmentation, limits: ImageLimits
) -> dict[str, object]:
    """Returns what happens to an image, as numbers and words for JSON."""
    inside = network.preprocessing
    scale, _ = augmentation.scales
    return {
        "network": network.model.name,
        "dtype": network.dtype,
        "images": "RGB, 0..255, float32, (n, height, width, 3)",
        "side": network.side,
        "free_size": network.free,
        "shorter_side_before_crop": scale,
        "crop": "center",
        "resize": "bilinear" if augmentation.fast_decode else "bilinear, antialiased",
        "mean": None if inside is None else _color(inside.mean),
        "std": None if inside is None or inside.std is None else _color(inside.std),
        "features_layer": network.features,
        "limits": dataclasses.asdict(limits),
    }


def write_card(
    folder: Path,
    name: str,
    network: ServedClassifier,
    labels: Sequence[str],
    facts: dict[str, object],
    servable: ExportedModule,
    origin: Origin,
) -> None:
    """Writes README.md into a version folder."""
    model = network.model
    mean, std = facts["mean"], facts["std"]
    shown = ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "")
    error = "not measured" if origin.error is None else f"{100 * origin.error:.2f} %"
    trained = origin.dataset or "not recorded"
    if origin.epochs is not None:
        trained += f", {origin.epochs} epochs"
    lines = [
        f"# {name}",
        "",
        f"A SavedModel for TensorFlow Serving, written by cnnkit from {origin.source or 'memory'}.",
        "",
        "| | |",
        "|---|---|",
        f"| network | {model.name}, {model.count_params():,} parameters, {network.dtype} |",
        f"| classes | {len(labels)}: {shown} |",
        f"| trained on | {trained} |",
        f"| top-1 error on held-out images | {error} |",
        "",
        "## Preprocessing",
        "",
        f"Encoded images: the shorter side becomes {facts['shorter_side_before_crop']} pixels "
        f"({facts['resize']}), the {facts['crop']} of {network.side} x {network.side} is taken.",
        "Images as numbers: RGB in 0..255, "
        + (
            f"any height and width from {network.side} on."
            if network.free
            else f"{network.side} x {network.side}."
        ),
        "The network itself "
        + (f"subtracts {mean}" if mean is not None else "does what its first layers do")
        + (f" and divides by {std}." if std is not None else "."),
        "",
        "## Signatures",
        "",
        "| signature | takes | answers |",
        "|---|---|---|",
        *(_row(name, function) for name, function in servable.endpoints.items()),
        "",
        "Images beyond these limits are INVALID_ARGUMENT: "
        + ", ".join(f"{key} {value:,}" for key, value in facts["limits"].items())
        + ".",
        *(
            [f"Features are those of `{network.features}`, of length 1."]
            if network.features is not None
            else []
        ),
        "",
        "## Commands",
        "",
        "```",
        f"cnnkit export verify models/{name}",
        f"cnnkit serve models/{name} --port 8500",
        f"cnnkit query IMAGE --server localhost:8500 --model {name}",
        "```",
        "",
        CREDIT,
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines))


def write_assets(folder: Path, labels: Sequence[str], facts: dict[str, object]) -> list[Path]:
    """Writes the files that become the version's assets, and returns them."""
    names, how = folder / LABELS, folder / PREPROCESSING
    names.write_text("".join(f"{label}\n" for label in labels))
    how.write_text(json.dumps(facts, indent=2) + "\n")
    return [names, how]


def _row(name: str, function) -> str:
    [given] = function.structured_input_signature[0]
    answered = ", ".join(
        f"`{key}` {_shape(value.dtype.name, value.shape)}"
        for key, value in function.structured_outputs.items()
    )
    return f"| `{name}` | `{given.name}` {_shape(given.dtype.name, given.shape)} | {answered} |"


def _shape(dtype: str, shape) -> str:
    sides = ["n", *("any" if side is None else str(side) for side in shape[1:])]
    return f"{dtype} ({', '.join(sides)}{',' if len(sides) == 1 else ''})"


def _color(values) -> list[float]:
    """Returns a color; of a mean image its mean."""
    array = np.asarray(values, np.float64)
    return [round(float(value), 4) for value in array.reshape(-1, array.shape[-1]).mean(axis=0)]
