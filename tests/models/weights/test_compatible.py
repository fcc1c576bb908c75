"""The networks that a weights file fits."""

import collections

import pytest

from cnnkit.errors import UsageError
from cnnkit.models import BUILDERS, open_weights
from cnnkit.models.summary import build_without_weights
from cnnkit.models.weights.compatible import (
    compatible_networks,
    describe_differences,
    only_compatible,
)


def test_compatible_networks_and_the_first_difference_of_others(small_alexnet):
    found = compatible_networks(open_weights(small_alexnet / "small.npz"))
    fitting = [fit.network for fit in found if fit.problem is None]
    assert fitting == ["alexnet_caffe", "caffenet", "alexnet"]
    by_name = {fit.network: fit for fit in found}
    problem = by_name["alexnet_torchvision"].problem
    assert "conv1_W (11, 11, 3, 96) is not the kernel of 'conv1'" in problem
    assert "Expected: (11, 11, 3, 64)" in problem
    # What a converted network declares tells it from its kin.
    fitting = [
        f.network
        for f in compatible_networks(open_weights(small_alexnet / "small.keras"))
        if f.problem is None
    ]
    assert fitting == ["alexnet"]


def test_several_networks_are_told_apart(small_alexnet):
    with pytest.raises(UsageError) as caught:
        only_compatible(open_weights(small_alexnet / "small.npz"))
    assert "whose arrays fit several. Expected: alexnet_caffe (Caffe's bvlc_alex" in str(
        caught.value
    )
    assert "or alexnet (the paper's network" in str(caught.value)


def test_networks_of_the_same_shapes_have_a_difference():
    by_shapes = collections.defaultdict(list)
    for name in BUILDERS:
        with build_without_weights(name, include_top=False) as model:
            shapes = [tuple(layer.kernel.shape) for layer in model.layers if layer.weights]
        by_shapes[tuple(shapes)].append(name)
    alike = [names for names in by_shapes.values() if len(names) > 1]
    assert ["alexnet", "alexnet_caffe", "caffenet"] in alike
    for names in alike:
        assert describe_differences(names).count(" (") == len(names), names
