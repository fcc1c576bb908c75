"""Build a network by its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras

from cnnkit._networks import PAPERS as PAPERS
from cnnkit._networks import RENAMED_OPTIONS
from cnnkit.errors import unknown_name, warn
from cnnkit.models.alexnet import (
    alexnet,
    alexnet_caffe,
    alexnet_one_weird_trick,
    alexnet_torchvision,
    caffenet,
)
from cnnkit.models.blocks import check_arguments
from cnnkit.models.cifar10 import cifar10_full, cifar10_quick
from cnnkit.models.vgg import vgg11, vgg11_lrn, vgg13, vgg16, vgg16_c, vgg19
from cnnkit.models.zfnet import zfnet

# Builders of the networks by name.
BUILDERS: dict[str, Callable[..., keras.Model]] = {
    "alexnet": alexnet,
    "alexnet_caffe": alexnet_caffe,
    "caffenet": caffenet,
    "alexnet_one_weird_trick": alexnet_one_weird_trick,
    "alexnet_torchvision": alexnet_torchvision,
    "vgg11": vgg11,
    "vgg11_lrn": vgg11_lrn,
    "vgg13": vgg13,
    "vgg16_c": vgg16_c,
    "vgg16": vgg16,
    "vgg19": vgg19,
    "zfnet": zfnet,
    "cifar10_full": cifar10_full,
    "cifar10_quick": cifar10_quick,
}


def build(name: str, **options: Any) -> keras.Model:
    """Build a network by its name.

    Args:
        name: A key of `BUILDERS`.
        **options: Arguments of the builder.

    Raises:
        UsageError: If there is no such network, or it has no such option.

    Example:
        >>> from cnnkit.models import build
        >>> build("alexnet", classes=10, input_shape=(64, 64, 3)).name
        'alexnet'
    """
    current = check_options(name, options)
    return BUILDERS[name](**current)


def check_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Check the name of a network and the arguments of its builder without building it.

    Args:
        name: A key of `BUILDERS`.
        options: Arguments of the builder.

    Returns:
        The options by their current names.

    Raises:
        UsageError: If there is no such network, it has no such option, or a value is wrong.

    Example:
        >>> from cnnkit.models import check_options
        >>> check_options("vgg16", {"dropout": 0})
        {'dropout': 0}
    """
    if name not in BUILDERS:
        raise unknown_name("model", name, BUILDERS)
    known = inspect.signature(BUILDERS[name]).parameters
    current = dict(options)
    for option in options:
        new = RENAMED_OPTIONS.get(option)
        if new is not None and new in known and new not in options:
            warn(
                f"The option `{option}` of {name} is now called `{new}`.",
                FutureWarning,
                stacklevel=3,
            )
            current[new] = current.pop(option)
        elif option not in known:
            raise unknown_name(f"option of {name}", option, known)
    check_arguments(current)
    return current
