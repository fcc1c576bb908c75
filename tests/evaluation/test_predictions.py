import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnkit.data import Split
from cnnkit.errors import UsageError
from cnnkit.evaluation import evaluate


def probe(classes=7):
    """A network that reads the order of its classes from the first row of the image."""
    inputs = keras.Input((8, 8, 3))
    first = keras.layers.Cropping2D(((0, 7), (0, 8 - classes)))(inputs)
    outputs = keras.layers.Lambda(lambda x: x[:, 0, :, 0])(first)
    return keras.Model(inputs, outputs)


def split_of(scores, labels):
    images = np.zeros((len(scores), 8, 8, 3), np.uint8)
    images[:, 0, : scores.shape[1], 0] = scores
    table = tf.constant(images)
    names = tuple(str(i) for i in range(len(labels)))
    return Split(np.asarray(labels, np.int32), names, lambda index: tf.gather(table, index))


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_errors_are_counted_as_by_hand(rng, batch_size):
    scores = rng.permuted(np.tile(np.arange(7) * 30, (23, 1)), axis=1)
    labels = rng.integers(0, 6, 23)
    result = evaluate(probe(), split_of(scores, labels), list("abcdefg"), batch_size=batch_size)
    best = [sorted(range(7), key=lambda c: -row[c]) for row in scores]
    top1 = np.array([label != order[0] for label, order in zip(labels, best, strict=True)])
    top5 = np.array([label not in order[:5] for label, order in zip(labels, best, strict=True)])
    assert result.images == 23
    assert result.top1_error == pytest.approx(top1.mean())
    assert result.top5_error == pytest.approx(top5.mean())
    assert 0 < result.top5_error < result.top1_error < 1
    for i, row in enumerate(result.classes):
        chosen = labels == i
        assert (row.label, row.images) == ("abcdefg"[i], chosen.sum())
        if chosen.any():
            assert row.top1_error == pytest.approx(top1[chosen].mean())
            assert row.top5_error == pytest.approx(top5[chosen].mean())
    assert result.classes[6].images == 0
    assert result.classes[6].top1_error is None


def test_other_classes_are_refused():
    with pytest.raises(UsageError, match="Expected: 7 classes. Received: 2: a, b"):
        evaluate(probe(), split_of(np.zeros((1, 7)), [0]), ["a", "b"])
