"""The networks of the three papers as plain Keras functional models."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import keras

from cnnkit.errors import unknown_name
from cnnkit.models.alexnet import alexnet as alexnet
from cnnkit.models.alexnet import alexnet_caffe as alexnet_caffe
from cnnkit.models.alexnet import alexnet_one_weird_trick as alexnet_one_weird_trick
from cnnkit.models.alexnet import alexnet_torchvision as alexnet_torchvision
from cnnkit.models.alexnet import caffenet as caffenet
from cnnkit.models.cifar10 import cifar10_full as cifar10_full
from cnnkit.models.cifar10 import cifar10_quick as cifar10_quick
from cnnkit.models.class_names import class_index as class_index
from cnnkit.models.class_names import class_names as class_names
from cnnkit.models.class_names import set_class_names as set_class_names
from cnnkit.models.graph import get_layer as get_layer
from cnnkit.models.graph import logits_tensor as logits_tensor
from cnnkit.models.loading import load_model as load_model
from cnnkit.models.summary import summarize_network as summarize_network
from cnnkit.models.surgery import SurgeryResult as SurgeryResult
from cnnkit.models.surgery import copy_weights as copy_weights
from cnnkit.models.surgery import group_kernel as group_kernel
from cnnkit.models.surgery import replace_head as replace_head
from cnnkit.models.surgery import resize_input as resize_input
from cnnkit.models.surgery import to_classifier as to_classifier
from cnnkit.models.surgery import to_dense_convolutions as to_dense_convolutions
from cnnkit.models.surgery import to_fully_convolutional as to_fully_convolutional
from cnnkit.models.surgery import to_grouped_convolutions as to_grouped_convolutions
from cnnkit.models.surgery import ungroup_kernel as ungroup_kernel
from cnnkit.models.vgg import vgg as vgg
from cnnkit.models.vgg import vgg11 as vgg11
from cnnkit.models.vgg import vgg11_lrn as vgg11_lrn
from cnnkit.models.vgg import vgg13 as vgg13
from cnnkit.models.vgg import vgg16 as vgg16
from cnnkit.models.vgg import vgg16_c as vgg16_c
from cnnkit.models.vgg import vgg19 as vgg19
from cnnkit.models.weights import WeightsFile as WeightsFile
from cnnkit.models.weights import open_weights as open_weights
from cnnkit.models.zfnet import zfnet as zfnet

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
