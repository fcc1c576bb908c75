"""Names and sources of the networks, and the cost of stacks of convolutions, without TensorFlow."""

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
