"""The handwritten digits of scikit-learn: real images without a download."""

from __future__ import annotations

import hashlib

import numpy as np

from cnnkit.data.dataset import Dataset, Split, stratified_holdout

# scikit-learn's digits are 8 x 8 counts of ink in 0..16.
INK_LEVELS = 16


def load_digits(seed: int) -> Dataset:
    """Return the 1,797 digits as 8 x 8 RGB images, a fifth of each class held out.

    Args:
        seed: Seed of the split.
    """
    from sklearn import datasets

    counts, labels = datasets.load_digits(return_X_y=True)
    images = np.round(counts.reshape(-1, 8, 8, 1) * (255 / INK_LEVELS)).astype(np.uint8)
    images = np.repeat(images, 3, axis=-1)
    labels = labels.astype(np.int32)
    test = stratified_holdout(labels, seed)
    digest = hashlib.sha256(images.tobytes() + labels.tobytes() + test.tobytes())
    splits = {}
    for name, members in (("train", ~test), ("test", test)):
        index = np.flatnonzero(members)
        names = [f"digit{i:04d}" for i in index]
        splits[name] = Split.from_pixels(labels[members], names, images[members])
    return Dataset("digits", tuple("0123456789"), splits, digest.hexdigest())
