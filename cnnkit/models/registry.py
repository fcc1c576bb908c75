"""Networks by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import keras

from cnnkit.errors import unknown_name
from cnnkit.models.alexnet import (
    alexnet,
    alexnet_caffe,
    alexnet_one_weird_trick,
    alexnet_torchvision,
    caffenet,
)
from cnnkit.models.cifar10 import cifar10_full, cifar10_quick
from cnnkit.models.vgg import vgg11, vgg11_lrn, vgg13, vgg16, vgg16_c, vgg19
from cnnkit.models.zfnet import zfnet

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

PAPERS = {
    "alexnet": "Krizhevsky et al. 2012",
    "alexnet_caffe": "Krizhevsky et al. 2012, BVLC",
    "caffenet": "Krizhevsky et al. 2012, BVLC",
    "alexnet_one_weird_trick": "Krizhevsky 2014",
    "alexnet_torchvision": "Krizhevsky 2014, torchvision",
    "vgg11": "Simonyan & Zisserman 2014, A",
    "vgg11_lrn": "Simonyan & Zisserman 2014, A-LRN",
    "vgg13": "Simonyan & Zisserman 2014, B",
    "vgg16_c": "Simonyan & Zisserman 2014, C",
    "vgg16": "Simonyan & Zisserman 2014, D",
    "vgg19": "Simonyan & Zisserman 2014, E",
    "zfnet": "Zeiler & Fergus 2013",
    "cifar10_full": "Caffe's example, after cuda-convnet",
    "cifar10_quick": "Caffe's example, after cuda-convnet",
}


def build(name: str, **options) -> keras.Model:
    """Builds the network called `name` with the options of its builder.

    Raises:
        UsageError: If there is no such network, or it has no such option.

    Example:
        >>> from cnnkit.models import build
        >>> build("alexnet", classes=10, input_shape=(64, 64, 3)).name
        'alexnet'
    """
    if name not in BUILDERS:
        raise unknown_name("model", name, BUILDERS)
    builder = BUILDERS[name]
    known = inspect.signature(builder).parameters
    for option in options:
        if option not in known:
            raise unknown_name(f"option of {name}", option, known)
    return builder(**options)
