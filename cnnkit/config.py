"""What a training run is made of, as one value that goes to JSON and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnnkit.errors import RunError, UsageError, unknown_name

MEANS = ("dataset", "imagenet", "pixel")
CROPS = ("center", "random", "ten")
PCA_COLORS = ("none", "std", "eig01")
STRATEGIES = ("default", "mirrored", "multiworker")
SCHEDULES = ("step", "plateau", "cosine")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
WEIGHT_MAPPINGS = ("by-name", "vgg-staged")
MINUTE = 60.0

CHOICES = {
    "mean": MEANS,
    "crop": CROPS,
    "pca_color": PCA_COLORS,
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
    "weight_mapping": WEIGHT_MAPPINGS,
    "strategy": STRATEGIES,
}
COUNTS = (
    "image_size",
    "epochs",
    "batch_size",
    "gradient_accumulation_steps",
    "patience",
    "keep_checkpoints",
)


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides what a training run computes.

    Attributes:
        model: Name of a network, as `cnnkit.models.build` takes it.
        model_options: Arguments of its builder beside classes, input_shape and mean.
        dataset: As `cnnkit.data.load_dataset` takes it: `digits`, `folder:PATH`, `tfds:NAME` ...
        image_size: Side of the training images in pixels.
        mean: What the model subtracts: `"dataset"` is the mean color of the training images, or,
            with init_from, what that network subtracts; `"pixel"` their mean image; `"imagenet"`
            ImageNet's mean color.
        scale: Shorter side before the crop, drawn from [smallest, largest] for each training
            image; held-out images take the middle. None is `image_size`.
        crop: How training images are cut: `"center"`, `"random"`, or `"ten"` fixed crops.
        flip: Whether every second training image, by chance, is mirrored.
        central_square: Whether crops stay inside the central square of an image.
        pca_color: `"none"`, or how `cnnkit.data.PCAColorNoise` scales it: `"std"`, `"eig01"`.
        fast_decode: Whether images are decoded in a quicker way that changes their pixels a little.
        epochs: Times that every training image is shown.
        stop_at_train_error: Training error, 0..1, at which training ends before that; None does not.
        batch_size: Images in a step, over all replicas.
        gradient_accumulation_steps: Parts that a batch is computed in, one after the other, for little memory; the
            gradient is that of the whole batch.
        learning_rate: Step size at the beginning.
        schedule: `"step"` drops the learning rate before `lr_milestones`; `"plateau"` drops it where
            the accuracy on the held-out images stops improving; `"cosine"` lets it fall to 0 along
            half a cosine.
        lr_milestones: Epochs, counted from 1, before which the learning rate drops.
        lr_decay: What the learning rate is multiplied with at a drop.
        patience: Epochs without improvement after which `"plateau"` drops.
        max_drops: How often `"plateau"` drops; the papers: three times.
        warmup_epochs: Epochs over which the learning rate rises from 0 at the beginning.
        momentum: Part of the last step that is kept.
        weight_decay: Factor of the weights in the gradient.
        weight_decay_on_biases: Whether biases decay too.
        lr_multipliers: Factors of the learning rate by pattern of `LAYER/VARIABLE`, for example
            `{"*/bias": 2}`. The first pattern that fits counts.
        weight_decay_multipliers: The same for the weight decay.
        max_filter_rms: Root mean square above which a filter of a convolution is scaled back to it
            after every step (Zeiler & Fergus 2013, section 3.1: 0.1); None lets filters grow.
        precision: `"float32"`, or what the network computes in beside float32 weights:
            `"mixed_bfloat16"`, `"mixed_float16"` (with loss scaling).
        jit_compile: Whether XLA compiles the network; for one device.
        init_from: A run folder, a `.keras` file or a weights file of others whose weights training
            begins with.
        weight_mapping: Which of them, as in `cnnkit.models.copy_weights`.
        seed: Decides the first weights, the order of the images, dropout and a seeded split.
        deterministic: Whether to use TensorFlow's reproducible operations only, so that a run
            gives the same bits each time.
        strategy: `"default"` for one device, `"mirrored"` for replicas that share every batch,
            `"multiworker"` for several processes that do.
        replicas: Replicas under `"mirrored"`; None is every GPU, or two CPU devices without a GPU.
        checkpoint_every: Steps (`"500"`) or minutes (`"10m"`) between checkpoints within an epoch;
            None writes them after epochs only.
        keep_checkpoints: Newest checkpoints that are kept.
        keep_best: Whether to keep the most accurate network so far as `best.keras`.
        keep_epochs: Epochs, counted from 1, after which the network is kept for good, to look at
            later how it changed.

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
    scale: tuple[int, int] | None = None
    crop: str = "center"
    flip: bool = False
    central_square: bool = False
    pca_color: str = "none"
    fast_decode: bool = False
    epochs: int = 90
    stop_at_train_error: float | None = None
    batch_size: int = 128
    gradient_accumulation_steps: int = 1
    learning_rate: float = 0.01
    schedule: str = "step"
    lr_milestones: tuple[int, ...] = ()
    lr_decay: float = 0.1
    patience: int = 5
    max_drops: int = 3
    warmup_epochs: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 0.0005
    weight_decay_on_biases: bool = False
    lr_multipliers: Mapping[str, float] = field(default_factory=dict)
    weight_decay_multipliers: Mapping[str, float] = field(default_factory=dict)
    max_filter_rms: float | None = None
    precision: str = "float32"
    jit_compile: bool = False
    init_from: str | None = None
    weight_mapping: str = "by-name"
    seed: int = 0
    deterministic: bool = False
    strategy: str = "default"
    replicas: int | None = None
    checkpoint_every: str | None = None
    keep_checkpoints: int = 2
    keep_best: bool = False
    keep_epochs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            UsageError: If a field is out of range; the field is named.
        """
        for name in COUNTS:
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("weight_decay", "seed", "warmup_epochs", "max_drops"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        _check("learning_rate", self.learning_rate, self.learning_rate > 0, "more than 0")
        _check("momentum", self.momentum, 0 <= self.momentum < 1, "at least 0 and less than 1")
        _check("lr_decay", self.lr_decay, 0 < self.lr_decay <= 1, "in (0, 1]")
        if self.max_filter_rms is not None:
            _check("max_filter_rms", self.max_filter_rms, self.max_filter_rms > 0, "more than 0")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown_name(name.replace("_", " "), getattr(self, name), known)
        parse_interval(self.checkpoint_every)
        for epoch in self.keep_epochs:
            _check("keep_epochs", epoch, epoch >= 1, "epochs of 1 or more")
        if self.jit_compile and self.strategy != "default":
            raise UsageError(
                "XLA compiles the network for one device only",
                expected="strategy=default with jit_compile",
                received=f"strategy={self.strategy}",
            )
        if self.replicas is not None:
            _check("replicas", self.replicas, self.replicas >= 1, "at least 1")
            if self.strategy != "mirrored" and self.replicas > 1:
                raise UsageError(
                    f"The strategy {self.strategy} takes no number of replicas",
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
            for name in ("lr_milestones", "keep_epochs"):
                fields[name] = tuple(fields.get(name, ()))
            if fields.get("scale") is not None:
                fields["scale"] = tuple(fields["scale"])
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


def parse_interval(text: str | None) -> tuple[int | None, float | None]:
    """Returns the steps or the seconds that `text` names.

    Args:
        text: `"500"` for steps, `"10m"` for minutes, None for neither.

    Raises:
        UsageError: If it is neither.

    Example:
        >>> parse_interval("500"), parse_interval("1.5m")
        ((500, None), (None, 90.0))
    """
    if text is None:
        return None, None
    try:
        if text.endswith("m"):
            steps, seconds = None, float(text[:-1]) * MINUTE
        else:
            steps, seconds = int(text), None
    except ValueError:
        steps, seconds = 0, 0.0
    if not (steps or seconds or 0) > 0:
        raise UsageError(
            "checkpoint_every is out of range",
            expected="steps as in 500, or minutes as in 10m",
            received=text,
        )
    return steps, seconds


def _check(name: str, value: object, good: bool, expected: str) -> None:
    if not good:
        raise UsageError(f"{name} is out of range", expected=expected, received=value)
