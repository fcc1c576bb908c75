"""Backward rules of ReLU and normalization."""

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.errors import UsageError
from cnnkit.layers import (
    LocalResponseNormalization,
    ReLU,
    backward_rule,
)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("gradient", [0, -1, 0, -2]), ("deconvnet", [1, 0, 2, 0]), ("guided", [0, 0, 0, 0])],
)
def test_backward_rules(rule, expected):
    x = tf.constant([-1.0, 2.0, -3.0, 4.0])
    layer = ReLU()
    for function in (layer, tf.function(layer)):
        with backward_rule(rule), tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        np.testing.assert_array_equal(y, [0, 2, 0, 4])
        np.testing.assert_array_equal(
            tape.gradient(y, x, tf.constant([1.0, -1.0, 2.0, -2.0])), expected
        )


def test_normalization_is_passed_through_under_the_deconvnet(rng):
    x = tf.constant(rng.normal(0, 40, (1, 2, 2, 6)), tf.float32)
    signal = tf.constant(rng.normal(size=x.shape), tf.float32)
    for rule in ("deconvnet", "guided"):
        with backward_rule(rule), tf.GradientTape() as tape:
            tape.watch(x)
            y = LocalResponseNormalization()(x)
        np.testing.assert_array_equal(tape.gradient(y, x, signal), signal)


def test_unknown_rule_is_refused():
    with pytest.raises(UsageError, match="Did you mean deconvnet"), backward_rule("deconv"):
        pass
