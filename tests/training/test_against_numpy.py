"""Whole epochs against NumPy: forward, backward and update by hand, in float64.

The last batch of each epoch has fewer images than the others.
"""

import dataclasses
import functools

import numpy as np
import pytest

from cnnkit import models
from cnnkit.data import load_dataset
from cnnkit.data.pipeline import epoch_order
from cnnkit.training import train
from tests.helpers.tiny_network import DIGITS_CONFIG, tiny, weights_of

STRIDE, SIDE = 2, 3
MOMENTUM, DECAY = 0.8, 0.01


def read(split):
    images = np.stack([np.asarray(split.load_image(i)) for i in range(len(split))])
    return images.astype(np.float64) / 64 - 1, np.asarray(split.labels)


def forward(weights, images, labels):
    """The sum of the losses, the number of correct images, and what `backward` needs."""
    kernel, bias, dense, offset = weights
    windows = np.lib.stride_tricks.sliding_window_view(images, (SIDE, SIDE), (1, 2))
    windows = windows[:, ::STRIDE, ::STRIDE].transpose(0, 1, 2, 4, 5, 3)
    maps = np.tensordot(windows, kernel, 3) + bias
    hidden = np.maximum(maps, 0).reshape(len(images), -1)
    logits = hidden @ dense + offset
    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    loss = -log_probabilities[np.arange(len(labels)), labels].sum()
    correct = (logits.argmax(1) == labels).sum()
    return loss, correct, (windows, maps, hidden, log_probabilities)


def backward(weights, labels, known):
    """Gradients of the mean loss."""
    windows, maps, hidden, log_probabilities = known
    above = np.exp(log_probabilities)
    above[np.arange(len(labels)), labels] -= 1
    above /= len(labels)
    below = (above @ weights[2].T).reshape(maps.shape) * (maps > 0)
    kernel = np.tensordot(windows, below, ([0, 1, 2], [0, 1, 2]))
    return [kernel, below.sum((0, 1, 2)), hidden.T @ above, above.sum(0)]


@pytest.mark.parametrize(
    "fields", [{}, {"strategy": "mirrored"}, {"gradient_accumulation_steps": 3}]
)
def test_two_epochs_equal_those_of_numpy(fields, tmp_path, monkeypatch):
    starts = []

    @functools.wraps(tiny)
    def recorded(**options):
        model = tiny(**options)
        starts.append([value.astype(np.float64) for value in model.get_weights()])
        return model

    monkeypatch.setitem(models.BUILDERS, "tiny", recorded)
    config = dataclasses.replace(
        DIGITS_CONFIG, epochs=2, lr_milestones=(2,), momentum=MOMENTUM, weight_decay=DECAY, **fields
    )
    run = train(config, tmp_path / "run")
    splits = load_dataset("digits", seed=config.seed).splits
    (images, labels), held_out = read(splits["train"]), read(splits["test"])
    assert len(labels) % config.batch_size not in (0, config.batch_size - 1)
    weights = starts[-1]
    velocity = [np.zeros_like(value) for value in weights]
    for epoch, line in enumerate(run.metrics, start=1):
        rate = config.learning_rate * (0.1 if epoch == 2 else 1)
        order = epoch_order(len(labels), config.seed, epoch)
        total = right = 0.0
        for first in range(0, len(order), config.batch_size):
            batch = order[first : first + config.batch_size]
            loss, correct, known = forward(weights, images[batch], labels[batch])
            total, right = total + loss, right + correct
            gradients = backward(weights, labels[batch], known)
            for i, gradient in enumerate(gradients):
                # Biases do not decay.
                decayed = gradient + (DECAY * weights[i] if weights[i].ndim > 1 else 0)
                velocity[i] = MOMENTUM * velocity[i] - rate * decayed
                weights[i] = weights[i] + velocity[i]
        assert line["loss"] == pytest.approx(total / len(labels), rel=1e-4)
        assert line["accuracy"] == pytest.approx(right / len(labels), abs=1.5 / len(labels))
        loss, correct, _ = forward(weights, *held_out)
        assert line["val_loss"] == pytest.approx(loss / len(held_out[1]), rel=1e-4)
        assert line["val_accuracy"] == pytest.approx(correct / len(held_out[1]), abs=1e-9)
    for trained, expected in zip(weights_of(run), weights, strict=True):
        assert np.abs(trained - expected).max() < 1e-4 * np.abs(expected).max()
