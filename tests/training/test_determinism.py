"""Deterministic operations inside a block, and the caller's setting afterwards."""

import dataclasses

import pytest
import tensorflow as tf
from tensorflow.python.framework import config as framework_config

from cnnkit.training import train
from cnnkit.training.determinism import deterministic_operations
from tests.helpers.tiny_network import DIGITS_CONFIG


def sample():
    return float(tf.random.uniform(()))


def test_the_seed_decides_inside_and_the_callers_is_restored():
    tf.random.set_seed(11)
    first = sample()
    inside = []
    for _ in range(2):
        with deterministic_operations(5):
            assert framework_config.is_op_determinism_enabled()
            inside.append(sample())
        assert not framework_config.is_op_determinism_enabled()
    assert inside[0] == inside[1] != first
    # The caller's numbers start over with the caller's seed.
    assert sample() == first


def test_determinism_of_the_caller_stays_on():
    with deterministic_operations(1):
        with pytest.raises(KeyError), deterministic_operations(2):
            raise KeyError
        assert framework_config.is_op_determinism_enabled()
    assert not framework_config.is_op_determinism_enabled()


def test_training_leaves_the_setting_alone(tmp_path):
    config = dataclasses.replace(DIGITS_CONFIG, epochs=1, deterministic=True)
    train(config, tmp_path / "run")
    assert not framework_config.is_op_determinism_enabled()
