"""Configuration of a training run.

`TrainingConfig` is the one description of its fields: their help, ranges and names on the command
line are field metadata, from which come the checks, the options of `cnnkit train`, the docstring
and the JSON file of a run.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnkit._untrusted.damage import damage_as_error
from cnnkit._untrusted.json_documents import JsonFields, parse_json
from cnnkit.config_fields import check_fields, config_field, current_names, with_former_names
from cnnkit.config_values import parse_color, parse_interval
from cnnkit.errors import RunError, UsageError, unknown_name

# Arguments of `cnnkit.models.open_weights` about the images that weights were trained with.
INIT_OPTIONS = ("preprocessing", "channels", "mean", "std", "scale")


# What version 0.1.0 did, whose documents lack these fields.
_FIELDS_OF_0_1_0 = {"background": "none", "exif_orientation": False}


@with_former_names
@dataclass(frozen=True)
class TrainingConfig:
    """Configuration of a training run; its fields are everything that decides what is computed.

    Raises:
        UsageError: If a field has a wrong type or is out of range; the field is named.

    Example:
        >>> from cnnkit.config import TrainingConfig
        >>> TrainingConfig(epochs=2).epochs
        2
    """

    model: str = config_field("alexnet", "Name of a network that `cnnkit models` lists.")
    model_options: Mapping[str, Any] = config_field(
        {},
        "Arguments of the builder other than classes, input_shape and mean, for example dropout=0.",
        flag="--model-option",
    )
    dataset: str = config_field("digits", "Dataset: digits, folder:PATH, boxes:PATH, tfds:NAME ...")
    image_size: int = config_field(
        224, "Side of the training images in pixels.", minimum=1, metavar="PIXELS"
    )
    mean: str = config_field(
        "dataset",
        """Mean that the model subtracts: `dataset` is the mean color of the training images, or
        the mean of the network named by init_from; `pixel` their mean image; `imagenet` ImageNet's
        mean color.""",
        choices=("dataset", "imagenet", "pixel"),
    )
    scale: tuple[int, int] | None = config_field(
        None,
        """Shorter side before the crop, drawn from [smallest, largest] for each training image;
        held-out images take the middle. The default is image_size.""",
        minimum=1,
        metavar="PIXELS",
    )
    crop: str = config_field(
        "center",
        "Crop of the training images: the center, a random place, or ten fixed crops.",
        choices=("center", "random", "ten"),
    )
    flip: bool = config_field(False, "Whether to mirror each training image with probability 1/2.")
    central_square: bool = config_field(
        False,
        "Whether crops stay inside the central square of an image.",
        former_name="square",
    )
    pca_color: str = config_field(
        "none",
        """Color noise along the principal components of the training colors, and its scale: `std`
        or `eig01`, as in `cnnkit.data.PCAColorNoise`.""",
        choices=("none", "std", "eig01"),
        former_name="colour_noise",
    )
    fast_decode: bool = config_field(
        False, "Whether to decode images in a faster way that changes their pixels a little."
    )
    background: str = config_field(
        "white",
        """Color behind transparent pixels: white, black or #RRGGBB; `none` ignores the opacity
        and keeps the stored color of every pixel.""",
        metavar="COLOR",
    )
    exif_orientation: bool = config_field(
        True, "Whether to turn images upright as the EXIF data in their files say."
    )
    epochs: int = config_field(90, "Number of passes over the training images.", minimum=1)
    stop_at_train_error: float | None = config_field(
        None,
        "Training error, as a fraction, at which training stops early; 0.25 is 25 %.",
        minimum=0,
        below=1,
        metavar="ERROR",
        former_name="until_train_error",
    )
    batch_size: int = config_field(
        128, "Images in a step, over all replicas.", minimum=1, metavar="IMAGES"
    )
    gradient_accumulation_steps: int = config_field(
        1,
        """Number of parts in which a batch is computed one after the other, to save memory; the
        gradient is that of the whole batch.""",
        minimum=1,
        metavar="PARTS",
        former_name="accumulate",
    )
    learning_rate: float = config_field(0.01, "Initial learning rate.", above=0, metavar="RATE")
    schedule: str = config_field(
        "step",
        """Schedule of the learning rate: `step` multiplies it by lr_decay before each epoch of
        lr_milestones; `plateau` multiplies it when the held-out accuracy stops improving; `cosine`
        lowers it to 0 along half a cosine.""",
        choices=("step", "plateau", "cosine"),
    )
    lr_milestones: tuple[int, ...] = config_field(
        (),
        "Epochs, counted from 1, before which the learning rate is multiplied by lr_decay.",
        minimum=1,
        metavar="EPOCH",
        former_name="drop_epochs",
    )
    lr_decay: float = config_field(
        0.1,
        "Factor of the learning rate at a milestone or a plateau.",
        above=0,
        maximum=1,
        metavar="FACTOR",
        former_name="drop_factor",
    )
    patience: int = config_field(
        5,
        "Epochs without improvement after which `plateau` lowers the learning rate.",
        minimum=1,
        metavar="EPOCHS",
    )
    max_drops: int = config_field(
        3,
        "Number of times that `plateau` lowers the learning rate at most; three in the papers.",
        minimum=0,
        metavar="DROPS",
    )
    warmup_epochs: float = config_field(
        0.0,
        "Epochs in which the learning rate rises from 0 to its initial value.",
        minimum=0,
        metavar="EPOCHS",
    )
    momentum: float = config_field(0.9, "Momentum of the optimizer.", minimum=0, below=1)
    weight_decay: float = config_field(
        0.0005, "Factor of the weights in the gradient.", minimum=0, metavar="DECAY"
    )
    weight_decay_on_biases: bool = config_field(
        False, "Whether weight decay applies to biases too.", former_name="decay_biases"
    )
    lr_multipliers: Mapping[str, float] = config_field(
        {},
        """Factors of the learning rate by pattern of LAYER/VARIABLE, for example `*/bias=2`. The
        first matching pattern counts.""",
        minimum=0,
        flag="--lr-multiplier",
        former_name="rate_multipliers",
        former_flag="--rate-multiplier",
    )
    weight_decay_multipliers: Mapping[str, float] = config_field(
        {},
        "Factors of the weight decay by pattern of LAYER/VARIABLE, for example `fc/kernel=250`.",
        minimum=0,
        flag="--weight-decay-multiplier",
        former_name="decay_multipliers",
        former_flag="--decay-multiplier",
    )
    max_filter_rms: float | None = config_field(
        None,
        """Root mean square above which a convolution filter is scaled back to it after every step
        (Zeiler & Fergus 2013, section 3.1: 0.1). By default filters are not limited.""",
        above=0,
        metavar="RMS",
    )
    precision: str = config_field(
        "float32",
        "Data type of the computation; weights are float32. `mixed_float16` scales the loss.",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    jit_compile: bool = config_field(
        False, "Whether XLA compiles the network; for one device only."
    )
    init_from: str | None = config_field(
        None,
        """Run folder, `.keras` file or third-party weights file with the initial weights, or
        `imagenet`, which downloads those of vgg16 or vgg19.""",
        metavar="MODEL",
    )
    init_options: Mapping[str, Any] = config_field(
        {},
        """What the weights of init_from expect of images, where their file does not say it:
        preprocessing, channels, mean, std or scale of `cnnkit.models.open_weights`, for example
        preprocessing=caffe.""",
        flag="--init-option",
    )
    weight_mapping: str = config_field(
        "by-name",
        """Layers that take their weights from init_from, as in `cnnkit.models.copy_weights`;
        `new-classifier` copies as `features` does, and the last layer begins with zeros.""",
        choices=("by-name", "features", "vgg-staged", "new-classifier"),
        former_name="init_rule",
    )
    freeze: tuple[str, ...] = config_field(
        (),
        """Layers whose weights do not change, by name or pattern: `conv1`, `block[1-4]_*`. A
        pattern that begins with `!` takes layers out again: `* !fc8` freezes all but fc8.""",
        metavar="LAYER",
    )
    augmentation_draws: int | None = config_field(
        None,
        """Number of different augmentations of each training image, which the epochs use in turn;
        by default every epoch draws its own. The outputs of frozen layers below all others are then
        computed once for each of them and kept in memory.""",
        minimum=1,
        metavar="DRAWS",
    )
    seed: int = config_field(
        0,
        "Seed of the initial weights, the order of images, augmentation, dropout and splits.",
        minimum=0,
    )
    deterministic: bool = config_field(
        False, "Whether to use reproducible operations only, so that a run repeats bit for bit."
    )
    strategy: str = config_field(
        "default",
        """Distribution: `default` is one device, `mirrored` several replicas that share every
        batch, `multiworker` several processes.""",
        choices=("default", "mirrored", "multiworker"),
    )
    replicas: int | None = config_field(
        None,
        """Number of replicas of the strategy `mirrored`. The default is every GPU, or two CPU
        devices without a GPU.""",
        minimum=1,
    )
    checkpoint_every: str | None = config_field(
        None,
        """Steps (`500`) or minutes (`10m`) between checkpoints within an epoch. By default
        checkpoints are written after epochs only.""",
        metavar="EVERY",
    )
    keep_checkpoints: int = config_field(
        2, "Number of the newest checkpoints to keep.", minimum=1, metavar="COUNT"
    )
    keep_best: bool = config_field(
        False,
        """Whether to keep the network with the lowest error on the held-out images as best.keras.
        Of equal errors, the lower loss decides.""",
    )
    restore_best: bool = config_field(
        False,
        """Whether the trained network, model.keras, is the best one, as keep_best keeps it, instead
        of the last one. The network before the first epoch counts too if init_from gives all its
        weights. If the loss is no longer finite, training ends with the best network.""",
    )
    early_stopping_patience: int | None = config_field(
        None,
        """Epochs without a better network after which training ends. A network is better if its
        error on the held-out images is lower, or its loss at the same error.""",
        minimum=1,
        metavar="EPOCHS",
    )
    keep_epochs: tuple[int, ...] = config_field(
        (),
        """Epochs, counted from 1, after which to keep the network, for `cnnkit visualize
        evolution`.""",
        minimum=1,
        metavar="EPOCH",
    )
    task: str = config_field(
        "classify",
        """What the network learns: `classify` the classes of images, or `localize` the classes and
        the boxes around their objects (Simonyan & Zisserman 2014, appendix A), of a dataset
        boxes:PATH. The error of `localize` counts an image as right if its class is, and the box
        overlaps one of its boxes by half or more (intersection over union).""",
        choices=("classify", "localize"),
    )
    box_regression: str = config_field(
        "per-class",
        "Boxes of a network that localizes: one for each class, or a `single` one.",
        choices=("per-class", "single"),
    )

    def __post_init__(self) -> None:
        """Checks the type and the range of every field, and the fields that exclude each other."""
        check_fields(self)
        parse_interval(self.checkpoint_every)
        parse_color(self.background)
        if self.scale is not None and self.scale[0] > self.scale[1]:
            raise UsageError("`scale` must be (smallest, largest)", received=self.scale)
        for name in self.init_options:
            if name not in INIT_OPTIONS:
                raise unknown_name("option of init_from", name, INIT_OPTIONS)
        if self.init_options and self.init_from is None:
            raise UsageError(
                "`init_options` is about the file of init_from",
                expected="init_from with init_options",
                received=dict(self.init_options),
            )
        if self.jit_compile and self.strategy != "default":
            raise UsageError(
                "`jit_compile` works on one device only",
                expected="`strategy=default` with `jit_compile`",
                received=f"`strategy={self.strategy}`",
            )
        if self.strategy != "mirrored" and (self.replicas or 1) > 1:
            raise UsageError(
                f"`replicas` does not apply to the strategy {self.strategy}",
                expected="`strategy=mirrored` for more than one replica",
                received=f"`replicas={self.replicas}`",
            )

    def to_json(self) -> str:
        """Returns the configuration as a JSON document."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(
        cls, text: str | bytes, origin: str | Path = "the configuration"
    ) -> TrainingConfig:
        """Reads a document that `to_json` wrote.

        Args:
            text: The document. Names of version 0.1.0 are accepted with a warning; fields that it
                did not have get the values that do what it did.
            origin: File or other source, for error messages.

        Raises:
            RunError: If `text` is not such a document.
        """
        try:
            with damage_as_error(origin, RunError):
                fields = JsonFields(parse_json(text, origin), origin).document
            fields = {**_FIELDS_OF_0_1_0, **current_names(cls, fields, str(origin), stacklevel=3)}
            known = [item.name for item in dataclasses.fields(cls)]
            for name, value in fields.items():
                if name not in known:
                    raise unknown_name("field", name, known)
                if isinstance(value, list):
                    fields[name] = tuple(value)
            return cls(**fields)
        except (ValueError, TypeError) as error:
            raise RunError(f"{origin} is not a training configuration", received=error) from error

    def differences(self, other: TrainingConfig) -> dict[str, tuple[Any, Any]]:
        """Returns the fields in which two configurations differ, with both values."""
        return {
            item.name: (getattr(self, item.name), getattr(other, item.name))
            for item in dataclasses.fields(self)
            if getattr(self, item.name) != getattr(other, item.name)
        }
