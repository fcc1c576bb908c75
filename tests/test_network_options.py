"""Facts of the networks that are known before TensorFlow starts, against the networks."""

import re
from contextlib import nullcontext

import pytest

from cnnkit._network_options import (
    ImageTooSmall,
    check_builder_options,
    check_image_sides,
    check_trained_options,
)
from cnnkit._networks import IMAGE_SIDES, LAYERS, LEAST_SIDES, OMITTABLE, OPTIONS
from cnnkit.errors import UsageError
from cnnkit.models import BUILDERS
from cnnkit.models.summary import build_without_weights


@pytest.mark.parametrize("name", LAYERS)
def test_the_facts_are_those_of_the_network(name):
    with pytest.raises(ImageTooSmall) as error:
        BUILDERS[name](input_shape=(1, 1, 3))
    assert error.value.least_side == LEAST_SIDES[name]
    with build_without_weights(name) as model:
        assert model.input_shape == (None, IMAGE_SIDES[name], IMAGE_SIDES[name], 3)
    assert ("omit_layers" in OPTIONS[name]) == (name in OMITTABLE)
    if name in OMITTABLE:
        with pytest.raises(UsageError) as error:
            BUILDERS[name](omit_layers=["nope"])
        assert error.value.expected == f"a list of some of {', '.join(OMITTABLE[name])}"


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("alexnet", {"omit_layers": ["conv9"]}, "Received: conv9"),
        ("vgg16", {"omit_layers": "fc1"}, "Received: fc1"),
        ("zfnet", {"drop_layers": ["conv5"]}, "Received: conv5"),
        ("zfnet", {"input_shape": [63, 63, 3]}, "of at least 64. Received: 63 x 63"),
        ("cifar10_quick", {"input_shape": [32, 7, 3]}, "of at least 8. Received: 32 x 7"),
    ],
)
def test_both_doors_say_the_same(name, options, text):
    """The early one knows the name of the network, and the builder its title."""
    with pytest.raises(UsageError, match=re.escape(text)) as early:
        check_builder_options(name, options)
    renamed = pytest.warns(FutureWarning) if "drop_layers" in options else nullcontext()
    with renamed, pytest.raises(UsageError) as late:
        BUILDERS[name](**options)
    assert early.value.expected == late.value.expected
    assert early.value.received == late.value.received


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("alexnet", {"omit_layers": ["conv3", "fc7"], "input_shape": [64, 64, 3]}),
        ("alexnet", {"preset": "torchvision", "input_shape": [63, 63, 3]}),
        ("alexnet", {"sixth_conv": 8, "omit_layers": ["conv6"]}),
        ("vgg16", {"input_shape": [None, None, 3], "include_top": False}),
        ("tiny", {"input_shape": [1, 1, 3]}),
    ],
)
def test_what_a_builder_takes_or_may_take_passes(name, options):
    check_builder_options(name, options)


def test_sizes_of_images_of_other_networks_are_not_known():
    check_image_sides("tiny", (1, 1), "image_size")
    check_image_sides("alexnet", (63, 63), "image_size", ["preset"])
    with pytest.raises(ImageTooSmall, match="`image_size` is too small for alexnet"):
        check_image_sides("alexnet", (224, 63), "image_size")


@pytest.mark.parametrize(
    "options",
    [
        {"classes": 3},
        {"include_top": False},
        {"classifier_activation": "tanh"},
        {"include_preprocessing": False},
    ],
)
def test_training_decides_some_options(options):
    with pytest.raises(UsageError):
        check_trained_options(options, begins_trained=True)
    check_trained_options({"include_preprocessing": False}, begins_trained=False)
    check_trained_options({"classifier_activation": None}, begins_trained=True)
