"""The digits of scikit-learn."""

import numpy as np

from cnnkit.data import load_dataset


def test_digits_are_split_by_class_and_seed():
    one, again, other = (load_dataset("digits", seed=seed) for seed in (0, 0, 1))
    sizes = {name: len(split) for name, split in one.splits.items()}
    assert sum(sizes.values()) == 1797
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert not set(one.splits["train"].names) & set(one.splits["test"].names)
    counts = np.bincount(one.splits["test"].labels)
    assert counts.min() >= 34
    assert counts.max() <= 37
