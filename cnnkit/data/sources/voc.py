"""PASCAL VOC: images that have any number of classes each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from cnnkit.data.dataset import Split
from cnnkit.errors import DataError, UsageError

PREFIX = "voc:"
SPLITS = ("train", "val", "trainval", "test")
LAYOUT = "ImageSets/Main/CLASS_trainval.txt and JPEGImages, as the archives of PASCAL VOC unpack"
VOC_LABELS = (-1, 0, 1)


@dataclass(frozen=True)
class MultiLabelDataset:
    """A dataset whose images have any number of classes.

    Attributes:
        spec: How it was asked for.
        labels: Names of the classes.
        splits: Of `train`, `val`, `trainval` and `test` those that are there. The single label of a
            `cnnkit.data.Split` means nothing here and is 0.
        marks: For each split (n, classes) int8: 1 where the image shows the class, -1 where it does
            not, 0 where it is difficult to tell, which counts in neither training nor testing.
        fingerprint: Changes when the images or the marks change.
    """

    spec: str
    labels: tuple[str, ...]
    splits: Mapping[str, Split]
    marks: Mapping[str, np.ndarray]
    fingerprint: str


def load_voc(root: str | Path) -> MultiLabelDataset:
    """Opens a folder of PASCAL VOC, for example `VOCdevkit/VOC2007`.

    Args:
        root: The folder with `ImageSets/Main/CLASS_SPLIT.txt`, in which every line is the name of
            an image and -1, 0 or 1, and `JPEGImages/NAME.jpg`.

    Raises:
        UsageError: If there is no such folder.
        DataError: If a list is missing or torn, the classes' lists differ in their images, or an
            image is missing.

    Example:
        >>> from cnnkit.data.sources.voc import load_voc
        >>> voc = load_voc("VOCdevkit/VOC2007")  # doctest: +SKIP
        >>> voc.marks["trainval"].shape  # doctest: +SKIP
        (5011, 20)
    """
    path = Path(root)
    if not path.is_dir():
        raise UsageError(f"No folder {root}", expected="voc:PATH of an existing folder")
    lists = _lists(path)
    labels = tuple(sorted({label for label, _ in lists}))
    splits, marks = {}, {}
    digest = hashlib.sha256("\t".join(labels).encode())
    for split in SPLITS:
        of_split = {label: lists[label, split] for label in labels if (label, split) in lists}
        if not of_split:
            continue
        names, marks[split] = _marks(path, split, labels, of_split)
        files = [path / "JPEGImages" / f"{name}.jpg" for name in names]
        splits[split] = _split(files, names)
        for name, file, row in zip(names, files, marks[split], strict=True):
            digest.update(f"{split}\t{name}\t{file.stat().st_size}\t{row.tolist()}\n".encode())
    return MultiLabelDataset(f"{PREFIX}{root}", labels, splits, marks, digest.hexdigest())


def _lists(path: Path) -> dict[tuple[str, str], Path]:
    found = {}
    for file in sorted((path / "ImageSets" / "Main").glob("*_*.txt")):
        label, _, split = file.stem.rpartition("_")
        if split in SPLITS:
            found[label, split] = file
    if len({label for label, _ in found}) < 2:
        raise DataError(
            f"{path} is no PASCAL VOC",
            expected=f"at least two classes: {LAYOUT}",
            received=", ".join(file.name for file in found.values()) or "no lists",
        )
    return found


def _marks(path: Path, split: str, labels, of_split) -> tuple[tuple[str, ...], np.ndarray]:
    missing = [label for label in labels if label not in of_split]
    if missing:
        raise DataError(
            f"{path} lacks lists of the split {split}",
            expected="one for every class",
            received=f"none for {', '.join(missing)}",
        )
    columns, names = [], None
    for label in labels:
        rows = _read(of_split[label])
        if names is None:
            names = tuple(rows)
        if rows.keys() != set(names):
            odd = sorted(rows.keys() ^ set(names))
            raise DataError(
                f"{of_split[label]} lists other images than {of_split[labels[0]].name}",
                received=", ".join(odd[:3]),
            )
        columns.append([rows[name] for name in names])
    if not names:
        raise DataError(f"No images in {of_split[labels[0]]}")
    return names, np.array(columns, np.int8).T


def _read(file: Path) -> dict[str, int]:
    rows = {}
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or words[1] not in map(str, VOC_LABELS) or words[0] in rows:
            raise DataError(
                f"Line {number} of {file} is torn",
                expected="the name of an image, once, and -1, 0 or 1",
                received=line,
            )
        rows[words[0]] = int(words[1])
    return rows


def _split(files: list[Path], names: tuple[str, ...]) -> Split:
    for file in files:
        if not file.is_file():
            raise DataError(f"No image {file}", expected=LAYOUT)
    with tf.device("CPU:0"):
        table = tf.constant([str(file) for file in files])
    labels = np.zeros(len(files), np.int32)
    return Split.of_files(labels, names, lambda index: tf.io.read_file(tf.gather(table, index)))
