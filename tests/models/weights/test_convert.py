"""Conversion of weights to a .keras file."""

import pytest

from cnnkit.errors import UsageError
from cnnkit.models import open_weights
from cnnkit.models.weights.convert import convert_weights


def test_conversion_overwrites_nothing(small_alexnet):
    file = open_weights(small_alexnet / "small.npz")
    before = (small_alexnet / "small.keras").read_bytes()
    with pytest.raises(UsageError, match="exists"):
        convert_weights(file, "alexnet", small_alexnet / "small.keras")
    with pytest.raises(UsageError, match="`output` must end in .keras"):
        convert_weights(file, "alexnet", small_alexnet / "small.h5")
    with pytest.raises(UsageError, match="has no weights for layer 'block1_conv1'"):
        convert_weights(file, "vgg16", small_alexnet / "new.keras")
    assert (small_alexnet / "small.keras").read_bytes() == before
    assert sorted(p.name for p in small_alexnet.iterdir()) == ["small.keras", "small.npz"]
