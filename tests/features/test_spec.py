"""Feature specifications: defaults, JSON and fields out of range."""

import pytest

from cnnkit.errors import UsageError
from cnnkit.features import FeatureSpec


def test_the_defaults_depend_on_the_scales():
    assert FeatureSpec.with_defaults("fc7") == FeatureSpec("fc7", flip=False, pool="flatten")
    dense = FeatureSpec.with_defaults("fc7", scales=[256, 384])
    assert (dense.scales, dense.flip, dense.pool) == ((256, 384), True, "average")
    assert FeatureSpec.with_defaults("fc7", scales=(256,), flip=False, pool="max") == FeatureSpec(
        "fc7", (256,), flip=False, pool="max"
    )


def test_a_spec_survives_json():
    spec = FeatureSpec("fc7", (256, 384), "max", True, "average", False)
    fields = spec.to_dict()
    assert fields["scales"] == [256, 384]
    assert FeatureSpec.from_dict(fields) == spec
    for wrong in ({}, {**fields, "color": "red"}):
        with pytest.raises(UsageError, match="`fields` must be those of a FeatureSpec"):
            FeatureSpec.from_dict(wrong)


def test_fields_out_of_range():
    with pytest.raises(UsageError, match="Unknown aggregate 'sum'"):
        FeatureSpec("fc7", aggregate="sum")
    with pytest.raises(UsageError, match="`pool` must be 'average' or 'max'"):
        FeatureSpec.with_defaults("fc7", scales=(24,), pool="flatten")
    with pytest.raises(UsageError, match="`scales` and `image_size` must be at least 1"):
        FeatureSpec("fc7", image_size=0)
    with pytest.raises(UsageError, match="`image_size` must be None with `scales`"):
        FeatureSpec("fc7", (24,), pool="max", image_size=24)
