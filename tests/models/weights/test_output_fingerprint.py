"""The stored output of a converted network, compared on loading."""

import json
import zipfile

import keras
import pytest

from cnnkit import load_model
from cnnkit.errors import RunError
from cnnkit.models import alexnet
from cnnkit.models.weights.output_fingerprint import MEMBER


def test_another_network_with_the_same_shapes_is_refused(small_alexnet):
    model = load_model(small_alexnet / "small.keras")
    assert (
        alexnet(include_top=False, weights=small_alexnet / "small.keras").count_params()
        == 2_334_080
    )
    with zipfile.ZipFile(small_alexnet / "small.keras") as archive:
        recorded = json.loads(archive.read(MEMBER))
    assert recorded["image"] == [224, 224]
    assert len(recorded["values"]) == 256
    # The same shapes, another network: without its normalization.
    other = alexnet(include_top=False, lrn=False)
    other.set_weights(model.get_weights())
    other.save(small_alexnet / "other.keras")
    with zipfile.ZipFile(small_alexnet / "other.keras", "a") as archive:
        archive.writestr(MEMBER, json.dumps(recorded))
    with pytest.raises(RunError, match="is not the output at conversion"):
        load_model(small_alexnet / "other.keras")


def test_other_inputs_precisions_and_means_are_not_compared(small_alexnet):
    """Another input, precision or mean answers otherwise, and rightly so."""
    options = {"include_top": False, "weights": small_alexnet / "small.keras"}
    for more in ({"include_preprocessing": False}, {"mean": (1, 2, 3)}):
        assert alexnet(**options, **more).count_params() == 2_334_080
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        assert alexnet(**options).count_params() == 2_334_080
    finally:
        keras.config.set_dtype_policy(before)
    with pytest.raises(RunError, match="is not the output at conversion"):
        alexnet(**options, activation="tanh")
