"""Configuration of a training run.

`TrainingConfig` is the one description of its fields: their help, ranges and names on the command
line are field metadata, from which come the checks, the options of `cnnkit train` and the JSON file
of a run.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import numbers
import textwrap
import typing
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnnkit.errors import RunError, UsageError, unknown_name

_SECONDS_PER_MINUTE = 60.0


@dataclass(frozen=True)
class Option:
    """Metadata of a field: its help, its range, and its names on the command line.

    Attributes:
        help: Description, as full sentences.
        choices: Accepted values, or None.
        minimum: Smallest accepted number, or None.
        maximum: Largest accepted number, or None.
        above: Number that the value must exceed, or None.
        below: Number that the value must stay below, or None.
        metavar: Placeholder of the value in the help of the command line.
        flag: Option of the command line; None is the name of the field.
        former_name: Name of the field in version 0.1.0, which works until 0.3.0.
        former_flag: Option in version 0.1.0, where it does not follow from `former_name`.
    """

    help: str
    choices: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    metavar: str | None = None
    flag: str | None = None
    former_name: str | None = None
    former_flag: str | None = None

    @property
    def range(self) -> str:
        """Accepted numbers in words, such as `at least 0 and less than 1`."""
        bounds = (
            ("at least", self.minimum),
            ("more than", self.above),
            ("at most", self.maximum),
            ("less than", self.below),
        )
        return " and ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)

    def accepts(self, number: float) -> bool:
        """Returns True if `number` is finite and within the range."""
        return (
            math.isfinite(number)
            and (self.minimum is None or number >= self.minimum)
            and (self.maximum is None or number <= self.maximum)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )


def _option(default: Any, help: str, **metadata: Any) -> Any:
    """Declares a field with its metadata."""
    option = {"option": Option(" ".join(help.split()), **metadata)}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=option)
    return field(default=default, metadata=option)


def _accepts_former_names(cls: type) -> type:
    """Lets the constructor take the names of version 0.1.0, with a warning."""
    constructor: Callable[..., None] = cls.__init__  # type: ignore[misc]

    @functools.wraps(constructor)
    def __init__(self: object, *args: Any, **fields: Any) -> None:
        constructor(self, *args, **_current_names(fields, "TrainingConfig", stacklevel=4))

    cls.__init__ = __init__  # type: ignore[misc]
    return cls


@_accepts_former_names
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

    model: str = _option("alexnet", "Name of a network that `cnnkit models` lists.")
    model_options: Mapping[str, Any] = _option(
        {},
        "Arguments of the builder other than classes, input_shape and mean, for example dropout=0.",
        flag="--model-option",
    )
    dataset: str = _option("digits", "Dataset: digits, folder:PATH, shards:PATH, tfds:NAME ...")
    image_size: int = _option(
        224, "Side of the training images in pixels.", minimum=1, metavar="PIXELS"
    )
    mean: str = _option(
        "dataset",
        """Mean that the model subtracts: `dataset` is the mean color of the training images, or
        the mean of the network named by init_from; `pixel` their mean image; `imagenet` ImageNet's
        mean color.""",
        choices=("dataset", "imagenet", "pixel"),
    )
    scale: tuple[int, int] | None = _option(
        None,
        """Shorter side before the crop, drawn from [smallest, largest] for each training image;
        held-out images take the middle. The default is image_size.""",
        minimum=1,
        metavar="PIXELS",
    )
    crop: str = _option(
        "center",
        "Crop of the training images: the center, a random place, or ten fixed crops.",
        choices=("center", "random", "ten"),
    )
    flip: bool = _option(False, "Whether to mirror each training image with probability 1/2.")
    central_square: bool = _option(
        False,
        "Whether crops stay inside the central square of an image.",
        former_name="square",
    )
    pca_color: str = _option(
        "none",
        """Color noise along the principal components of the training colors, and its scale: `std`
        or `eig01`, as in `cnnkit.data.PCAColorNoise`.""",
        choices=("none", "std", "eig01"),
        former_name="colour_noise",
    )
    fast_decode: bool = _option(
        False, "Whether to decode images in a faster way that changes their pixels a little."
    )
    epochs: int = _option(90, "Number of passes over the training images.", minimum=1)
    stop_at_train_error: float | None = _option(
        None,
        "Training error, as a fraction, at which training stops early; 0.25 is 25 %.",
        minimum=0,
        below=1,
        metavar="ERROR",
        former_name="until_train_error",
    )
    batch_size: int = _option(
        128, "Images in a step, over all replicas.", minimum=1, metavar="IMAGES"
    )
    gradient_accumulation_steps: int = _option(
        1,
        """Number of parts in which a batch is computed one after the other, to save memory; the
        gradient is that of the whole batch.""",
        minimum=1,
        metavar="PARTS",
        former_name="accumulate",
    )
    learning_rate: float = _option(0.01, "Initial learning rate.", above=0, metavar="RATE")
    schedule: str = _option(
        "step",
        """Schedule of the learning rate: `step` multiplies it by lr_decay before each epoch of
        lr_milestones; `plateau` multiplies it when the held-out accuracy stops improving; `cosine`
        lowers it to 0 along half a cosine.""",
        choices=("step", "plateau", "cosine"),
    )
    lr_milestones: tuple[int, ...] = _option(
        (),
        "Epochs, counted from 1, before which the learning rate is multiplied by lr_decay.",
        minimum=1,
        metavar="EPOCH",
        former_name="drop_epochs",
    )
    lr_decay: float = _option(
        0.1,
        "Factor of the learning rate at a milestone or a plateau.",
        above=0,
        maximum=1,
        metavar="FACTOR",
        former_name="drop_factor",
    )
    patience: int = _option(
        5,
        "Epochs without improvement after which `plateau` lowers the learning rate.",
        minimum=1,
        metavar="EPOCHS",
    )
    max_drops: int = _option(
        3,
        "Number of times that `plateau` lowers the learning rate at most; three in the papers.",
        minimum=0,
        metavar="DROPS",
    )
    warmup_epochs: float = _option(
        0.0,
        "Epochs in which the learning rate rises from 0 to its initial value.",
        minimum=0,
        metavar="EPOCHS",
    )
    momentum: float = _option(0.9, "Momentum of the optimizer.", minimum=0, below=1)
    weight_decay: float = _option(
        0.0005, "Factor of the weights in the gradient.", minimum=0, metavar="DECAY"
    )
    weight_decay_on_biases: bool = _option(
        False, "Whether weight decay applies to biases too.", former_name="decay_biases"
    )
    lr_multipliers: Mapping[str, float] = _option(
        {},
        """Factors of the learning rate by pattern of LAYER/VARIABLE, for example `*/bias=2`. The
        first matching pattern counts.""",
        minimum=0,
        flag="--lr-multiplier",
        former_name="rate_multipliers",
        former_flag="--rate-multiplier",
    )
    weight_decay_multipliers: Mapping[str, float] = _option(
        {},
        "Factors of the weight decay by pattern of LAYER/VARIABLE, for example `fc/kernel=250`.",
        minimum=0,
        flag="--weight-decay-multiplier",
        former_name="decay_multipliers",
        former_flag="--decay-multiplier",
    )
    max_filter_rms: float | None = _option(
        None,
        """Root mean square above which a convolution filter is scaled back to it after every step
        (Zeiler & Fergus 2013, section 3.1: 0.1). By default filters are not limited.""",
        above=0,
        metavar="RMS",
    )
    precision: str = _option(
        "float32",
        "Data type of the computation; weights are float32. `mixed_float16` scales the loss.",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    jit_compile: bool = _option(False, "Whether XLA compiles the network; for one device only.")
    init_from: str | None = _option(
        None,
        "Run folder, `.keras` file or third-party weights file with the initial weights.",
        metavar="MODEL",
    )
    weight_mapping: str = _option(
        "by-name",
        "Layers that take their weights from init_from, as in `cnnkit.models.copy_weights`.",
        choices=("by-name", "vgg-staged"),
        former_name="init_rule",
    )
    seed: int = _option(
        0,
        "Seed of the initial weights, the order of images, augmentation, dropout and splits.",
        minimum=0,
    )
    deterministic: bool = _option(
        False, "Whether to use reproducible operations only, so that a run repeats bit for bit."
    )
    strategy: str = _option(
        "default",
        """Distribution: `default` is one device, `mirrored` several replicas that share every
        batch, `multiworker` several processes.""",
        choices=("default", "mirrored", "multiworker"),
    )
    replicas: int | None = _option(
        None,
        """Number of replicas of the strategy `mirrored`. The default is every GPU, or two CPU
        devices without a GPU.""",
        minimum=1,
    )
    checkpoint_every: str | None = _option(
        None,
        """Steps (`500`) or minutes (`10m`) between checkpoints within an epoch. By default
        checkpoints are written after epochs only.""",
        metavar="EVERY",
    )
    keep_checkpoints: int = _option(
        2, "Number of the newest checkpoints to keep.", minimum=1, metavar="COUNT"
    )
    keep_best: bool = _option(
        False, "Whether to keep the most accurate network so far as best.keras."
    )
    keep_epochs: tuple[int, ...] = _option(
        (),
        """Epochs, counted from 1, after which to keep the network, for `cnnkit visualize
        evolution`.""",
        minimum=1,
        metavar="EPOCH",
    )

    def __post_init__(self) -> None:
        """Checks the type and the range of every field, and the fields that exclude each other."""
        for item in dataclasses.fields(self):
            _check(item.name, _HINTS[item.name], option_of(item), getattr(self, item.name))
        parse_interval(self.checkpoint_every)
        if self.scale is not None and self.scale[0] > self.scale[1]:
            raise UsageError("`scale` must be (smallest, largest)", received=self.scale)
        if self.jit_compile and self.strategy != "default":
            raise UsageError(
                "`jit_compile` works on one device only",
                expected="strategy=default with jit_compile",
                received=f"strategy={self.strategy}",
            )
        if self.strategy != "mirrored" and (self.replicas or 1) > 1:
            raise UsageError(
                f"`replicas` does not apply to the strategy {self.strategy}",
                expected="strategy=mirrored for more than one replica",
                received=f"replicas={self.replicas}",
            )

    def to_json(self) -> str:
        """Returns the configuration as a JSON document."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, origin: str | Path = "the configuration") -> TrainingConfig:
        """Reads a document that `to_json` wrote.

        Args:
            text: The document. Names of version 0.1.0 are accepted with a warning.
            origin: File or other source, for error messages.

        Raises:
            RunError: If `text` is not such a document.
        """
        try:
            fields = json.loads(text)
            if not isinstance(fields, dict):
                raise TypeError("not an object")
            fields = _current_names(fields, str(origin), stacklevel=3)
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


