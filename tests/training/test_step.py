"""A step on one replica and on two, in parts, in half precision and compiled."""

import dataclasses
import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnkit.config import TrainingConfig
from cnnkit.errors import UsageError
from cnnkit.training import SGD
from cnnkit.training.build import build_components
from cnnkit.training.objectives import classification
from cnnkit.training.step import LossScale, StepRunner, ValidationRunner
from tests.helpers.tiny_network import tiny

CLASS_NAMES = tuple("0123456789")
STATISTICS = {"mean": np.zeros(3)}
CONFIG = TrainingConfig(model="tiny", image_size=8, learning_rate=0.1, seed=3)


def a_batch(rng, rows=16, images=13):
    return {
        "images": tf.constant(rng.uniform(0, 255, (rows, 8, 8, 3)), tf.float32),
        "labels": tf.constant(rng.integers(0, 10, rows), tf.int32),
        "weights": tf.constant(np.arange(rows) < images, tf.float32),
    }


def after_steps(batch, strategy=None, images=13, steps=3, **fields):
    """Weights after some steps of CONFIG with other fields, and the last step's counts."""
    config = dataclasses.replace(CONFIG, **fields)
    components = build_components(
        config, CLASS_NAMES, STATISTICS, strategy or tf.distribute.get_strategy()
    )
    for _ in range(steps):
        counts = components.step_runner.train(batch, images, config.learning_rate)
    return components.model.get_weights(), counts.numpy()


@pytest.mark.parametrize("images", [8, 7, 1])
def test_two_replicas_equal_one(mirrored, rng, images):
    """Even, uneven, and with one replica that has no image at all."""
    rows = 8
    batch = {
        "images": rng.uniform(0, 255, (rows, 8, 8, 3)).astype("float32"),
        "labels": rng.integers(0, 10, rows).astype("int32"),
        "weights": (np.arange(rows) < images).astype("float32"),
    }
    results = []
    for strategy in (tf.distribute.get_strategy(), mirrored):
        with strategy.scope():
            random.seed(0)
            model = tiny(classes=10, input_shape=(8, 8, 3), mean=None)
            steps = StepRunner(model, SGD(0.1, momentum=0.9, decay=5e-4), strategy)
        for _ in range(4):
            counts = steps.train(batch, images, 0.1)
        results.append((model.get_weights(), counts.numpy()))
    (one, one_metrics), (two, two_metrics) = results
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert one_metrics == pytest.approx(two_metrics, abs=1e-5)


