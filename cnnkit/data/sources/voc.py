"""PASCAL VOC: images that have any number of classes each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from cnnkit._dataset_spec import missing_folder
from cnnkit._files import read_lines
from cnnkit._untrusted.images import check_image_file
from cnnkit.data.dataset import Split
from cnnkit.errors import DataError

PREFIX = "voc:"
SPLITS = ("train", "val", "trainval", "test")
LAYOUT = "ImageSets/Main/CLASS_trainval.txt and JPEGImages, as the archives of PASCAL VOC unpack"
VOC_LABELS = (-1, 0, 1)


@dataclass(frozen=True)
class MultiLabelDataset:
    """A dataset whose images have any number of classes.

    Attributes:
        spec: The text that it was opened with.
        class_names: Names of the classes.
        splits: Those of `train`, `val`, `trainval` and `test` that the folder has. The `labels` of
            these splits are all 0: use `voc_labels`.
        voc_labels: For each split (n, classes) int8: 1 if the image shows the class, -1 if it does
            not, 0 if it is marked as difficult, which counts in neither training nor testing.
        fingerprint: SHA-256, in hexadecimal. It changes when the images or their labels change.
    """

    spec: str
    class_names: tuple[str, ...]
    splits: Mapping[str, Split]
    voc_labels: Mapping[str, np.ndarray]
    fingerprint: str


def load_voc(root: str | Path) -> MultiLabelDataset:
    """Open a folder of PASCAL VOC, for example `VOCdevkit/VOC2007`.

    Args:
        root: The folder with `ImageSets/Main/CLASS_SPLIT.txt`, in which every line is the name of
            an image and -1, 0 or 1, and `JPEGImages/NAME.jpg`.

    Raises:
        UsageError: If there is no such folder.
        DataError: If a list is missing or malformed, the lists of two classes name different
            images, or an image is missing.

    Example:
        >>> from cnnkit.data.sources.voc import load_voc
        >>> voc = load_voc("VOCdevkit/VOC2007")  # doctest: +SKIP
        >>> voc.voc_labels["trainval"].shape  # doctest: +SKIP
        (5011, 20)
    """
    path = Path(root)
    if not path.is_dir():
        raise missing_folder("voc", root)
    lists = _find_lists(path)
    class_names = tuple(sorted({label for label, _ in lists}))
    splits, voc_labels = {}, {}
    digest = hashlib.sha256("\t".join(class_names).encode())
    for split in SPLITS:
        of_split = {label: lists[label, split] for label in class_names if (label, split) in lists}
        if not of_split:
            continue
        names, voc_labels[split] = _read_split(path, split, class_names, of_split)
        files = [path / "JPEGImages" / f"{name}.jpg" for name in names]
        splits[split] = _split_from_files(files, names)
        for name, file, row in zip(names, files, voc_labels[split], strict=True):
            digest.update(f"{split}\t{name}\t{file.stat().st_size}\t{row.tolist()}\n".encode())
    return MultiLabelDataset(f"{PREFIX}{root}", class_names, splits, voc_labels, digest.hexdigest())


def _find_lists(path: Path) -> dict[tuple[str, str], Path]:
    """Return the list files by class and split."""
    found = {}
    for file in sorted((path / "ImageSets" / "Main").glob("*_*.txt")):
        label, _, split = file.stem.rpartition("_")
        if split in SPLITS:
            found[label, split] = file
    if len({label for label, _ in found}) < 2:
        raise DataError(
            f"{path} is not a folder of PASCAL VOC",
            expected=f"at least two classes: {LAYOUT}",
            received=", ".join(file.name for file in found.values()) or "no lists",
        )
    return found


def _read_split(
    path: Path, split: str, class_names: Sequence[str], of_split: Mapping[str, Path]
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of the images of a split, and their labels, (n, classes) int8."""
    missing = [label for label in class_names if label not in of_split]
    if missing:
        raise DataError(
            f"{path} lacks lists of the split {split}",
            expected="one for every class",
            received=f"none for {', '.join(missing)}",
        )
    columns, names = [], None
    for label in class_names:
        rows = _read_list(of_split[label])
        if names is None:
            names = tuple(rows)
        if rows.keys() != set(names):
            differing = sorted(rows.keys() ^ set(names))
            raise DataError(
                f"{of_split[label]} lists other images than {of_split[class_names[0]].name}",
                received=", ".join(differing[:3]),
            )
        columns.append([rows[name] for name in names])
    if not names:
        raise DataError(f"No images in {of_split[class_names[0]]}")
    return names, np.array(columns, np.int8).T


def _read_list(file: Path) -> dict[str, int]:
    """Return the label of each image that a list file names."""
    rows = {}
    for number, line in enumerate(read_lines(file), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or words[1] not in map(str, VOC_LABELS) or words[0] in rows:
            raise DataError(
                f"Line {number} of {file} is malformed",
                expected="the name of an image, once, and -1, 0 or 1",
                received=line,
            )
        rows[words[0]] = int(words[1])
    return rows


def _split_from_files(files: Sequence[Path], names: tuple[str, ...]) -> Split:
    for file in files:
        if not file.is_file():
            raise DataError(f"No image {file}", expected=LAYOUT)
        check_image_file(file)
    with tf.device("CPU:0"):
        # Bytes, because a name need not be UTF-8.
        table = tf.constant([os.fsencode(file) for file in files])
    labels = np.zeros(len(files), np.int32)
    return Split.from_files(labels, names, lambda index: tf.io.read_file(tf.gather(table, index)))
