"""Statistics of units over a dataset: how often they fire, for which classes, and like which."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

# Images whose activations are kept, for histograms and for the correlation of units.
SAMPLED = 2000
BINS = 24
# Units whose activations correlate more than this are nearly the same.
DUPLICATE = 0.98


@dataclass
class UnitStatistics:
    """Statistics of the units of one layer, collected batch by batch with fixed memory.

    The activation of a unit in an image is the largest of its map; a negative one counts as zero.

    Attributes:
        classes: Number of classes of the images.
        images: Number of images that were collected.
        fired: (units,) int64, in how many images a unit was active.
        class_sums: (classes, units) float64, sums of the activations by class.
        class_images: (classes,) int64, the images of each class.
        samples: Activations of the sampled images, (units,) float32 each.
    """

    classes: int
    images: int = 0
    fired: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    class_sums: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    class_images: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    samples: list[np.ndarray] = field(default_factory=list)

    def collect(self, values: np.ndarray, labels: np.ndarray, *, sampled: np.ndarray) -> None:
        """Add a batch.

        Args:
            values: (n, units) float32, the largest activation of each unit in each image.
            labels: (n,) int, the class of each image.
            sampled: (n,) bool, whether an image's activations are kept.
        """
        values = np.maximum(values, 0)
        if not len(self.fired):
            self.fired = np.zeros(values.shape[1], np.int64)
            self.class_sums = np.zeros((self.classes, values.shape[1]))
            self.class_images = np.zeros(self.classes, np.int64)
        self.images += len(values)
        self.fired += np.count_nonzero(values, axis=0)
        np.add.at(self.class_sums, labels, values)
        self.class_images += np.bincount(labels, minlength=self.classes)
        self.samples.extend(values[sampled])

    @property
    def firing_rate(self) -> np.ndarray:
        """(units,) float64, the fraction of the images in which a unit is active."""
        return self.fired / max(self.images, 1)

    @property
    def class_means(self) -> np.ndarray:
        """(classes, units) float64, the mean activation by class; 0 for a class without images."""
        return self.class_sums / np.maximum(self.class_images, 1)[:, None]

    @property
    def class_selectivity(self) -> np.ndarray:
        """(units,) float64 in 0..1, how much a unit prefers one class.

        (largest - others) / (largest + others), where `largest` is the largest mean activation of
        a class and `others` the mean of the other classes' (Morcos et al. 2018, equation 1).
        """
        means = self.class_means[self.class_images > 0]
        if len(means) < 2:
            return np.zeros(len(self.fired))
        largest = means.max(axis=0)
        others = (means.sum(axis=0) - largest) / (len(means) - 1)
        total = largest + others
        return np.divide(largest - others, total, out=np.zeros_like(total), where=total > 0)

    def histogram(self, unit: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a histogram of a unit's activations in the sampled images.

        Returns:
            (24,) int, the images in each bin, and (25,) float64, the edges from 0 on.
        """
        values = np.array([one[unit] for one in self.samples])
        return np.histogram(values, BINS, (0, float(values.max(initial=0)) or 1.0))

    def near_duplicates(self) -> np.ndarray:
        """Return for each unit the one that it is most like.

        Returns:
            (units,) int64, the other unit whose activations in the sampled images correlate most
            with those of this one; -1 if no correlation is above 0.98, or the unit is constant.
        """
        values = np.stack(self.samples).astype(np.float64)
        values -= values.mean(axis=0)
        lengths = np.linalg.norm(values, axis=0)
        values /= np.where(lengths > 0, lengths, 1)
        correlation = values.T @ values
        np.fill_diagonal(correlation, 0)
        nearest = correlation.argmax(axis=1)
        return np.where(correlation.max(axis=1) > DUPLICATE, nearest, -1)
