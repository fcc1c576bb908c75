"""Weights of one network in another, by name and by VGG's staged rule."""

import keras
import numpy as np
import pytest

from cnnkit.errors import UsageError
from cnnkit.models.surgery import (
    copy_weights,
)
from tests.helpers.surgery_networks import (
    assert_same_weights,
    assert_untouched,
    chain,
    frozen_copy,
    tiny,
    weights,
)


def test_copy_by_name():
    source, target = tiny(classes=4), tiny(classes=9)
    before, old = frozen_copy(source), weights(target)
    result = copy_weights(source, target)
    assert result.model is target
    assert (result.copied, result.reinitialized) == (("conv1", "conv2", "fc6", "fc7"), ("fc8",))
    assert_same_weights(source, target, result.copied)
    np.testing.assert_array_equal(old["fc8"][0], target.get_layer("fc8").get_weights()[0])
    assert_untouched(source, before)


def staged(columns, classes=3, side=32, top=True):
    """VGG's names at a width of 2 to 4 channels; `columns` convolutions in each block."""
    layers = []
    for block, count in enumerate(columns, start=1):
        for position in range(1, count + 1):
            name = f"block{block}_conv{position}"
            layers.append(keras.layers.Conv2D(min(1 + block, 4), 3, padding="same", name=name))
        layers.append(keras.layers.MaxPooling2D(2, name=f"block{block}_pool"))
    if top:
        layers.append(keras.layers.Flatten(name="flatten"))
        units = {"fc1": 6, "fc2": 5, "predictions": classes}
        layers += [keras.layers.Dense(n, name=name) for name, n in units.items()]
    return chain(*layers, side=side, name="x".join(map(str, columns)))


STAGED = (
    "block1_conv1", "block2_conv1", "block3_conv1", "block3_conv2", "fc1", "fc2", "predictions",
)  # fmt: skip


def test_copy_vgg_staged():
    a, d = staged((1, 1, 2, 2, 2)), staged((2, 2, 3, 3, 3))
    old = weights(d)
    result = copy_weights(a, d, rule="vgg-staged")
    assert result.copied == STAGED
    assert set(result.reinitialized) == set(old) - set(STAGED) and len(result.reinitialized) == 9
    assert_same_weights(a, d, STAGED)
    for name in result.reinitialized:
        np.testing.assert_array_equal(old[name][0], d.get_layer(name).get_weights()[0])
    # By name, the fourth and fifth block would come along too.
    assert "block4_conv1" in copy_weights(a, staged((2, 2, 3, 3, 3))).copied


def test_copy_vgg_staged_without_a_head():
    a, b = staged((1, 1, 2, 2, 2)), staged((2, 2, 2, 2, 2), top=False)
    assert copy_weights(a, b, "vgg-staged").copied == STAGED[:4]
    result = copy_weights(b, a, "vgg-staged")
    assert result.copied == STAGED[:4] and set(STAGED[4:]) < set(result.reinitialized)


def test_nothing_is_half_copied():
    a, d = staged((1, 1, 2, 2, 2)), staged((2, 2, 3, 3, 3), classes=8)
    before = frozen_copy(d)
    with pytest.raises(UsageError) as error:
        copy_weights(a, d, "vgg-staged")
    for text in ("'predictions'", "(5, 3)", "(5, 8)", "replace_head"):
        assert text in str(error.value)
    assert_untouched(d, before)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: copy_weights(tiny(), tiny(), "by_name"), "Did you mean by-name?"),
        (lambda: copy_weights(tiny(), tiny(), "vgg-staged"), "'chain' is not a VGG network"),
        (
            lambda: copy_weights(tiny(), keras.Sequential([keras.layers.Dense(2)], name="raw")),
            "Model 'raw' has no weights yet",
        ),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(UsageError) as error:
        call()
    assert text in str(error.value)
    assert "\n" not in str(error.value)
