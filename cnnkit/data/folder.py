"""Folders of images, one subfolder a class."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from cnnkit.data.image import FORMATS, decode
from cnnkit.data.split import Source, Split, held_out
from cnnkit.data.workers import parallel_map
from cnnkit.errors import DataError, UsageError

# A few broken files are the rule in collected images; more of them is a wrong folder.
MOST_UNREADABLE = 0.01
NAMED_IN_ERROR = 3


def load_folder(root: str, seed: int) -> Source:
    """Opens `root`, with its own `train` and `test` folders or a seeded split.

    Every file is decoded once, so that a file that is no image is known before the work begins.

    Raises:
        UsageError: If there is no such folder.
        DataError: If it holds no class folders or images, more than 1 % of its files are no images,
            or the two folders disagree about the classes.
    """
    path = Path(root)
    if not path.is_dir():
        raise UsageError(f"No folder {root}", expected="folder:PATH of an existing folder")
    given = (path / "train").is_dir() and (path / "test").is_dir()
    labels = _class_names(path / "train" if given else path)
    if given:
        _check_same_classes(path, labels)
    roots = {part: path / part for part in ("train", "test")} if given else {"all": path}
    parts = {part: _list(folder, labels) for part, folder in roots.items()}
    files = {part: [file for file, _ in rows] for part, rows in parts.items()}
    readable = {part: _readable(names) for part, names in files.items()}
    unreadable = [
        file
        for part, names in files.items()
        for file, good in zip(names, readable[part], strict=True)
        if not good
    ]
    _check_unreadable(root, unreadable, sum(map(len, files.values())))

    splits = {}
    for part, rows in parts.items():
        kept = [row for row, good in zip(rows, readable[part], strict=True) if good]
        if not kept:
            raise DataError(f"No images in {roots[part]}")
        splits[part] = (np.array([f for f, _ in kept]), np.array([c for _, c in kept], np.int32))
    if not given:
        names, classes = splits.pop("all")
        test = held_out(classes, seed)
        splits = {"train": (names[~test], classes[~test]), "test": (names[test], classes[test])}
    return Source(
        f"folder:{root}",
        labels,
        {part: _split(path, names, classes) for part, (names, classes) in splits.items()},
        _fingerprint(path, splits),
        tuple(unreadable),
    )


def _subfolders(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if _is_visible(entry) and entry.is_dir())


def _class_names(path: Path) -> tuple[str, ...]:
    names = _subfolders(path)
    if len(names) < 2:
        raise DataError(
            f"{path} is no dataset", expected="a subfolder for each class", received=names or "none"
        )
    return tuple(names)


def _check_same_classes(path: Path, labels: Sequence[str]) -> None:
    unknown = sorted(set(_subfolders(path / "test")) - set(labels))
    if unknown:
        raise DataError(
            f"{path / 'test'} has classes that {path / 'train'} lacks", received=", ".join(unknown)
        )


def _list(path: Path, labels: Sequence[str]) -> list[tuple[str, int]]:
    rows = [
        (str(file), label)
        for label, name in enumerate(labels)
        if (path / name).is_dir()
        for file in sorted((path / name).iterdir())
        if _is_visible(file) and file.is_file()
    ]
    if not rows:
        raise DataError(f"No images in {path}", expected=f"{FORMATS} files in its class folders")
    return rows


def _is_visible(path: Path) -> bool:
    return not path.name.startswith(".")


def _readable(files: Sequence[str]) -> np.ndarray:
    """Tells which files decode, (n,) bool."""

    def index_if_image(index, file):
        # The pixel ties the decoding into the graph; only the index is kept.
        pixels = tf.size(decode(tf.io.read_file(file)), out_type=tf.int64)
        return index + 0 * pixels

    dataset = tf.data.Dataset.from_tensor_slices((np.arange(len(files)), list(files)))
    dataset = parallel_map(dataset, index_if_image).ignore_errors()
    good = np.zeros(len(files), bool)
    good[list(dataset.as_numpy_iterator())] = True
    return good


def _check_unreadable(root: str, unreadable: Sequence[str], total: int) -> None:
    if len(unreadable) > MOST_UNREADABLE * total:
        more = len(unreadable) - NAMED_IN_ERROR
        named = ", ".join(unreadable[:NAMED_IN_ERROR]) + (f" and {more} more" if more > 0 else "")
        raise DataError(
            f"{len(unreadable)} of {total} files in {root} are no images",
            expected=f"{FORMATS}, at most {MOST_UNREADABLE:.0%} of the files unreadable",
            received=named,
            hint="Remove or repair them",
        )


def _split(root: Path, files: np.ndarray, classes: np.ndarray) -> Split:
    with tf.device("CPU:0"):
        table = tf.constant(files)
    return Split.of_files(
        classes,
        [str(Path(file).relative_to(root)) for file in files],
        lambda index: tf.io.read_file(tf.gather(table, index)),
    )


def _fingerprint(root: Path, splits) -> str:
    digest = hashlib.sha256()
    for part, (files, classes) in sorted(splits.items()):
        for file, label in zip(files, classes, strict=True):
            size = Path(file).stat().st_size
            line = f"{part}\t{Path(file).relative_to(root)}\t{label}\t{size}\n"
            digest.update(line.encode())
    return digest.hexdigest()
