"""Folders of images with one subfolder per class.

Files that are not images are left out if they are few. The files are listed, checked and
fingerprinted here for every dataset of single files, `cnnkit.data.sources.imagenet` too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from cnnkit.data.dataset import MAX_UNREADABLE, Dataset, Split, stratified_holdout
from cnnkit.data.decode import FORMATS, decode_image
from cnnkit.data.pipeline import MAX_NAMES_IN_ERROR, WORKERS, parallel_map
from cnnkit.errors import DataError, UsageError

# First and last bytes of a whole JPEG file.
JPEG_BEGIN, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
FILES_PER_TASK = 256


class ImageFile(NamedTuple):
    """Path of an image file, index of its class, and its size in bytes."""

    path: str
    label: int
    size: int


def load_image_folder(root: str, seed: int, max_unreadable: float = MAX_UNREADABLE) -> Dataset:
    """Open a folder of class folders, or one with `train` and `test` folders of them.

    Every file is checked, so that files that are not images are found before any work begins.

    Args:
        root: The folder.
        seed: Seed of the split of a folder without `train` and `test`.
        max_unreadable: Largest fraction of the files, 0..1, that may be unreadable.

    Raises:
        UsageError: If there is no such folder.
        DataError: If it has no class folders or no images, too many of its files are unreadable,
            or `test` has classes that `train` lacks.
    """
    path = Path(root)
    if not path.is_dir():
        raise UsageError(f"No folder {root}", expected="folder:PATH of an existing folder")
    has_splits = (path / "train").is_dir() and (path / "test").is_dir()
    class_names = class_folders(path / "train" if has_splits else path)
    if has_splits:
        check_same_classes(path, "test", class_names)
    folders = {name: path / name for name in ("train", "test")} if has_splits else {"all": path}
    files = {name: files_by_class(folder, class_names) for name, folder in folders.items()}
    return dataset_from_files(f"folder:{root}", path, class_names, files, seed, max_unreadable)


def subfolders(path: Path) -> list[str]:
    """Return the names of the visible folders in `path`, in order."""
    with os.scandir(path) as entries:
        return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())


def class_folders(path: Path) -> tuple[str, ...]:
    """Return the names of the class folders in `path`.

    Raises:
        DataError: If there are fewer than two.
    """
    names = subfolders(path)
    if len(names) < 2:
        raise DataError(
            f"{path} is not a dataset",
            expected="a subfolder for each class",
            received=names or "none",
        )
    return tuple(names)


def check_same_classes(path: Path, test: str, class_names: Sequence[str]) -> None:
    """Check that every class in the folder `test` of `path` is one of `class_names`.

    Raises:
        DataError: If there are others.
    """
    unknown = sorted(set(subfolders(path / test)) - set(class_names))
    if unknown:
        raise DataError(
            f"{path / test} has classes that {path / 'train'} lacks", received=", ".join(unknown)
        )


def image_files(folder: Path, label: int) -> list[ImageFile]:
    """Return the visible files in `folder`, in order, all of the class `label`."""
    with os.scandir(folder) as entries:
        files = [e for e in entries if not e.name.startswith(".") and e.is_file()]
        found = [ImageFile(e.path, label, e.stat().st_size) for e in files]
    return sorted(found)


def files_by_class(folder: Path, class_names: Sequence[str]) -> list[ImageFile]:
    """Return the files of the class folders in `folder`; a class folder may be missing.

    Raises:
        DataError: If there are no files.
    """
    files = [
        file
        for label, name in enumerate(class_names)
        if (folder / name).is_dir()
        for file in image_files(folder / name, label)
    ]
    if not files:
        raise DataError(f"No images in {folder}", expected=f"{FORMATS} files in its class folders")
    return files


def dataset_from_files(
    spec: str,
    root: Path,
    class_names: Sequence[str],
    files: Mapping[str, list[ImageFile]],
    seed: int,
    max_unreadable: float,
) -> Dataset:
    """Make a dataset of image files, leaving out a few unreadable ones.

    A JPEG file with the right first and last bytes counts as readable without being decoded, so
    that a million of them are checked in a minute. Every other file is decoded once.

    Args:
        spec: The text that the dataset was opened with.
        root: The folder that the names of the images are relative to.
        class_names: Names of the classes.
        files: The files of the splits `train` and `test`; or of `all`, which is split by `seed`.
        seed: Seed of the split of `all`.
        max_unreadable: Largest fraction of the files, 0..1, that may be left out.

    Raises:
        DataError: If more files are unreadable, or a split has no images.
    """
    readable = {name: find_readable([f.path for f in rows]) for name, rows in files.items()}
    unreadable = [
        file.path
        for name, rows in files.items()
        for file, good in zip(rows, readable[name], strict=True)
        if not good
    ]
    _check_unreadable(str(root), unreadable, sum(map(len, files.values())), max_unreadable)
    kept: dict[str, list[ImageFile]] = {}
    for name, rows in files.items():
        kept[name] = [file for file, good in zip(rows, readable[name], strict=True) if good]
        if not kept[name]:
            raise DataError(f"No images for the split {name} of {root}")
    if "all" in kept:
        rows = kept.pop("all")
        test = stratified_holdout(np.array([file.label for file in rows], np.int32), seed)
        for name, members in (("train", ~test), ("test", test)):
            kept[name] = [rows[i] for i in np.flatnonzero(members)]
    splits = {name: _split_from_files(root, rows) for name, rows in kept.items()}
    return Dataset(spec, tuple(class_names), splits, _fingerprint(root, kept), tuple(unreadable))


def find_readable(files: Sequence[str]) -> np.ndarray:
    """Return a mask of the files that are images, (n,) bool: see `dataset_from_files`."""
    tasks = [files[i : i + FILES_PER_TASK] for i in range(0, len(files), FILES_PER_TASK)]
    with ThreadPoolExecutor(4 * WORKERS) as pool:
        results = pool.map(lambda task: [_is_whole_jpeg(file) for file in task], tasks)
        readable = np.array([whole for result in results for whole in result], bool)
    rest = np.flatnonzero(~readable)

    def index_if_decodable(index: tf.Tensor, file: tf.Tensor) -> tf.Tensor:
        # The size makes the decoding part of the graph; only the index is kept.
        pixels = tf.size(decode_image(tf.io.read_file(file)), out_type=tf.int64)
        return index + 0 * pixels

    if len(rest):
        dataset = tf.data.Dataset.from_tensor_slices((rest, [files[i] for i in rest.tolist()]))
        dataset = parallel_map(dataset, index_if_decodable).ignore_errors()
        readable[list(dataset.as_numpy_iterator())] = True
    return readable


def _is_whole_jpeg(path: str) -> bool:
    with Path(path).open("rb", buffering=0) as file:
        if file.read(len(JPEG_BEGIN)) != JPEG_BEGIN:
            return False
        file.seek(-len(JPEG_END), os.SEEK_END)
        return file.read() == JPEG_END


def _check_unreadable(root: str, unreadable: Sequence[str], total: int, maximum: float) -> None:
    if len(unreadable) > maximum * total:
        more = len(unreadable) - MAX_NAMES_IN_ERROR
        shown = ", ".join(unreadable[:MAX_NAMES_IN_ERROR])
        raise DataError(
            f"{len(unreadable)} of {total} files in {root} are not images",
            expected=f"{FORMATS}, at most {maximum:.0%} of the files unreadable",
            received=shown + (f" and {more} more" if more > 0 else ""),
            hint="Remove or repair them: `cnnkit data check` names them all",
        )


def _split_from_files(root: Path, files: Sequence[ImageFile]) -> Split:
    with tf.device("CPU:0"):
        # The type is given because TensorFlow makes an empty list numeric, and with one image per
        # class the test split is empty.
        table = tf.constant([file.path for file in files], tf.string)
    return Split.from_files(
        np.array([file.label for file in files], np.int32),
        [_relative(file, root) for file in files],
        lambda index: tf.io.read_file(tf.gather(table, index)),
    )


def _relative(file: ImageFile, root: Path) -> str:
    return file.path.removeprefix(f"{root}{os.sep}")


def _fingerprint(root: Path, files: Mapping[str, Sequence[ImageFile]]) -> str:
    digest = hashlib.sha256()
    for split, rows in sorted(files.items()):
        for file in rows:
            name = _relative(file, root)
            digest.update(f"{split}\t{name}\t{file.label}\t{file.size}\n".encode())
    return digest.hexdigest()
