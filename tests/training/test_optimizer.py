"""The update rule of SGD against formulas."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnkit.errors import UsageError
from cnnkit.training import SGD


def test_decay_is_inside_the_momentum():
    """Two thousand steps without a gradient leave 0.905202 of a weight, all of a bias."""
    kernel = keras.Variable(1.0, name="kernel")
    bias = keras.Variable(1.0, name="bias")
    optimizer = SGD(0.01, momentum=0.9, decay=5e-4)
    optimizer.build([kernel, bias])
    zeros = [tf.zeros(()), tf.zeros(())]

    @tf.function
    def fifty():
        for _ in range(50):
            optimizer.apply(zeros, [kernel, bias])

    for _ in range(20):
        fifty()
    assert float(kernel) == pytest.approx(0.951635, abs=2e-5)
    for _ in range(20):
        fifty()
    assert float(kernel) == pytest.approx(0.905202, abs=2e-5)
    assert float(bias) == 1.0


def test_update_equals_the_papers_rule(rng):
    w, v = rng.normal(size=4), np.zeros(4)
    variable = keras.Variable(w, name="kernel", dtype="float64")
    optimizer = SGD(0.1, momentum=0.9, decay=0.01)
    optimizer.build([variable])
    for rate in (0.1, 0.1, 0.01):
        gradient = rng.normal(size=4)
        optimizer.learning_rate = rate
        optimizer.apply([tf.constant(gradient)], [variable])
        v = 0.9 * v - 0.01 * rate * w - rate * gradient
        w = w + v
        np.testing.assert_allclose(variable.numpy(), w, rtol=1e-6)


@pytest.mark.parametrize("decayed", [0.0, 0.02])
def test_without_momentum_the_step_is_the_gradient_and_the_decay(decayed):
    kernel, bias = (keras.Variable(np.ones(2), name=name) for name in ("kernel", "bias"))
    optimizer = SGD(0.1, momentum=0.0, decay=decayed)
    optimizer.build([kernel, bias])
    for _ in range(2):
        optimizer.apply([tf.constant([1.0, -2.0])] * 2, [kernel, bias])
    kept = 1 - 0.1 * decayed
    expected = (kept - np.array([0.1, -0.2])) * kept - [0.1, -0.2]
    np.testing.assert_allclose(kernel.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(bias.numpy(), [0.8, 1.4], rtol=1e-6)


def test_multipliers_name_the_layer_and_its_weights_alone():
    """Of a nested network the path of a weight is longer."""
    with keras.name_scope("network"), keras.name_scope("conv1"):
        kernel = keras.Variable(1.0, name="kernel")
    optimizer = SGD(0.1, momentum=0.0, lr_multipliers={"conv1/kernel": 3})
    optimizer.build([kernel])
    optimizer.apply([tf.constant(1.0)], [kernel])
    assert float(kernel) == pytest.approx(0.7)


def test_names_of_0_1_0_are_read():
    """A compiled model that 0.1.0 saved holds them."""
    config = SGD(0.1, decay=0.02).get_config()
    for name in ("weight_decay_on_biases", "lr_multipliers", "weight_decay_multipliers"):
        del config[name]
    old = {"decay_biases": True, "rate_multipliers": {"*/bias": 2}, "decay_multipliers": {"a/*": 0}}
    optimizer = SGD.from_config({**config, **old})
    assert optimizer.weight_decay_on_biases is True
    assert optimizer.lr_multipliers == {"*/bias": 2}
    assert optimizer.weight_decay_multipliers == {"a/*": 0}


def test_keras_finds_the_variables_and_their_momenta(rng, mirrored):
    """Private API: `_get_variable_index` takes Keras's variables and TensorFlow's behind them."""
    for strategy in (tf.distribute.get_strategy(), mirrored):
        with strategy.scope():
            variables = [keras.Variable(rng.normal(size=3), name=name) for name in "ab"]
            optimizer = SGD(0.1, momentum=0.9)
            optimizer.build(variables)
        for i, variable in enumerate(variables):
            assert optimizer._get_variable_index(variable) == i
            assert optimizer._get_variable_index(variable.value) == i
            assert optimizer.momentums[i].shape == (3,)


def test_optimizer_survives_serialization():
    fields = {
        "momentum": 0.8, "decay": 0.02, "weight_decay_on_biases": True, "max_filter_rms": 0.1,
        "lr_multipliers": {"*/bias": 2}, "weight_decay_multipliers": {"fc8/*": 3},
    }  # fmt: skip
    optimizer = SGD(0.1, **fields)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    assert {name: getattr(again, name) for name in fields} == fields


@pytest.mark.parametrize("nesterov", [False, True])
def test_multipliers_equal_the_rule_by_hand(rng, nesterov):
    """Caffe's cifar10_full: biases at twice the rate, 250 times the decay on one layer's kernel."""
    names = ("conv1/kernel", "conv1/bias", "fc/kernel", "fc/bias")
    rates, decays = (1, 2, 1, 2), (0.01, 0.01, 2.5, 0.0)
    start = rng.normal(size=(4, 3))
    variables = []
    for name, value in zip(names, start, strict=True):
        layer, kind = name.split("/")
        with keras.name_scope(layer):
            variables.append(keras.Variable(value, name=kind, dtype="float64"))
    optimizer = SGD(
        0.1,
        momentum=0.9,
        decay=0.01,
        weight_decay_on_biases=True,
        lr_multipliers={"*/bias": 2},
        weight_decay_multipliers={"fc/bias": 0, "fc/*": 250},
        nesterov=nesterov,
    )
    optimizer.build(variables)
    w, v = start.copy(), np.zeros((4, 3))
    for _ in range(3):
        gradient = rng.normal(size=(4, 3))
        optimizer.apply([tf.constant(row) for row in gradient], variables)
        for i in range(4):
            step = 0.1 * rates[i] * (gradient[i] + decays[i] * w[i])
            v[i] = 0.9 * v[i] - step
            # Nesterov looks one step of the momentum ahead.
            w[i] += 0.9 * v[i] - step if nesterov else v[i]
    np.testing.assert_allclose([variable.numpy() for variable in variables], w, rtol=1e-6)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    with pytest.raises(UsageError, match=r"'fc9/\*' of lr_multipliers fits no weights.*fc/bias"):
        SGD(lr_multipliers={"fc9/*": 2}).build(variables)


def test_filters_are_scaled_back_to_their_rms(rng, mirrored):
    """Zeiler & Fergus: RMS over 7 x 7 x 3 of each filter; others and dense weights stay."""
    values = rng.normal(size=(7, 7, 3, 4)) * [0.05, 0.5, 0.09, 0.2]
    for strategy in (tf.distribute.get_strategy(), mirrored):
        with strategy.scope():
            kernel = keras.Variable(values, name="kernel", dtype="float32")
            dense = keras.Variable(np.ones((3, 3)), name="kernel", dtype="float32")
            optimizer = SGD(0.1, momentum=0.0, max_filter_rms=0.1)
            optimizer.build([kernel, dense])

        zeros = [tf.zeros(variable.shape) for variable in (kernel, dense)]
        step = partial(optimizer.apply, zeros, [kernel, dense])
        tf.function(partial(strategy.run, step))()
        after = np.asarray(kernel.value)
        rms = np.sqrt((after.astype("float64") ** 2).reshape(-1, 4).mean(0))
        np.testing.assert_allclose(rms[[1, 3]], 0.1, rtol=1e-6)
        expected = values.astype("float32")
        np.testing.assert_array_equal(after[..., [0, 2]], expected[..., [0, 2]])
        np.testing.assert_allclose(after[..., 1] / after[0, 0, 0, 1],
                                   values[..., 1] / values[0, 0, 0, 1], rtol=1e-4)  # fmt: skip
        np.testing.assert_array_equal(np.asarray(dense.value), np.ones((3, 3)))
