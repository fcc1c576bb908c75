"""The networks that a weights file fits."""

from cnnkit.models import open_weights
from cnnkit.models.weights.compatible import compatible_networks


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
