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


def test_a_layer_has_a_kernel_a_stride_and_a_field_where_it_has_a_window():
    rows = {row.name: row for row in summarize_network(outline(BUILDERS["vgg16_c"]))}
    found = {
        name: (rows[name].kernel, rows[name].stride, rows[name].receptive_field)
        for name in ("block1_conv1", "block3_conv3", "block3_pool", "fc1_dropout", "fc2")
    }
    # By hand: 3, 5, pool 6; 10, 14, pool 16; 24, 32, and 32 for one pixel more, pool 36.
    assert found == {
        "block1_conv1": (3, 1, 3), "block3_conv3": (1, 1, 32), "block3_pool": (2, 2, 36),
        "fc1_dropout": (None, 1, None), "fc2": (None, 1, None),
    }  # fmt: skip
    assert rows["fc2"].output_shape == (4096,)
    assert rows["fc2"].activation_bytes == 4 * 4096
    assert rows["fc1_dropout"].multiply_adds == 0


def test_without_a_size_of_the_images_nothing_is_multiplied():
    rows = summarize_network(outline(alexnet, include_top=False))
    conv1 = next(row for row in rows if row.name == "conv1")
    assert (conv1.output_shape, conv1.multiply_adds, conv1.activation_bytes) == (
        (None, None, 96), None, None,
    )  # fmt: skip
    assert layer_macs(rows) == 0


def test_stacks():
    assert (conv_stack_cost((3, 3, 3)).receptive_field, conv_stack_cost((7,)).receptive_field) == (
        7,
        7,
    )
    assert conv_stack_cost((3, 3, 3)).weights_per_channel_squared == 27
    assert conv_stack_cost((7,)).weights_per_channel_squared == 49
    assert (conv_stack_cost((3, 3, 3)).activations, conv_stack_cost((7,)).activations) == (3, 1)
