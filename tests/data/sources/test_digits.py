"""The digits of scikit-learn."""

import numpy as np
import sklearn.datasets

from cnnkit.data import load_dataset


def test_digits_are_split_by_class_and_seed():
    one, again, other = (load_dataset("digits", seed=seed) for seed in (0, 0, 1))
    sizes = {name: len(split) for name, split in one.splits.items()}
    assert sum(sizes.values()) == 1797
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert not set(one.splits["train"].names) & set(one.splits["test"].names)
    # Of 0 to 16 levels of ink to gray levels, rounded.
    inks, labels = sklearn.datasets.load_digits(return_X_y=True)
    for split in one.splits.values():
        index = [int(name.removeprefix("digit")) for name in split.names]
        np.testing.assert_array_equal(split.labels, labels[index])
        gray = np.floor(inks[index] * 255 / 16 + 0.5).reshape(-1, 8, 8)
        for channel in range(3):
            np.testing.assert_array_equal(split.pixels[..., channel], gray)
    counts = np.bincount(one.splits["test"].labels)
    assert counts.min() >= 34
    assert counts.max() <= 37
