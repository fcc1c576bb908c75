"""The learning-rate range test, on a network whose stable rates are known."""

import dataclasses

import numpy as np
import pytest

from cnnkit.errors import RunError, UsageError
from cnnkit.training import sweep_learning_rate, train
from cnnkit.training.learning_rate_sweep import LearningRateSweep, running_mean
from tests.helpers.tiny_network import DIGITS_CONFIG as CONFIG


def test_the_rate_found_trains_and_the_largest_of_the_sweep_does_not(tmp_path):
    config = dataclasses.replace(CONFIG, epochs=1, lr_milestones=())
    sweep = sweep_learning_rate(config, smallest=1e-4, largest=100.0, steps=40)
    assert len(sweep.rates) == len(sweep.losses) < 40
    # Ten classes: the network guesses, and is a little too sure of it.
    assert np.log(10) < sweep.losses[0] < 4
    assert sweep.losses[-1] > 2 * sweep.losses[0]
    # It ends with the first mean above four times the lowest one.
    smooth = running_mean(list(sweep.losses))
    assert smooth[-1] > 4 * min(smooth)
    assert all(one <= 4 * min(smooth[: i + 1]) for i, one in enumerate(smooth[:-1]))
    # The last batch of an epoch has 38 images in place of 100: the loss is that of one image.
    assert sweep.losses[14] > 0.7 * sweep.losses[15]
    run = train(dataclasses.replace(config, learning_rate=sweep.suggestion), tmp_path / "run")
    assert run.metrics[-1]["val_loss"] < 1.5
    assert sweep == sweep_learning_rate(config, smallest=1e-4, largest=100.0, steps=40)


def test_the_running_mean_is_corrected_for_its_start():
    """Adam's correction: the weights of the losses so far sum to 1."""
    assert running_mean([2.0, 4.0]) == pytest.approx([2.0, (0.8 * 2 + 4) / 1.8])


def test_the_suggestion_is_a_tenth_of_the_rate_of_the_lowest_loss():
    rates = [0.0123, 0.123, 1.23]
    found = LearningRateSweep.from_losses(rates, [5.0, 1.0, 9.0])
    assert (found.rates, found.losses) == ((0.0123, 0.123, 1.23), (5.0, 1.0, 9.0))
    assert found.suggestion == 0.012


def test_a_loss_that_is_not_finite_from_the_beginning_is_told():
    with pytest.raises(RunError, match="at which the loss stays finite. Received: 1e.30"):
        config = dataclasses.replace(CONFIG, model_options={"scale": 1e38})
        sweep_learning_rate(config, smallest=1e30, largest=1e35)


@pytest.mark.parametrize(
    "wrong", [{"smallest": 0}, {"smallest": 2}, {"smallest": 1.0}, {"steps": 9}]
)
def test_an_empty_range_is_refused(wrong):
    with pytest.raises(UsageError, match="`smallest` must be above 0 and below `largest`"):
        sweep_learning_rate(CONFIG, **wrong)
