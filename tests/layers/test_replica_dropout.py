"""Dropout whose masks differ between replicas."""

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.layers import (
    Dropout,
)
from tests.helpers.layer_contract import check_layer


@pytest.mark.parametrize(
    ("make", "shape", "scale"),
    [
        (lambda **k: Dropout(0.5, **k), (2, 5, 3), 2.0),
    ],
    ids=["dropout"],
)
def test_contract(make, shape, scale, rng, tmp_path):
    inputs = rng.normal(0, scale, shape).astype("float32")
    outputs = check_layer(make, inputs, tmp_path)
    assert np.isfinite(outputs).all()


def test_dropout_differs_on_every_replica_and_repeats_from_its_seed(mirrored):
    with mirrored.scope():
        layer = Dropout(0.5, seed=3)
        layer.build((None, 200))
        start = [v.numpy() for v in layer.variables]

        @tf.function
        def step():
            return mirrored.run(lambda: layer(tf.ones((1, 200)), training=True))

        first = [v.numpy() for v in mirrored.experimental_local_results(step())]
        second = [v.numpy() for v in mirrored.experimental_local_results(step())]
        for variable, value in zip(layer.variables, start, strict=True):
            variable.assign(value)
        again = [v.numpy() for v in mirrored.experimental_local_results(step())]
    masks = [*first, *second]
    for i, one in enumerate(masks):
        assert set(np.unique(one)) == {0.0, 2.0}
        assert 70 < np.count_nonzero(one) < 130
        for other in masks[i + 1 :]:
            assert np.mean(one == other) < 0.7
    np.testing.assert_array_equal(first, again)


def test_a_noise_shape_drops_whole_feature_maps():
    layer = Dropout(0.5, noise_shape=(None, 1, 1, 40), seed=1)
    outputs = layer(tf.ones((3, 4, 5, 40)), training=True).numpy()
    np.testing.assert_array_equal(outputs, np.broadcast_to(outputs[:, :1, :1], outputs.shape))
    # Each image has a mask of its own, with 0 and 2 in it.
    assert {len(np.unique(image)) for image in outputs} == {2}
    assert len(np.unique(outputs[:, 0, 0], axis=0)) == 3


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
def test_the_gradient_is_the_mask(rate):
    x = tf.Variable(tf.ones((4, 50)))
    with tf.GradientTape() as tape:
        y = Dropout(rate, seed=1)(x, training=True)
    gradient = tape.gradient(y, x, unconnected_gradients="zero").numpy()
    np.testing.assert_array_equal(gradient, y)
    assert set(np.unique(gradient)) <= {
        np.float32(0),
        np.float32(1 / (1 - rate) if rate < 1 else 0),
    }


def test_dropout_outside_of_a_replica(mirrored):
    with mirrored.scope():
        outputs = Dropout(0.5, seed=1)(tf.ones((4, 50)), training=True)
    assert set(np.unique(outputs)) == {0, 2}
