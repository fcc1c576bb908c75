"""Datasets and their splits: labels in memory, images read by index."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import tensorflow as tf

from cnnkit._dataset_spec import HELD_OUT_MARK
from cnnkit._file_tree import count_left_out
from cnnkit.data.decode import traced_decode_image
from cnnkit.data.formats import DEFAULT_DECODING, Decoding
from cnnkit.errors import UsageError, escape_controls

TEST_FRACTION = 0.2
# A few broken files are common in collected images; more of them mean a wrong folder.
MAX_UNREADABLE = 0.01
# Reasons of files that are left out: should be images, and images of a third split.
UNREADABLE = "unreadable"
UNUSED_SPLIT = "in the unused split"
MAX_SHOWN = 3

# A graph function of an index, () int64.
LoadByIndex = Callable[[tf.Tensor], tf.Tensor]


@dataclass(frozen=True, repr=False)
class Split:
    """Labeled images that can be read by index, in any order.

    Attributes:
        labels: (n,) int32, an index into the class names of the dataset.
        names: One name per image, for messages and file names.
        load_image: Graph function from an index, () int64, to an image, (h, w, 3) uint8 RGB.
        load_bytes: Graph function from an index, () int64, to the bytes of the image file,
            () string; None if the images have no files or their pixels are in memory.
        pixels: (n, h, w, 3) uint8 RGB if all images are in memory, else None.
        decoding: How the bytes of the files become images.
        boxes: (n, m, 4) float32 of boxes around the objects of the label: left, top, right and
            bottom in pixels of the image, the largest box first. Rows of NaN stand for an image
            with fewer than m objects. None for images without boxes.
    """

    labels: np.ndarray
    names: tuple[str, ...]
    load_image: LoadByIndex
    load_bytes: LoadByIndex | None = None
    pixels: tf.Tensor | None = None
    decoding: Decoding = DEFAULT_DECODING
    boxes: np.ndarray | None = None

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        if labels.ndim != 1 or (len(labels) and labels.dtype.kind not in "iu"):
            raise UsageError(
                "`labels` must be an integer for each image, an index into the class names",
                expected="integers of shape (n,)",
                received=f"{labels.dtype} of shape {labels.shape}",
            )
        if self.boxes is not None and np.shape(self.boxes)[0::2] != (len(labels), 4):
            raise UsageError(
                "`boxes` must hold the boxes of each image",
                expected=f"shape ({len(labels)}, m, 4)",
                received=np.shape(self.boxes),
            )

    @classmethod
    def from_pixels(cls, labels: np.ndarray, names: Sequence[str], pixels: np.ndarray) -> Split:
        """Return a split of images in memory, (n, h, w, 3) uint8 RGB."""
        with tf.device("CPU:0"):
            table = tf.constant(pixels)
        return cls(labels, tuple(names), lambda index: tf.gather(table, index), pixels=table)

    @classmethod
    def from_files(
        cls,
        labels: np.ndarray,
        names: Sequence[str],
        load_bytes: LoadByIndex,
        decoding: Decoding = DEFAULT_DECODING,
    ) -> Split:
        """Return a split of encoded images, which are decoded when they are read."""

        def load_image(index: tf.Tensor) -> tf.Tensor:
            return traced_decode_image(load_bytes(index), decoding)

        return cls(labels, tuple(names), load_image, load_bytes, decoding=decoding)

    def decoded(self, decoding: Decoding) -> Split:
        """Return the same images, decoded in another way; those in memory stay as they are."""
        if self.load_bytes is None or decoding == self.decoding:
            return self
        split = Split.from_files(self.labels, self.names, self.load_bytes, decoding)
        return replace(split, boxes=self.boxes)

    def subset(self, indices: np.ndarray) -> Split:
        """Return the images at `indices`, (m,) int, in that order."""
        with tf.device("CPU:0"):
            table = tf.constant(np.asarray(indices, np.int64))
        load_image, load_bytes = self.load_image, self.load_bytes
        return Split(
            self.labels[indices],
            tuple(self.names[index] for index in indices),
            lambda index: load_image(tf.gather(table, index)),
            None if load_bytes is None else lambda index: load_bytes(tf.gather(table, index)),
            None if self.pixels is None else tf.gather(self.pixels, table),
            self.decoding,
            None if self.boxes is None else self.boxes[indices],
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        """Return the number of images and where they are, on one line."""
        if self.pixels is not None:
            place = "in memory, {} x {} pixels".format(*self.pixels.shape[1:3])
        else:
            place = "computed by a function" if self.load_bytes is None else "in files"
        return f"<Split: {len(self):,} images {place}>"


@dataclass(frozen=True, repr=False)
class Dataset:
    """A dataset for single-label classification.

    Attributes:
        spec: The text that `cnnkit.data.load_dataset` opened it with.
        class_names: Names of the classes.
        splits: `train` and `test`.
        fingerprint: SHA-256, in hexadecimal. It changes when the list of images, a label or a
            split changes.
        left_out: Names of the files below the dataset's folder that are not used, by reason.
        label_files: Names of the files that labels were read from.
        empty_folders: Names of the folders in the place of a class folder without any image.
        modified: SHA-256 of the sizes and times of modification of the files of the images, in
            hexadecimal; empty if they have none.

    The images of all splits, `left_out` and `label_files` are together all files below the folder.
    """

    spec: str
    class_names: tuple[str, ...]
    splits: Mapping[str, Split]
    fingerprint: str
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    label_files: tuple[str, ...] = ()
    empty_folders: tuple[str, ...] = ()
    modified: str = ""

    def _repr_html_(self) -> str:
        """Return the classes and some images for a notebook."""
        from cnnkit.data.summary import dataset_html

        return dataset_html(self)

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Names of the files that were left out because they cannot be read as images."""
        return self.left_out.get(UNREADABLE, ())

    def count_by_class(self, split: str) -> np.ndarray:
        """Return the number of images of each class in a split, (classes,) int.

        Args:
            split: Name of the split.

        Example:
            >>> from cnnkit.data import load_dataset
            >>> load_dataset("digits").count_by_class("test")
            array([36, 36, 35, 37, 36, 36, 36, 36, 35, 36])
        """
        return np.bincount(self.splits[split].labels, minlength=len(self.class_names))

    def describe_left_out(self) -> str | None:
        """Return in words how many files are left out and why; None if there is nothing to say.

        Example:
            >>> left_out = {"hidden": ("a/.DS_Store",), "unreadable": ("a/1.png", "b/2.png")}
            >>> Dataset("folder:images", ("a", "b"), {}, "", left_out).describe_left_out()
            '3 files left out: 2 unreadable, 1 hidden'
        """
        counts = {reason: len(names) for reason, names in self.left_out.items() if names}
        parts = [count_left_out(counts)] if counts else []
        root = self.spec.rpartition(HELD_OUT_MARK)[0] or self.spec
        parts += [
            f"{root}{HELD_OUT_MARK}{reason.removeprefix(UNUSED_SPLIT).strip()} holds that split out"
            for reason in self.left_out
            if reason.startswith(UNUSED_SPLIT)
        ]
        if self.empty_folders:
            shown = ", ".join(self.empty_folders[:MAX_SHOWN])
            more = len(self.empty_folders) - MAX_SHOWN
            parts.append(f"no images in {shown}" + (f" and {more} more" if more > 0 else ""))
        return "; ".join(parts) or None

    def __repr__(self) -> str:
        """Return the classes, the number of images of each split, and what is left out.

        Example:
            >>> from cnnkit.data import load_dataset
            >>> load_dataset("digits")
            <Dataset digits: 10 classes (0, 1, 2, ...)
              train: 1,438 images in memory, 8 x 8 pixels; 139 to 146 of a class
              test: 359 images in memory, 8 x 8 pixels; 35 to 37 of a class>
        """
        shown = ", ".join(self.class_names[:MAX_SHOWN])
        more = ", ..." if len(self.class_names) > MAX_SHOWN else ""
        lines = [f"Dataset {self.spec}: {len(self.class_names):,} classes ({shown}{more})"]
        for name, split in self.splits.items():
            counts = self.count_by_class(name)
            about = repr(split).removeprefix("<Split: ").removesuffix(">")
            each = f"; {counts.min():,} to {counts.max():,} of a class" if len(split) else ""
            lines.append(f"  {name}: {about}{each}")
        if left_out := self.describe_left_out():
            lines.append(f"  {left_out}")
        return "<" + "\n".join(map(escape_controls, lines)) + ">"


def digest_times(files: Iterable[tuple[int, int]]) -> str:
    """Return `Dataset.modified` of files, given by their sizes and times in nanoseconds."""
    lines = "".join([f"{size} {modified}\n" for size, modified in files])
    return hashlib.sha256(lines.encode()).hexdigest()


def stratified_holdout(
    labels: np.ndarray, seed: int, fraction: float = TEST_FRACTION
) -> np.ndarray:
    """Choose the test images of a dataset that has no test split.

    Args:
        labels: (n,) int, the class of each image.
        seed: Seed of the choice within each class.
        fraction: Fraction of each class to hold out. At least one image of every class that has
            two or more is held out, and none of a class that has one.

    Returns:
        (n,) bool, true for the test images.

    Example:
        >>> stratified_holdout(np.repeat([0, 1], 5), seed=0).sum()
        np.int64(2)
    """
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        count = max(round(fraction * len(of_class)), min(1, len(of_class) - 1))
        order = np.random.default_rng((seed, int(label))).permutation(len(of_class))
        chosen[of_class[order[:count]]] = True
    return chosen