def option_of(item: dataclasses.Field[Any]) -> Option:
    """Returns the metadata of a field of `TrainingConfig`."""
    option: Option = item.metadata["option"]
    return option


def parse_interval(text: str | None) -> tuple[int | None, float | None]:
    """Returns the steps or the seconds of an interval between checkpoints.

    Args:
        text: `"500"` for steps, `"10m"` for minutes, None for neither.

    Raises:
        UsageError: If `text` is neither.

    Example:
        >>> parse_interval("500"), parse_interval("1.5m")
        ((500, None), (None, 90.0))
    """
    if text is None:
        return None, None
    try:
        if text.endswith("m"):
            steps, seconds = None, float(text[:-1]) * _SECONDS_PER_MINUTE
        else:
            steps, seconds = int(text), None
    except ValueError:
        steps, seconds = 0, 0.0
    if not 0 < (steps or seconds or 0) < math.inf:
        raise UsageError(
            "`checkpoint_every` must be steps as in 500, or minutes as in 10m", received=text
        )
    return steps, seconds


_HINTS = typing.get_type_hints(TrainingConfig)
_FORMER_NAMES = {
    former: item.name
    for item in dataclasses.fields(TrainingConfig)
    if (former := option_of(item).former_name)
}


def _current_names(fields: Mapping[str, Any], origin: str, *, stacklevel: int) -> dict[str, Any]:
    """Renames the fields that version 0.1.0 called otherwise, with a warning for each document."""
    former = [name for name in fields if name in _FORMER_NAMES]
    if not former:
        return dict(fields)
    for name in former:
        if _FORMER_NAMES[name] in fields:
            raise UsageError(
                f"`{name}` is the former name of `{_FORMER_NAMES[name]}`, and both are set"
            )
    renamed = ", ".join(f"{name} is now {_FORMER_NAMES[name]}" for name in former)
    warnings.warn(
        f"{origin} uses names of version 0.1.0, which work until 0.3.0: {renamed}",
        FutureWarning,
        stacklevel=stacklevel,
    )
    return {_FORMER_NAMES.get(name, name): value for name, value in fields.items()}


