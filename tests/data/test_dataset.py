"""Splits of a dataset."""

import numpy as np

from cnnkit.data.dataset import stratified_holdout


def test_holdout_leaves_images_to_train_on():
    labels = np.array([0, 0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2])
    test = stratified_holdout(labels, seed=0)
    assert [int(test[labels == i].sum()) for i in range(3)] == [1, 0, 2]
