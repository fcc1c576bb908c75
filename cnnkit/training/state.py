"""Where a training run stands, beside what its variables hold."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from cnnkit.training.schedule import Plateau


@dataclass
class Totals:
    """Sums over the images that were shown since the epoch began.

    Attributes:
        images: How many images.
        loss: Sum of their losses.
        right: How many of them were classified rightly.
        seconds: Time that it took.
    """

    images: int = 0
    loss: float = 0.0
    right: float = 0.0
    seconds: float = 0.0

    def add(self, images: int, loss: float, right: float) -> None:
        """Counts a step."""
        self.images += images
        self.loss += loss
        self.right += right

    @property
    def mean_loss(self) -> float:
        """Mean loss of an image."""
        return self.loss / self.images

    @property
    def accuracy(self) -> float:
        """Part of the images that were classified rightly, 0..1."""
        return self.right / self.images


@dataclass
class State:
    """The place that a run has come to.

    Attributes:
        epochs: Whole epochs that are done.
        step: Steps of the next epoch that are done.
        totals: Sums over those steps.
        plateau: What the schedule `"plateau"` remembers.
        best_accuracy: Best accuracy on the held-out images so far, None before the first.
        reached: Whether the training error that ends training has been reached.
    """

    epochs: int = 0
    step: int = 0
    totals: Totals = field(default_factory=Totals)
    plateau: Plateau = field(default_factory=Plateau)
    best_accuracy: float | None = None
    reached: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Returns the state as plain values; floats keep every bit through JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> State:
        """Reads what `to_dict` returned."""
        parts = {"totals": Totals(**fields["totals"]), "plateau": Plateau(**fields["plateau"])}
        return cls(**{**fields, **parts})

    def next_epoch(self) -> None:
        """Moves on to the beginning of the next epoch."""
        self.epochs += 1
        self.step = 0
        self.totals = Totals()
