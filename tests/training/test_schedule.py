"""Learning rates by each schedule, against the numbers by hand."""

import math

import numpy as np
import pytest

from cnnkit.config import TrainingConfig
from cnnkit.training.schedule import PlateauState, learning_rate_at


def test_learning_rate_drops_before_the_epochs_named():
    config = TrainingConfig(learning_rate=1.0, lr_milestones=(3, 5), lr_decay=0.5)
    assert [learning_rate_at(config, e) for e in range(1, 7)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


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
    assert learning_rate_at(config, 9) == 0.01


def test_an_improvement_begins_to_wait_anew():
    waiting = PlateauState(best=0.5, waited=1, drops=2)
    assert waiting.after(0.6, patience=2, max_drops=3) == PlateauState(0.6, 0, 2)
    assert waiting.after(0.5, patience=2, max_drops=3) == PlateauState(0.5, 0, 3)
    assert waiting.after(0.5, patience=3, max_drops=3) == PlateauState(0.5, 2, 2)


def test_warm_up_and_cosine():
    config = TrainingConfig(learning_rate=1.0, schedule="cosine", warmup_epochs=2, epochs=6)
    rates = [learning_rate_at(config, e, s, 4) for e in range(1, 7) for s in range(4)]
    np.testing.assert_allclose(rates[:8], np.arange(1, 9) / 8)
    falling = [(1 + math.cos(math.pi * i / 16)) / 2 for i in range(16)]
    np.testing.assert_allclose(rates[8:], falling)
    # Without steps an epoch has one.
    assert [learning_rate_at(config, epoch) for epoch in (1, 2)] == [0.5, 1]
    steps = TrainingConfig(learning_rate=1.0, lr_milestones=(3,), warmup_epochs=0.5)
    assert [learning_rate_at(steps, e, s, 2) for e in (1, 2, 3) for s in (0, 1)] == pytest.approx(
        [1, 1, 1, 1, 0.1, 0.1]
    )
    # The first step behind the warm-up has the rate of the schedule.
    dropped = TrainingConfig(learning_rate=1.0, lr_milestones=(2,), warmup_epochs=1)
    assert [learning_rate_at(dropped, epoch) for epoch in (1, 2)] == [1, 0.1]
    # The warm-up ends within an epoch of two steps: no rate is above the one that it leads to.
    part = TrainingConfig(learning_rate=1.0, lr_milestones=(), warmup_epochs=0.75)
    assert [learning_rate_at(part, 1, s, 2) for s in (0, 1)] == pytest.approx([2 / 3, 1])
