"""Check arguments of the builders of networks: their names, sizes of images, layers to leave out.

Commands check them before TensorFlow starts, and the builders when a network is built; both say the
same.
"""

from __future__ import annotations

import math
import numbers
import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cnnkit._networks import (
    ACTIVATIONS,
    FILTER_LAYERS,
    IMAGENET,
    IMAGENET_CLASSES,
    IMAGENET_NETWORKS,
    INITIALIZERS,
    LEAST_SIDES,
    OMITTABLE,
    OPTIONS,
    RENAMED_OPTIONS,
)
from cnnkit.errors import UsageError, unknown_name

# Options of a builder that training decides, and how.
DECIDED_OPTIONS = {
    "classes": "the dataset has its number of classes",
    "input_shape": "set `image_size`",
    "mean": "set `mean`",
    "preprocessing": "set `mean` or `init_from`",
    "weights": "set `init_from`",
}
# Options of a builder that are lists, in a command line with commas: `omit_layers=fc6,fc7`.
LIST_OPTIONS = frozenset({"drop_layers", "filters", "input_shape", "omit_layers"})
# Options that change the smallest image of a network, or its layers that can be left out.
_CHANGING = frozenset({"preset", "overlapping_pooling", "sixth_conv", "filters"})


def _is_integer(value: object, least: int = 1) -> bool:
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return is_integer and int(value) >= least  # type: ignore[call-overload]


def _is_number(value: Any, least: float = -math.inf, most: float = math.inf) -> bool:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and least <= value <= most


def _is_bool(value: object) -> bool:
    return isinstance(value, (bool, np.bool_))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_sequence(value: Any, accepts: Callable[[Any], bool]) -> bool:
    if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__iter__"):
        return False
    return np.ndim(value) <= 1 and all(accepts(one) for one in value)


def _or_none(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or accepts(value)


_BOOL = ("True or False", _is_bool)
_COUNT = ("an integer of at least 1", _is_integer)
_TEXT = ("a text", _is_text)
# Arguments of the builders: what they must be in words, and the function that tells.
ARGUMENTS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "include_top": _BOOL,
    "include_preprocessing": _BOOL,
    "lrn": _BOOL,
    "overlapping_pooling": _BOOL,
    "classes": _COUNT,
    "hidden_units": _COUNT,
    "groups": ("1 or 2", lambda value: _is_integer(value) and value <= 2),
    "sixth_conv": ("None or a number of filters of at least 1", _or_none(_is_integer)),
    "dropout": ("a fraction of 0 to 1", lambda value: _is_number(value, 0, 1)),
    "bias_value": ("None or a finite number", _or_none(_is_number)),
    "weight_stddev": ("a number of at least 0", lambda value: _is_number(value, 0)),
    # A text is refused by `omit_layers_from`, which knows the names.
    "omit_layers": (
        "a list of names of layers",
        lambda value: _is_text(value) or _is_sequence(value, _is_text),
    ),
    "input_shape": (
        "None or (height, width, 3) in pixels",
        _or_none(lambda value: _is_sequence(value, _or_none(_is_integer))),
    ),
    "activation": _TEXT,
    "preset": _TEXT,
    "config": _TEXT,
    "initializer": ("None or a text", _or_none(_is_text)),
    "pooling": ("None, avg or max", _or_none(_is_text)),
    "name": (
        "None or a text without slashes",
        _or_none(lambda value: _is_text(value) and "/" not in value),
    ),
}


def check_values(
    arguments: Mapping[str, Any], table: Mapping[str, tuple[str, Callable[[Any], bool]]]
) -> None:
    """Check values of arguments by a table such as `ARGUMENTS`; others are not checked.

    Raises:
        UsageError: If a value is wrong; the argument is named.
    """
    for name, value in arguments.items():
        if name in table:
            expected, accepts = table[name]
            if not accepts(value):
                raise UsageError(f"`{name}` must be {expected}", received=reprlib.repr(value))


class ImageTooSmall(UsageError):
    """The images are so small that the last feature map would have no position.

    Args:
        network: Name of the network.
        least_side: The smallest side that leaves one position.
        received: The size of the images, as text.
        argument: Name of the argument with the size.
    """

    def __init__(
        self, network: str, least_side: int, received: str, argument: str = "input_shape"
    ) -> None:
        self.least_side = least_side
        super().__init__(
            f"`{argument}` is too small for {network}: its last feature map would be empty",
            expected=f"height and width of at least {least_side}",
            received=received,
        )


def check_option_names(name: str, options: Iterable[str]) -> None:
    """Check the names of the arguments of a builder of the package.

    Args:
        name: Name of the network. Builders that a program added are not checked.
        options: The names.

    Raises:
        UsageError: If it has no such argument.
    """
    for option in options:
        known = OPTIONS.get(name)
        if known is not None and RENAMED_OPTIONS.get(option, option) not in known:
            raise unknown_name(f"option of {name}", option, known)