def _check(name: str, hint: Any, option: Option, value: Any) -> None:
    """Checks the type and the range of one field."""
    kinds = typing.get_args(hint) if type(None) in typing.get_args(hint) else (hint,)
    if value is None and type(None) in kinds:
        return
    kind = next(kind for kind in kinds if kind is not type(None))
    origin = typing.get_origin(kind) or kind
    if option.choices is not None:
        if value not in option.choices:
            raise unknown_name(name.replace("_", " "), value, option.choices)
        return
    if origin is tuple:
        count = None if Ellipsis in typing.get_args(kind) else len(typing.get_args(kind))
        good = isinstance(value, tuple) and count in (None, len(value))
        good = good and all(_is_number(one, int) and option.accepts(one) for one in value)
        plural = "integers" if count is None else f"{count} integers"
        _require(name, good, f"{plural} of {option.range}", value)
    elif origin in (int, float):
        what = "an integer" if origin is int else "a number"
        good = _is_number(value, origin) and option.accepts(value)
        _require(name, good, f"{what} of {option.range}" if option.range else what, value)
    elif origin is bool:
        _require(name, isinstance(value, bool), "True or False", value)
    elif origin is str:
        _require(name, isinstance(value, str) and bool(value), "a non-empty text", value)
    else:
        good = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
        _require(name, good, "a mapping of names to values", value)
        if option.minimum is not None:
            for key, number in value.items():
                good = _is_number(number, float) and option.accepts(number)
                _require(f"{name}[{key!r}]", good, f"a number of {option.range}", number)


def _is_number(value: object, kind: type) -> bool:
    abstract = numbers.Integral if kind is int else numbers.Real
    return isinstance(value, abstract) and not isinstance(value, bool)


def _require(name: str, good: bool, expected: str, value: object) -> None:
    if not good:
        raise UsageError(f"`{name}` must be {expected}", received=repr(value))


def _with_attributes(doc: str) -> str:
    """Inserts the fields and their help into the docstring of `TrainingConfig`."""
    lines = ["Attributes:"]
    for item in dataclasses.fields(TrainingConfig):
        option = option_of(item)
        text = f"{item.name}: {option.help}"
        if option.choices:
            text += f" One of {', '.join(option.choices)}."
        if option.range:
            text += f" Values: {option.range}."
        lines += textwrap.wrap(text, 92, initial_indent=" " * 4, subsequent_indent=" " * 8)
    attributes = textwrap.indent("\n".join(lines), " " * 4)
    return doc.replace("    Raises:", f"{attributes}\n\n    Raises:", 1)


TrainingConfig.__doc__ = _with_attributes(TrainingConfig.__doc__ or "")
