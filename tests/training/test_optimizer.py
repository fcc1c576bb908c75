"""The rule of a step against formulas, and batches in parts or half precision against the whole."""

import dataclasses
import math
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnkit import models
from cnnkit.config import TrainingConfig
from cnnkit.errors import UsageError
from cnnkit.run_folder import RunFolder
from cnnkit.training import SGD, train
from cnnkit.training.build import build_components
from cnnkit.training.schedule import PlateauState, learning_rate_at
from tests.helpers.tiny_network import tiny


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch):
    monkeypatch.setitem(models.BUILDERS, "tiny", tiny)


LABELS = tuple("0123456789")
MEASURED = {"mean": np.zeros(3)}
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
        config, LABELS, MEASURED, strategy or tf.distribute.get_strategy()
    )
    for _ in range(steps):
        counts = components.step_runner.train(batch, images, config.learning_rate)
    return components.model.get_weights(), counts.numpy()


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
        components = build_components(config, LABELS, MEASURED, strategy)
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
        assert np.abs(components.model.get_weights()[0] - before[0]).max() > 1e-4


def test_a_run_in_half_precision_saves_float32(tmp_path):
    config = dataclasses.replace(CONFIG, precision="mixed_bfloat16", epochs=1, keep_best=True)
    run = train(config, tmp_path / "run")
    for file in (run.model_file, run.best_file):
        model = keras.saving.load_model(file)
        assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    [line] = RunFolder(tmp_path / "run").metrics
    assert line["val_accuracy"] > 0.3


def test_plateau_drops_three_times_and_no_more():
    """Improvements restart the count; patience 2; the papers' three drops."""
    accuracies = [0.1, 0.2, 0.2, 0.15, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
    drops, plateau = [], PlateauState()
    for accuracy in accuracies:
        plateau = plateau.after(accuracy, patience=2, max_drops=3)
        drops.append(plateau.drops)
    assert drops == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 3, 3]
    config = TrainingConfig(schedule="plateau", learning_rate=0.01)
    assert learning_rate_at(config, 9, plateau=PlateauState(drops=3)) == pytest.approx(1e-5)


def test_warm_up_and_cosine():
    config = TrainingConfig(learning_rate=1.0, schedule="cosine", warmup_epochs=2, epochs=6)
    rates = [learning_rate_at(config, e, s, 4) for e in range(1, 7) for s in range(4)]
    np.testing.assert_allclose(rates[:8], np.arange(1, 9) / 8)
    falling = [(1 + math.cos(math.pi * i / 16)) / 2 for i in range(16)]
    np.testing.assert_allclose(rates[8:], falling)
    steps = TrainingConfig(learning_rate=1.0, lr_milestones=(3,), warmup_epochs=0.5)
    assert [learning_rate_at(steps, e, s, 2) for e in (1, 2, 3) for s in (0, 1)] == pytest.approx(
        [1, 1, 1, 1, 0.1, 0.1]
    )


def test_init_from_begins_with_another_runs_weights(tmp_path):
    config = dataclasses.replace(CONFIG, epochs=1)
    first = train(config, tmp_path / "first")
    second = dataclasses.replace(
        config, init_from=str(first.path), seed=8, learning_rate=1e-9, momentum=0.0
    )
    run = train(second, tmp_path / "second")
    for a, b in zip(*(keras.saving.load_model(r.model_file).get_weights() for r in (first, run)),
                    strict=True):  # fmt: skip
        np.testing.assert_allclose(a, b, atol=1e-6)
    with pytest.raises(UsageError, match="No model at"):
        train(dataclasses.replace(second, init_from="/no/where"), tmp_path / "third")
    assert not (tmp_path / "third").exists()
