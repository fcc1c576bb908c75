"""The learning-rate range test, on a network whose stable rates are known."""

import dataclasses

import numpy as np
import pytest

from cnnkit.errors import UsageError
from cnnkit.training import sweep_learning_rate, train
from cnnkit.training.learning_rate_sweep import SMOOTHING, running_mean
from tests.helpers.tiny_network import DIGITS_CONFIG as CONFIG


def test_the_rate_found_trains_and_the_largest_of_the_sweep_does_not(tmp_path):
    config = dataclasses.replace(CONFIG, epochs=1, lr_milestones=())
    sweep = sweep_learning_rate(config, smallest=1e-4, largest=100.0, steps=40)
    assert len(sweep.rates) == len(sweep.losses) < 40
    # Ten classes: the network guesses, and is a little too sure of it.
    assert np.log(10) < sweep.losses[0] < 4
    assert sweep.losses[-1] > 2 * sweep.losses[0]
    # The last batch of an epoch has 38 images in place of 100: the loss is that of one image.
    assert sweep.losses[14] > 0.7 * sweep.losses[15]
    run = train(dataclasses.replace(config, learning_rate=sweep.suggestion), tmp_path / "run")
    assert run.metrics[-1]["val_loss"] < 1.5
    assert sweep == sweep_learning_rate(config, smallest=1e-4, largest=100.0, steps=40)


def test_the_running_mean_is_corrected_for_its_start():
    """Adam's correction: the weights of the losses so far sum to 1."""
    assert running_mean([2.0, 4.0]) == pytest.approx([2.0, (SMOOTHING * 2 + 4) / (SMOOTHING + 1)])


@pytest.mark.parametrize("wrong", [{"smallest": 0}, {"smallest": 2}, {"steps": 9}])
def test_an_empty_range_is_refused(wrong):
    with pytest.raises(UsageError, match="`smallest` must be above 0 and below `largest`"):
        sweep_learning_rate(CONFIG, **wrong)
