"""Feature specifications: defaults, JSON and fields out of range."""

import argparse

import pytest

from cnnkit._feature_options import check_feature_options
from cnnkit.cli.arguments import add_spec_arguments, spec_from_arguments
from cnnkit.errors import DataError, UsageError
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
    sized = FeatureSpec("fc6", image_size=40)
    assert FeatureSpec.from_dict(sized.to_dict()) == sized
    for wrong in (
        {}, [], None, {**fields, "color": "red"}, {**fields, "layer": 5}, {**fields, "scales": "a"},
        {**fields, "scales": [10**30]}, {**fields, "flip": "no"}, {**fields, "aggregate": []},
        {**fields, "pool": "flatten"}, {**fields, "scales": [2] * 1000},
    ):  # fmt: skip
        with pytest.raises(DataError, match="fields"):
            FeatureSpec.from_dict(wrong)


def test_fields_out_of_range():
    with pytest.raises(UsageError, match="Unknown aggregate 'sum'"):
        FeatureSpec("fc7", aggregate="sum")
    with pytest.raises(UsageError, match="`pool` must be 'average' or 'max'"):
        FeatureSpec.with_defaults("fc7", scales=(24,), pool="flatten")
    with pytest.raises(UsageError, match="`scales` and `image_size` must be integers from 1"):
        FeatureSpec("fc7", image_size=0)
    with pytest.raises(UsageError, match="`image_size` must be None with `scales`"):
        FeatureSpec("fc7", (24,), pool="max", image_size=24)


def test_the_options_of_commands_are_the_fields():
    parser = argparse.ArgumentParser()
    add_spec_arguments(parser)
    words = "--scales 24,30 --aggregate max --no-flip --pool max --no-l2"
    args = parser.parse_args(words.split())
    assert spec_from_arguments(args, "fc6") == FeatureSpec(
        "fc6", (24, 30), "max", flip=False, pool="max", l2=False
    )
    args = parser.parse_args(["--image-size", "40"])
    assert spec_from_arguments(args, args.layer) == FeatureSpec("fc7", image_size=40)


@pytest.mark.parametrize(
    ("scales", "pool", "image_size", "fits"),
    [
        ((1, 4096), "average", None, True),
        ((4097,), "average", None, False),
        ((0,), "max", None, False),
        ((), "flatten", 4096, True),
        ((), "flatten", 4097, False),
        ((), "flatten", 0, False),
        ((256,), "flatten", None, False),
        ((256,), "max", 224, False),
        ((256.0,), "max", None, False),
    ],
)
def test_sides_of_images_and_what_belongs_together(scales, pool, image_size, fits):
    if fits:
        check_feature_options(scales, "stack", pool, image_size)
        return
    with pytest.raises(UsageError):
        check_feature_options(scales, "stack", pool, image_size)
