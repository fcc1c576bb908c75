"""Receptive fields and multiply-adds worked out by hand."""

import pytest

from cnnkit import alexnet
from cnnkit._networks import conv_stack_cost
from cnnkit.models import BUILDERS, summarize_network
from cnnkit.models.summary import layer_macs
from tests.helpers.network_outlines import outline


# Receptive field and step of the reference nets, worked out by hand from kernels and strides.
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("alexnet", {"conv1": 11, "pool1": 19, "conv2": 51, "pool2": 67, "conv3": 99, "conv4": 131,
                     "conv5": 163, "pool5": 195}),
        ("zfnet", {"conv1": 7, "pool1": 11, "conv2": 27, "pool2": 43, "conv3": 75, "conv5": 139,
                   "pool5": 171}),
        ("vgg16", {"block1_conv2": 5, "block1_pool": 6, "block3_conv3": 40, "block4_conv3": 92,
                   "block5_conv3": 196, "block5_pool": 212}),
    ],
)  # fmt: skip
def test_receptive_fields(name, fields):
    rows = {row.name: row for row in summarize_network(outline(BUILDERS[name]))}
    assert {layer: rows[layer].receptive_field for layer in fields} == fields


def test_multiply_adds_by_hand():
    rows = {row.name: row for row in summarize_network(outline(alexnet))}
    # Two towers: each kernel sees half of the 96 maps.
    assert rows["conv2"].multiply_adds == 27 * 27 * 256 * 5 * 5 * 48
    assert rows["fc6"].multiply_adds == 9216 * 4096
    assert rows["conv1"].activation_bytes == 4 * 55 * 55 * 96
    assert layer_macs(list(rows.values())) == sum(row.multiply_adds for row in rows.values())
    # 15.5 billion is the figure that is commonly given for VGG-16.
    assert layer_macs(summarize_network(outline(BUILDERS["vgg16"]))) == pytest.approx(
        15.5e9, rel=0.01
    )


def test_stacks():
    assert (conv_stack_cost((3, 3, 3)).receptive_field, conv_stack_cost((7,)).receptive_field) == (
        7,
        7,
    )
    assert conv_stack_cost((3, 3, 3)).weights_per_channel_squared == 27
    assert conv_stack_cost((7,)).weights_per_channel_squared == 49
    assert (conv_stack_cost((3, 3, 3)).activations, conv_stack_cost((7,)).activations) == (3, 1)
