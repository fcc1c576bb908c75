"""The input block and the classifier head."""

import keras
import numpy as np
import pytest

from cnnkit import alexnet, vgg16
from cnnkit.errors import UsageError


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_ends_in_float32(policy, rng):
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(policy)
        model = alexnet(input_shape=(64, 64, 3), classes=4, initializer="glorot")
    finally:
        keras.config.set_dtype_policy(before)
    outputs = model(rng.uniform(0, 255, (1, 64, 64, 3)).astype("float32"))
    assert outputs.dtype == "float32"
    assert model.get_layer("conv3").output.dtype == policy.removeprefix("mixed_")
    assert float(np.sum(outputs)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: alexnet(input_shape=(224, 224, 1)), "RGB images"),
        (lambda: vgg16(input_shape=(None, None, 3)), "known image size"),
        (lambda: alexnet(classes=0), "classes >= 1 and hidden_units >= 1. Received: classes=0"),
        (lambda: alexnet(pooling="mean", include_top=False), "Unknown pooling 'mean'"),
        (lambda: alexnet(pooling="avg"), "pooling=None, or include_top=False"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(UsageError) as error:
        call()
    assert text in str(error.value)
    assert "\n" not in str(error.value)