def test_a_step_is_the_mean_over_the_real_images(rng):
    """The padded rows of a batch count for nothing: as Keras's own step on the images alone."""
    images = rng.uniform(0, 255, (5, 8, 8, 3)).astype("float32")
    labels = np.array([1, 2, 3, 4, 5], "int32")
    model = tiny(classes=10, input_shape=(8, 8, 3), mean=None)
    peer = keras.models.clone_model(model)
    peer.set_weights(model.get_weights())
    peer.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy())
    peer_loss = peer.train_on_batch(images, labels)
    steps = StepRunner(model, SGD(0.1, momentum=0.0), tf.distribute.get_strategy())
    # The padded rows are answered right.
    padding = np.full((3, 8, 8, 3), 99, "float32")
    answers = model.predict(np.concatenate([images, padding]), verbose=0).argmax(axis=1)
    batch = {
        "images": np.concatenate([images, padding]),
        "labels": np.concatenate([labels, answers[5:].astype("int32")]),
        "weights": np.float32([1] * 5 + [0] * 3),
    }
    held_out = steps.validate(batch).numpy()
    loss, correct = steps.train(batch, 5, 0.1).numpy()
    for a, b in zip(model.get_weights(), peer.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for found in (loss, held_out[0]):
        assert found / 5 == pytest.approx(peer_loss, abs=1e-5)
    assert correct == held_out[1] == (answers[:5] == labels).sum()


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("images", [16, 13, 3])
def test_a_batch_in_parts_equals_the_whole(rng, mirrored, parts, images):
    """Even, uneven, and with parts that hold no image at all; on one replica and on two."""
    batch = a_batch(rng, images=images)
    whole, counts = after_steps(batch, images=images, max_filter_rms=0.1)
    for strategy in (None, mirrored):
        fields = {"gradient_accumulation_steps": parts, "max_filter_rms": 0.1}
        weights, sums = after_steps(batch, strategy, images=images, **fields)
        for a, b in zip(whole, weights, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
        np.testing.assert_allclose(counts, sums, rtol=1e-4)


@pytest.mark.parametrize(
    ("fields", "tolerance"),
    [
        ({"precision": "mixed_bfloat16"}, 0.02),
        ({"precision": "mixed_float16"}, 0.003),
        ({"precision": "mixed_float16", "gradient_accumulation_steps": 2}, 0.003),
        ({"jit_compile": True}, 1e-5),
    ],
)
def test_half_precision_and_xla_stay_near_float32(rng, mirrored, fields, tolerance):
    batch = a_batch(rng)
    plain, _ = after_steps(batch)
    for strategy in (None,) if "jit_compile" in fields else (None, mirrored):
        weights, _ = after_steps(batch, strategy, **fields)
        assert {w.dtype for w in weights} == {np.dtype("float32")}
        for a, b in zip(plain, weights, strict=True):
            np.testing.assert_allclose(a, b, atol=tolerance)
    assert keras.config.dtype_policy().name == "float32"


def test_loss_scale_skips_what_is_not_finite_and_recovers(rng, mirrored):
    """A factor beyond float32's range takes no step and is halved; good steps double it."""
    batch = a_batch(rng)
    for strategy in (tf.distribute.get_strategy(), mirrored):
        config = dataclasses.replace(CONFIG, precision="mixed_float16")
        components = build_components(config, CLASS_NAMES, STATISTICS, strategy)
        scale = components.step_runner.loss_scale
        scale.growth_steps = 2
        scale.factor.assign(2.0**127)
        before = components.model.get_weights()
        components.step_runner.train(batch, 13, 0.1)
        for a, b in zip(before, components.model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert float(np.asarray(scale.factor.value)) == 2.0**126
        assert int(np.asarray(components.step_runner.optimizer.iterations.value)) == 0
        scale.factor.assign(1024.0)
        for expected in (1024.0, 2048.0):
            components.step_runner.train(batch, 13, 0.1)
            assert float(np.asarray(scale.factor.value)) == expected
        assert int(np.asarray(components.step_runner.optimizer.iterations.value)) == 2
        assert np.abs(components.model.get_weights()[0] - before[0]).max() > 1e-4


def test_loss_scaling_begins_as_in_keras():
    """The factor 2 to the power of 15, and 2,000 steps before it grows."""
    ours, keras_own = LossScale(), keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    assert float(ours.value()) == keras_own.initial_scale == 32768
    assert ours.growth_steps == keras_own.dynamic_growth_steps == 2000


def test_a_network_of_sigmoids_is_refused():
    inputs = keras.Input((8,))
    outputs = keras.layers.Dense(3, activation="sigmoid", name="fc8")(inputs)
    with pytest.raises(UsageError, match="`classifier_activation` must be a softmax, or None"):
        ValidationRunner(keras.Model(inputs, outputs), tf.distribute.get_strategy())


def test_a_padded_row_whose_loss_is_not_finite_counts_for_nothing(rng):
    """As 0 times infinity, which is no number, would."""

    def infinite_where_padded(outputs, batch):
        losses, correct = classification(outputs, batch)
        return tf.where(batch["weights"] > 0, losses, np.inf), correct

    model = tiny(classes=10, input_shape=(8, 8, 3), mean=None)
    strategy, batch = tf.distribute.get_strategy(), a_batch(rng)
    expected = ValidationRunner(model, strategy).validate(batch).numpy()
    found = ValidationRunner(model, strategy, objective=infinite_where_padded).validate(batch)
    np.testing.assert_array_equal(found, expected)
    assert np.isfinite(expected).all()
