"""Names, sources and layers of the networks, and the cost of stacks of convolutions.

Nothing here needs TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Sources of the networks, in the order in which they are listed.
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

# Word for the weights that `keras.applications` downloads, their networks, and their classes.
IMAGENET = "imagenet"
IMAGENET_NETWORKS = ("vgg16", "vgg19")
IMAGENET_CLASSES = 1000

# Smallest side of an image that leaves one position in the last feature map, and the side for which
# a network is built by default, in pixels.
LEAST_SIDES = {
    **dict.fromkeys(("alexnet", "alexnet_one_weird_trick", "zfnet"), 64),
    **dict.fromkeys(("alexnet_caffe", "caffenet"), 67),
    "alexnet_torchvision": 63,
    **dict.fromkeys(("vgg11", "vgg11_lrn", "vgg13", "vgg16_c", "vgg16", "vgg19"), 32),
    **dict.fromkeys(("cifar10_full", "cifar10_quick"), 8),
}
IMAGE_SIDES = {
    **dict.fromkeys(LEAST_SIDES, 224),
    **dict.fromkeys(("alexnet_caffe", "caffenet"), 227),
    **dict.fromkeys(("cifar10_full", "cifar10_quick"), 32),
}
# Layers that `omit_layers` of a builder can leave out; those of CIFAR-10 have no such argument.
OMITTABLE = {
    name: ("fc1", "fc2") if name.startswith("vgg") else ("conv3", "conv4", "fc6", "fc7")
    for name in LEAST_SIDES
    if not name.startswith("cifar10")
}

# What tells networks apart whose arrays have the same shapes: no weights file says it.
DIFFERENCES = {
    "alexnet": "the paper's network: 224 pixels, other constants of normalization than BVLC's",
    "alexnet_caffe": "Caffe's bvlc_alexnet: 227 pixels, normalization before pooling",
    "caffenet": "Caffe's bvlc_reference_caffenet: 227 pixels, pooling before normalization",
    "alexnet_one_weird_trick": "cuda-convnet2's: with normalization",
    "alexnet_torchvision": "torchvision's: without normalization",
    "vgg11": "column A: without normalization",
    "vgg11_lrn": "column A-LRN: with normalization",
    "cifar10_full": "with normalization, one dense layer",
    "cifar10_quick": "without normalization, two dense layers",
}

_HEAD = "flatten fc6:4096 fc6_dropout fc7:4096 fc7_dropout fc8: probabilities"
_ALEXNET = "conv1:96 norm1 pool1 conv2:256 norm2 pool2 conv3:384 conv4:384 conv5:256 pool5 " + _HEAD
_CAFFENET = (
    "conv1:96 pool1 norm1 conv2:256 pool2 norm2 conv3:384 conv4:384 conv5:256 pool5 " + _HEAD
)


def _vgg(*blocks: str) -> str:
    """Return the layers of a VGG network, given the filters of each block's convolutions."""
    words = []
    for number, block in enumerate(blocks, start=1):
        convolutions = [word for word in block.split() if word != "norm"]
        words += [f"block{number}_conv{i}:{n}" for i, n in enumerate(convolutions, start=1)]
        words += [f"block{number}_norm"] if "norm" in block else []
        words.append(f"block{number}_pool")
    head = "flatten fc1:4096 fc1_dropout fc2:4096 fc2_dropout predictions: probabilities"
    return " ".join([*words, head])