def check_builder_options(name: str, options: Mapping[str, Any]) -> None:
    """Check what is known of the arguments of a builder without building the network.

    Args:
        name: Name of the network. Builders that a program added are not checked.
        options: The arguments.

    Raises:
        UsageError: If it has no such argument, a value is unknown, a layer cannot be left out,
            or images are too small.
    """
    check_option_names(name, options)
    if name in OPTIONS:
        check_values(options, ARGUMENTS)
    for option, known in (("activation", ACTIVATIONS), ("initializer", INITIALIZERS)):
        value = options.get(option)
        if name in OPTIONS and isinstance(value, str) and value not in known:
            raise unknown_name(option, value, known)
    if name in FILTER_LAYERS and options.get("filters") is not None:
        check_filters(name, options["filters"], FILTER_LAYERS[name])
    if not _CHANGING.isdisjoint(options):
        return
    current = {RENAMED_OPTIONS.get(option, option): value for option, value in options.items()}
    if name in OMITTABLE and isinstance(current.get("omit_layers"), (str, list, tuple)):
        check_omitted(name, current["omit_layers"], OMITTABLE[name])
    shape = current.get("input_shape")
    if isinstance(shape, (list, tuple)) and all(type(side) is int for side in shape[:2]):
        check_image_sides(name, shape[:2], "input_shape")


def check_omitted(title: str, omit: Collection[str], optional: Sequence[str]) -> None:
    """Check that layers can be left out of a network.

    Args:
        title: Name of the network.
        omit: Names of the layers.
        optional: The layers that can be left out.

    Raises:
        UsageError: If `omit` is a text or names another layer.
    """
    wrong = [name for name in omit if name not in optional]
    if wrong or isinstance(omit, str):
        raise UsageError(
            f"`omit_layers` of {title} must name layers that can be left out",
            expected=f"a list of some of {', '.join(optional)}",
            received=omit if isinstance(omit, str) else ", ".join(map(str, wrong)),
        )


def check_filters(title: str, filters: Any, layers: Sequence[str]) -> None:
    """Check the numbers of filters of a network.

    Args:
        title: Name of the network.
        filters: The numbers.
        layers: Names of the convolutions that they are for.

    Raises:
        UsageError: If they are not one integer for each convolution.
    """
    if not _is_sequence(filters, _is_integer) or len(filters) != len(layers):
        raise UsageError(
            f"`filters` of {title} must be {len(layers)} integers of at least 1, the filters of "
            f"{', '.join(layers[:-1])} and {layers[-1]}",
            received=reprlib.repr(filters),
        )


def check_image_sides(
    name: str, sides: Sequence[int], argument: str, options: Iterable[str] = ()
) -> None:
    """Check that images are not too small for a network of the package.

    Args:
        name: Name of the network.
        sides: Height and width of the images in pixels.
        argument: Name of the argument with the size.
        options: Names of the arguments of its builder that are given.

    Raises:
        ImageTooSmall: If they are.
    """
    least = LEAST_SIDES.get(name, 0)
    if min(sides, default=least) < least and _CHANGING.isdisjoint(options):
        raise ImageTooSmall(name, least, " x ".join(map(str, sides)), argument)


def check_trained_options(options: Mapping[str, Any], *, begins_trained: bool) -> None:
    """Check that the arguments of a builder leave to training what it decides.

    Args:
        options: The arguments.
        begins_trained: Whether the training begins with weights of `init_from`.

    Raises:
        UsageError: If they do not.
    """
    for name, reason in DECIDED_OPTIONS.items():
        if name in options:
            raise UsageError(
                f"`model_options` must not hold {name} in training: {reason}",
                received=f"{name}={options[name]!r}",
            )
    if not options.get("include_top", True):
        raise UsageError("`include_top` must be True in training, which fits the classifier")
    if options.get("classifier_activation", "softmax") not in ("softmax", None):
        raise UsageError(
            "`classifier_activation` must be softmax or None in training, whose loss is the "
            "cross-entropy of a softmax",
            received=options["classifier_activation"],
        )
    if begins_trained and not options.get("include_preprocessing", True):
        raise UsageError(
            "`include_preprocessing` must be True with `init_from`, whose weights need their mean"
        )


def check_imagenet_network(
    network: str | None, *, include_top: bool = True, classes: int = IMAGENET_CLASSES
) -> None:
    """Check that there are ImageNet weights to download for a network.

    Args:
        network: Name of the network; None if none is given.
        include_top: Whether its dense layers are wanted.
        classes: Number of its classes.

    Raises:
        UsageError: If there are none.
    """
    known = " or ".join(IMAGENET_NETWORKS)
    if network is None:
        raise UsageError(
            f"`model` must name the network that gets {IMAGENET} weights", expected=known
        )
    if network not in IMAGENET_NETWORKS:
        raise UsageError(
            f"There are no ImageNet weights to download for {network}",
            expected=f"{known}, or a weights file",
        )
    if include_top and classes != IMAGENET_CLASSES:
        raise UsageError(
            f"`weights={IMAGENET!r}` with dense layers must have 1,000 classes",
            expected=f"`classes={IMAGENET_CLASSES}`, or `include_top=False`",
            received=f"`classes={classes}`",
            hint="replace_head gives a trained network other classes",
        )
