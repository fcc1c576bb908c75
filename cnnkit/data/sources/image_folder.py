"""Folders of images, one subfolder a class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from cnnkit.data.dataset import MAX_UNREADABLE_NAMED, Dataset, Split, stratified_holdout
from cnnkit.data.decode import FORMATS, decode_image
from cnnkit.data.pipeline import WORKERS, parallel_map
from cnnkit.errors import DataError, UsageError

NAMED_IN_ERROR = 3
# What a whole JPEG file begins and ends with.
JPEG_BEGIN, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
CHUNK = 256


class ImageFile(NamedTuple):
    """A file, the number of its class, and its size in bytes."""

    path: str
    label: int
    size: int


def subfolders(path: Path) -> list[str]:
    """Returns the names of the visible folders in `path`, in order."""
    with os.scandir(path) as entries:
        return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())


def image_files(folder: Path, label: int) -> list[ImageFile]:
    """Returns the visible files in `folder`, in order, all of one class."""
    with os.scandir(folder) as entries:
        files = [e for e in entries if not e.name.startswith(".") and e.is_file()]
        found = [ImageFile(e.path, label, e.stat().st_size) for e in files]
    return sorted(found)


def files_by_class(folder: Path, labels: Sequence[str]) -> list[ImageFile]:
    """Returns the files of the class folders in `folder`; a class may lack its folder.

    Raises:
        DataError: If there are none.
    """
    files = [
        file
        for label, name in enumerate(labels)
        if (folder / name).is_dir()
        for file in image_files(folder / name, label)
    ]
    if not files:
        raise DataError(f"No images in {folder}", expected=f"{FORMATS} files in its class folders")
    return files


def dataset_from_files(
    spec: str,
    root: Path,
    labels: Sequence[str],
    parts: Mapping[str, list[ImageFile]],
    seed: int,
    most_unreadable: float,
) -> Dataset:
    """Makes a dataset of files, leaving out the few that are no images.

    A JPEG file that has its beginning and its end counts as an image without being decoded, so
    that a million of them are checked in a minute; every other file is decoded once.

    Args:
        spec: How the dataset was asked for.
        root: The folder that the names of the images are relative to.
        labels: Names of the classes.
        parts: The files of `train` and `test`, or of `all`, which are then divided by `seed`.
        seed: Of the division.
        most_unreadable: Part of the files that may be left out.

    Raises:
        DataError: If more of the files are no images, or a part has none.
    """
    good = {part: is_readable([file.path for file in files]) for part, files in parts.items()}
    broken = [
        file.path
        for part, files in parts.items()
        for file, fine in zip(files, good[part], strict=True)
        if not fine
    ]
    _check_unreadable(str(root), broken, sum(map(len, parts.values())), most_unreadable)
    kept: dict[str, list[ImageFile]] = {}
    for part, files in parts.items():
        kept[part] = [file for file, fine in zip(files, good[part], strict=True) if fine]
        if not kept[part]:
            raise DataError(f"No images for the part {part} of {root}")
    if "all" in kept:
        files = kept.pop("all")
        test = stratified_holdout(np.array([file.label for file in files], np.int32), seed)
        for part, members in (("train", ~test), ("test", test)):
            kept[part] = [files[i] for i in np.flatnonzero(members)]
    splits = {part: _split(root, files) for part, files in kept.items()}
    return Dataset(spec, tuple(labels), splits, _fingerprint(root, kept), tuple(broken))


def is_readable(files: Sequence[str]) -> np.ndarray:
    """Tells which files are images, (n,) bool: see `dataset_from_files` for how."""
    chunks = [files[i : i + CHUNK] for i in range(0, len(files), CHUNK)]
    with ThreadPoolExecutor(4 * WORKERS) as pool:
        parts = pool.map(lambda chunk: [_is_whole_jpeg(file) for file in chunk], chunks)
        good = np.array([whole for part in parts for whole in part], bool)
    rest = np.flatnonzero(~good)

    def index_if_image(index, file):
        # The pixel ties the decoding into the graph; only the index is kept.
        pixels = tf.size(decode_image(tf.io.read_file(file)), out_type=tf.int64)
        return index + 0 * pixels

    if len(rest):
        dataset = tf.data.Dataset.from_tensor_slices((rest, [files[i] for i in rest]))
        dataset = parallel_map(dataset, index_if_image).ignore_errors()
        good[list(dataset.as_numpy_iterator())] = True
    return good


def _is_whole_jpeg(path: str) -> bool:
    with Path(path).open("rb", buffering=0) as file:
        if file.read(len(JPEG_BEGIN)) != JPEG_BEGIN:
            return False
        file.seek(-len(JPEG_END), os.SEEK_END)
        return file.read() == JPEG_END


def _check_unreadable(root: str, unreadable: Sequence[str], total: int, most: float) -> None:
    if len(unreadable) > most * total:
        more = len(unreadable) - NAMED_IN_ERROR
        named = ", ".join(unreadable[:NAMED_IN_ERROR]) + (f" and {more} more" if more > 0 else "")
        raise DataError(
            f"{len(unreadable)} of {total} files in {root} are no images",
            expected=f"{FORMATS}, at most {most:.0%} of the files unreadable",
            received=named,
            hint="Remove or repair them: `cnnkit data check` names them all",
        )


def _split(root: Path, files: Sequence[ImageFile]) -> Split:
    with tf.device("CPU:0"):
        # With one image a class there is none to test on: an empty list would be numbers.
        table = tf.constant([file.path for file in files], tf.string)
    return Split.of_files(
        np.array([file.label for file in files], np.int32),
        [_relative(file, root) for file in files],
        lambda index: tf.io.read_file(tf.gather(table, index)),
    )


def _relative(file: ImageFile, root: Path) -> str:
    return file.path.removeprefix(f"{root}{os.sep}")


def _fingerprint(root: Path, parts: Mapping[str, Sequence[ImageFile]]) -> str:
    digest = hashlib.sha256()
    for part, files in sorted(parts.items()):
        for file in files:
            name = _relative(file, root)
            digest.update(f"{part}\t{name}\t{file.label}\t{file.size}\n".encode())
    return digest.hexdigest()


def load_folder(root: str, seed: int, most_unreadable: float = MAX_UNREADABLE_NAMED) -> Dataset:
    """Opens `root`, with its own `train` and `test` folders or a seeded split.

    Every file is looked at, so that a file that is no image is known before the work begins.

    Raises:
        UsageError: If there is no such folder.
        DataError: If it holds no class folders or images, more of its files are no images than
            may be, or the two folders disagree about the classes.
    """
    path = Path(root)
    if not path.is_dir():
        raise UsageError(f"No folder {root}", expected="folder:PATH of an existing folder")
    given = (path / "train").is_dir() and (path / "test").is_dir()
    labels = class_folders(path / "train" if given else path)
    if given:
        check_same_classes(path, "test", labels)
    roots = {part: path / part for part in ("train", "test")} if given else {"all": path}
    parts = {part: files_by_class(folder, labels) for part, folder in roots.items()}
    return dataset_from_files(f"folder:{root}", path, labels, parts, seed, most_unreadable)


def class_folders(path: Path) -> tuple[str, ...]:
    """Returns the names of the class folders in `path`.

    Raises:
        DataError: If there are fewer than two.
    """
    names = subfolders(path)
    if len(names) < 2:
        raise DataError(
            f"{path} is no dataset", expected="a subfolder for each class", received=names or "none"
        )
    return tuple(names)


def check_same_classes(path: Path, test: str, labels: Sequence[str]) -> None:
    """Makes sure that every class in the folder `test` of `path` is one of the `labels`.

    Raises:
        DataError: If there are others.
    """
    unknown = sorted(set(subfolders(path / test)) - set(labels))
    if unknown:
        raise DataError(
            f"{path / test} has classes that {path / 'train'} lacks", received=", ".join(unknown)
        )
