"""Ablations: layers left out and other activations."""

import keras
import pytest

from cnnkit import alexnet
from cnnkit.errors import UsageError
from cnnkit.models import BUILDERS, build, vgg, zfnet
from tests.helpers.network_outlines import outline, shapes_of


def test_ablations_change_what_they_name():
    plain = shapes_of(outline(alexnet, lrn=False, overlapping_pooling=False))
    assert "norm1" not in plain
    assert (plain["pool1"][0], plain["pool2"][0], plain["pool5"][0]) == (27, 13, 6)
    for builder in (alexnet, zfnet):
        dropped = shapes_of(outline(builder, omit_layers=("conv3", "conv4", "fc6", "fc7")))
        assert {"conv3", "conv4", "fc6", "fc7"}.isdisjoint(dropped)
        assert {"conv5", "pool5", "fc8"} <= set(dropped)
    tanh = outline(alexnet, activation="tanh")
    assert tanh.get_layer("conv4").activation is keras.activations.tanh
    assert tanh.get_layer("fc7").activation is keras.activations.tanh
    assert shapes_of(outline(alexnet, sixth_conv=384))["conv6"] == (6, 6, 384)
    sigmoid = outline(vgg, config="A", activation="sigmoid")
    assert sigmoid.get_layer("block5_conv2").activation is keras.activations.sigmoid


@pytest.mark.parametrize("name", ["alexnet", "caffenet", "zfnet"])
def test_the_old_name_of_omit_layers(name):
    """Version 0.1 wrote `drop_layers` in the config.json of a run."""
    options = {"include_top": False, "input_shape": (67, 67, 3)}
    with pytest.warns(FutureWarning, match="is now called `omit_layers`") as caught:
        model = build(name, drop_layers=["conv3"], **options)
    assert f"The option `drop_layers` of {name} is now" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert shapes_of(model) == shapes_of(build(name, omit_layers=["conv3"], **options))
    with pytest.warns(FutureWarning, match="now called `omit_layers`"):
        BUILDERS[name](drop_layers=["conv3"], **options)
    with pytest.raises(UsageError, match="Unknown option of cifar10_quick 'drop_layers'"):
        build("cifar10_quick", drop_layers=["conv3"])
