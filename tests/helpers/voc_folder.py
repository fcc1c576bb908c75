"""A small folder in the layout of PASCAL VOC."""

from pathlib import Path

import numpy as np
import tensorflow as tf

CLASSES = ("bird", "car", "dog")


def write_voc_folder(root: Path) -> Path:
    """Images that are red, green or blue somewhere: a bird, a car, a dog; some are difficult."""
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "JPEGImages").mkdir()
    random = np.random.default_rng(0)
    for split, count, first in (("trainval", 40, 0), ("test", 30, 40)):
        shows = random.random((count, 3)) < 0.5
        marks = np.where(shows, 1, -1)
        marks[random.random((count, 3)) < 0.1] = 0
        names = [f"{first + i:06d}" for i in range(count)]
        for name, row in zip(names, shows, strict=True):
            image = random.integers(0, 80, (40, 50, 3), np.uint8)
            for channel in np.flatnonzero(row):
                image[:, 16 * channel : 16 * channel + 16, channel] += 150
            data = tf.io.encode_jpeg(image, quality=95).numpy()
            (root / "JPEGImages" / f"{name}.jpg").write_bytes(data)
        for label, column in zip(CLASSES, marks.T, strict=True):
            lines = (f"{name} {mark:2d}\n" for name, mark in zip(names, column, strict=True))
            (root / "ImageSets" / "Main" / f"{label}_{split}.txt").write_text("".join(lines))
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
    return root