# Layers of the networks as their builders make them by default, in order, without the input. A
# layer with weights has its number of units behind a colon; nothing there is the classes' number.
LAYERS = {
    name: f"preprocessing {layers}"
    for name, layers in {
        "alexnet": f"pad1 {_ALEXNET}",
        "alexnet_caffe": _ALEXNET,
        "caffenet": _CAFFENET,
        "alexnet_one_weird_trick": "pad1 conv1:64 norm1 pool1 relu1 conv2:192 norm2 pool2"
        f" conv3:384 conv4:256 conv5:256 pool5 {_HEAD}",
        "alexnet_torchvision": "pad1 conv1:64 pool1 conv2:192 pool2 conv3:384 conv4:256 conv5:256"
        " pool5 flatten fc6_dropout fc6:4096 fc7_dropout fc7:4096 fc8: probabilities",
        "vgg11": _vgg("64", "128", "256 256", "512 512", "512 512"),
        "vgg11_lrn": _vgg("64 norm", "128", "256 256", "512 512", "512 512"),
        "vgg13": _vgg("64 64", "128 128", "256 256", "512 512", "512 512"),
        "vgg16_c": _vgg("64 64", "128 128", "256 256 256", "512 512 512", "512 512 512"),
        "vgg16": _vgg("64 64", "128 128", "256 256 256", "512 512 512", "512 512 512"),
        "vgg19": _vgg("64 64", "128 128", "256 256 256 256", *["512 512 512 512"] * 2),
        "zfnet": f"pad1 {_CAFFENET}",
        "cifar10_full": "conv1:32 pool1 relu1 norm1 conv2:32 pool2 norm2 conv3:64 pool3 flatten"
        " fc4: probabilities",
        "cifar10_quick": "conv1:32 pool1 relu1 conv2:32 pool2 conv3:64 pool3 flatten4 fc4:64"
        " flatten fc5: probabilities",
    }.items()
}

# Values of two arguments of the builders.
ACTIVATIONS = ("relu", "tanh", "sigmoid")
INITIALIZERS = ("paper", "glorot")

_FIRST = "include_top weights input_shape pooling classes classifier_activation"
_FIRST += " include_preprocessing name"
_STAGED = "activation lrn overlapping_pooling omit_layers hidden_units dropout initializer"
_OPTIONS_OF = {
    "alexnet": f"{_FIRST} preset groups filters sixth_conv {_STAGED} bias_value mean preprocessing",
    "vgg": f"{_FIRST} activation omit_layers dropout initializer weight_stddev mean preprocessing",
    "zfnet": f"{_FIRST} filters {_STAGED} mean preprocessing",
    "cifar10": f"{_FIRST} activation initializer mean preprocessing".replace(" weights", ""),
}
_OPTIONS_OF["variant"] = _OPTIONS_OF["alexnet"].replace(" preset", "")
_OPTIONS_OF["normalized"] = _OPTIONS_OF["cifar10"].replace(" activation ", " lrn activation ")
# Arguments of the builder of each network, in order.
OPTIONS = {
    name: tuple(_OPTIONS_OF[kind].split())
    for kind, names in {
        "alexnet": ("alexnet",),
        "variant": ("alexnet_caffe", "caffenet", "alexnet_one_weird_trick", "alexnet_torchvision"),
        "vgg": ("vgg11", "vgg11_lrn", "vgg13", "vgg16_c", "vgg16", "vgg19"),
        "zfnet": ("zfnet",),
        "normalized": ("cifar10_full",),
        "cifar10": ("cifar10_quick",),
    }.items()
    for name in names
}
_CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4", "conv5")
# Convolutions whose filters the argument `filters` of a builder gives.
FILTER_LAYERS = {
    "zfnet": _CONVOLUTIONS[2:],
    **{name: _CONVOLUTIONS for name in OPTIONS if "alexnet" in name or name == "caffenet"},
}
# Old names of these arguments, which the config.json of older runs holds.
RENAMED_OPTIONS = {"drop_layers": "omit_layers"}


@dataclass(frozen=True)
class ConvStackCost:
    """Cost of a stack of convolutions of stride 1, all with C channels.

    Attributes:
        kernels: Sides of the kernels.
        receptive_field: Side of the receptive field of the last convolution.
        weights_per_channel_squared: Number of weights, without biases, divided by C^2.
        activations: Number of activation functions.
    """

    kernels: tuple[int, ...]
    receptive_field: int
    weights_per_channel_squared: int
    activations: int


def conv_stack_cost(kernels: Sequence[int]) -> ConvStackCost:
    """Return the cost of a stack of convolutions (Simonyan & Zisserman 2014, section 2.3).

    Args:
        kernels: Sides of the kernels.

    Example:
        >>> [conv_stack_cost(one).weights_per_channel_squared for one in ((3, 3, 3), (7,))]
        [27, 49]
    """
    return ConvStackCost(
        tuple(kernels),
        1 + sum(kernel - 1 for kernel in kernels),
        sum(kernel**2 for kernel in kernels),
        len(kernels),
    )
