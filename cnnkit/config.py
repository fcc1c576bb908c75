"""What a training run is made of, as one value that goes to JSON and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnnkit.errors import RunError, UsageError, unknown_name

MEANS = ("dataset", "imagenet")
STRATEGIES = ("default", "mirrored")


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides what a training run computes.

    Attributes:
        model: Name of a network, as `cnnkit.models.build` takes it.
        model_options: Arguments of its builder beside classes, input_shape and mean.
        dataset: `digits`, `folder:PATH` or `tfds:NAME`.
        image_size: Side of the training images in pixels.
        mean: The colour that the model subtracts: `"dataset"` measures it on the training images,
            `"imagenet"` takes ImageNet's.
        epochs: Times that every training image is shown.
        batch_size: Images in a step, over all replicas.
        learning_rate: Step size at the beginning.
        drop_epochs: Epochs, counted from 1, before which the learning rate drops.
        drop_factor: What the learning rate is multiplied with at a drop.
        momentum: Part of the last step that is kept.
        weight_decay: Factor of the weights in the gradient; biases do not decay.
        seed: Decides the first weights, the order of the images, dropout and a seeded split.
        strategy: `"default"` for one device, `"mirrored"` for replicas that share every batch.
        replicas: Replicas under `"mirrored"`; None is every GPU, or two CPU devices without a GPU.

    Example:
        >>> from cnnkit.config import TrainingConfig
        >>> TrainingConfig(epochs=2).epochs
        2
    """

    model: str = "alexnet"
    model_options: Mapping[str, Any] = field(default_factory=dict)
    dataset: str = "digits"
    image_size: int = 224
    mean: str = "dataset"
    epochs: int = 90
    batch_size: int = 128
    learning_rate: float = 0.01
    drop_epochs: tuple[int, ...] = ()
    drop_factor: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0005
    seed: int = 0
    strategy: str = "default"
    replicas: int | None = None

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            UsageError: If a field is out of range; the field is named.
        """
        for name in ("image_size", "epochs", "batch_size"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        _check("learning_rate", self.learning_rate, self.learning_rate > 0, "more than 0")
        _check("momentum", self.momentum, 0 <= self.momentum < 1, "at least 0 and less than 1")
        _check("weight_decay", self.weight_decay, self.weight_decay >= 0, "at least 0")
        _check("drop_factor", self.drop_factor, 0 < self.drop_factor <= 1, "in (0, 1]")
        _check("seed", self.seed, self.seed >= 0, "at least 0")
        if self.mean not in MEANS:
            raise unknown_name("mean", self.mean, MEANS)
        if self.strategy not in STRATEGIES:
            raise unknown_name("strategy", self.strategy, STRATEGIES)
        if self.replicas is not None:
            _check("replicas", self.replicas, self.replicas >= 1, "at least 1")
            if self.strategy == "default" and self.replicas > 1:
                raise UsageError(
                    "The default strategy trains on one device",
                    expected="strategy=mirrored for more than one replica",
                    received=f"replicas={self.replicas}",
                )

    def to_json(self) -> str:
        """Returns the configuration as a JSON document."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, origin: str | Path = "the configuration") -> TrainingConfig:
        """Reads what `to_json` wrote.

        Raises:
            RunError: If `text` is no such document; `origin` is named.
        """
        try:
            fields = json.loads(text)
            fields["drop_epochs"] = tuple(fields.get("drop_epochs", ()))
            return cls(**fields)
        except (ValueError, TypeError, AttributeError) as error:
            raise RunError(f"{origin} is no training configuration", received=error) from error

    def differences(self, other: TrainingConfig) -> dict[str, tuple[Any, Any]]:
        """Returns the fields in which two configurations differ, with both values."""
        return {
            item.name: (getattr(self, item.name), getattr(other, item.name))
            for item in dataclasses.fields(self)
            if getattr(self, item.name) != getattr(other, item.name)
        }


def _check(name: str, value: object, good: bool, expected: str) -> None:
    if not good:
        raise UsageError(f"{name} is out of range", expected=expected, received=value)
