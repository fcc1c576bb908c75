"""What a picture leaves behind: the PNG, and beside it what it was drawn from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit.writing import write_text, written_aside


@dataclass(frozen=True)
class Drawn:
    """What is said of a picture that was drawn.

    Attributes:
        said: One line for the terminal.
        facts: What JSON can hold: layers, units, activations, rules, scales.
        arrays: The rest, by name.
    """

    said: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    def write_beside(self, picture: Path) -> None:
        """Writes `PICTURE.json` and, where there are arrays, `PICTURE.npz`.

        The whole name of the picture is kept, so that they replace only what belongs to it.
        """
        write_text(Path(f"{picture}.json"), json.dumps(self.facts, indent=2) + "\n")
        if self.arrays:
            with written_aside(Path(f"{picture}.npz")) as aside, aside.open("wb") as file:
                np.savez_compressed(file, **self.arrays)


def facts_of(result) -> dict[str, Any]:
    """Returns what is to be told of a projection."""
    return {
        "layer": result.layer,
        "unit": result.unit,
        "rule": result.rule,
        "image": result.image,
        "activation": result.activation,
        "position": list(result.position),
        "box": [result.box.top, result.box.left, result.box.bottom, result.box.right],
    }


def said_of(result) -> str:
    """Returns the same in one line."""
    return f"{result.layer} unit {result.unit}, activation {result.activation:.3g}{result.where}"
