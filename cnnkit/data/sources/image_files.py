"""Datasets of single image files: every file below a folder is used, or left out with a reason."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from cnnkit._dataset_spec import no_class_folders
from cnnkit._file_tree import OTHER_TYPE, printable_name
from cnnkit._untrusted.images import (
    is_too_large,
    max_image_bytes,
    max_image_pixels,
    too_large_error,
)
from cnnkit._untrusted.regular_files import open_regular_file
from cnnkit.data.dataset import (
    UNREADABLE,
    Dataset,
    Split,
    digest_times,
    stratified_holdout,
)
from cnnkit.data.decode import traced_decode_image
from cnnkit.data.formats import FORMATS
from cnnkit.data.pipeline import MAX_NAMES_IN_ERROR, WORKERS, parallel_map
from cnnkit.data.sources.sorted_files import (
    IMAGE_SUFFIXES,
    TOO_LARGE,
    FolderLayout,
    ImageFile,
    SortedFiles,
    reason_of_suffix,
    subfolders,
)
from cnnkit.errors import DataError

# First and last bytes of a whole JPEG file.
JPEG_BEGIN, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
FILES_PER_TASK = 256
# What the first look at a file tells: enough, or that it has to be decoded or is too large.
READABLE, UNKNOWN, LARGE = range(3)


def dataset_from_files(
    spec: str, layout: FolderLayout, files: SortedFiles, seed: int, max_unreadable: float
) -> Dataset:
    """Make a dataset of image files, leaving out a few unreadable ones.

    A JPEG file with the right first and last bytes counts as readable without being decoded, so
    that a million of them are checked in a minute. Every other file is decoded once. No file is
    read that has more bytes, or more pixels by its header, than `cnnkit._untrusted.images` allows.
    A folder is a class if it holds a readable image of the split `train`, at any depth.

    Args:
        spec: The text that the dataset was opened with.
        layout: The folders of the splits.
        files: The files, from `sort_files`.
        seed: Seed of the split of `all`.
        max_unreadable: Largest fraction of the files in the class folders, 0..1, that may be
            unreadable, too large or broken links.

    Raises:
        DataError: If more files are unreadable or too large, there are fewer than two classes, a
            split has no images, or the held-out images have other classes.
    """
    _check_class_folders(layout, files)
    kept = _keep_readable(layout.root, files, max_unreadable)
    first = kept["all" if "all" in kept else "train"]
    class_names = sorted({file.class_name for file in first})
    _check_classes(layout, kept, class_names)
    index_of = {name: index for index, name in enumerate(class_names)}
    for split, rows in kept.items():
        flat = split in layout.flat
        rows.sort(key=lambda file: (0 if flat else index_of[file.class_name], file.name))
    empty = _folders_without_images(layout, kept)
    if "all" in kept:
        rows = kept.pop("all")
        labels = np.array([index_of[file.class_name] for file in rows], np.int32)
        test = stratified_holdout(labels, seed)
        for name, members in (("train", ~test), ("test", test)):
            kept[name] = [rows[i] for i in np.flatnonzero(members)]
    tables = {
        split: [
            (printable_name(file.name).removeprefix(layout.base), index_of[file.class_name], file)
            for file in rows
        ]
        for split, rows in kept.items()
    }
    return Dataset(
        spec,
        tuple(class_names),
        {split: split_from_rows(table) for split, table in tables.items()},
        rows_fingerprint(tables),
        {reason: tuple(names) for reason, names in files.left_out.items()},
        tuple(layout.label_files),
        tuple(empty),
        digest_times(
            (file.size, file.modified) for _, rows in sorted(tables.items()) for _, _, file in rows
        ),
    )


def _check_class_folders(layout: FolderLayout, files: SortedFiles) -> None:
    """Check that there are class folders before the files are read.

    Raises:
        DataError: If there are fewer than two, or a class has no name that can be printed.
    """
    split = "all" if "all" in layout.folders else "train"
    folder = layout.folder(split)
    names = subfolders(folder)
    if len(names) < 2:
        received = ", ".join(map(printable_name, names)) or "none"
        raise no_class_folders(folder, received, _deeper_folder(layout, files))
    for name in names:
        if printable_name(name) != name or "\n" in name or "\r" in name:
            raise DataError(
                f"The name of a class folder in {folder} must be UTF-8 without line breaks",
                received=repr(printable_name(name)),
                hint="Rename it",
            )
    held_out = {
        file.class_name
        for file in files.images.get("test", ())
        if not file.reason and Path(file.name).suffix.lower() in IMAGE_SUFFIXES
    }
    _check_known(layout, held_out, names)


def _deeper_folder(layout: FolderLayout, files: SortedFiles) -> str | None:
    """Return the advice to open the folder below which all images lie, if there is one."""
    folders = {
        str(Path(file.name).parent)
        for rows in files.images.values()
        for file in rows
        if reason_of_suffix(file.name) == UNREADABLE
    }
    if len(folders) < 2:
        return None
    common = os.path.commonpath(folders)
    return f"Open the folder of the class folders, perhaps {layout.root / common}"


def _check_known(layout: FolderLayout, held_out: set[str], class_names: Sequence[str]) -> None:
    unknown = sorted(held_out - set(class_names))
    if unknown:
        raise DataError(
            f"{layout.folder('test')} has classes that {layout.folder('train')} lacks",
            received=", ".join(map(printable_name, unknown)),
        )


def _check_classes(
    layout: FolderLayout, kept: Mapping[str, list[ImageFile]], class_names: Sequence[str]
) -> None:
    """Check that the readable images are of at least two classes, and the same in each split."""
    for split, rows in kept.items():
        if not rows:
            raise DataError(
                f"No images in {layout.folder(split)}",
                expected=f"{FORMATS} files in its class folders",
            )
    if len(class_names) < 2:
        raise DataError(
            f"Only one class folder of {layout.root} has images",
            expected="at least two classes",
            received=class_names[0],
        )
    _check_known(layout, {file.class_name for file in kept.get("test", ())}, class_names)


def _keep_readable(
    root: Path, files: SortedFiles, max_unreadable: float
) -> dict[str, list[ImageFile]]:
    """Return the readable images of each split, and count the other files as left out."""
    kept: dict[str, list[ImageFile]] = {}
    broken: list[str] = []
    any_too_large = False
    for split, rows in files.images.items():
        readable, too_large = find_readable([file.path for file in rows if not file.reason])
        found = zip(readable.tolist(), too_large.tolist(), strict=True)
        kept[split] = []
        for file in rows:
            is_good, is_large = (False, False) if file.reason else next(found)
            if is_good:
                kept[split].append(file)
                continue
            reason = file.reason or reason_of_suffix(file.name)
            if is_large and reason != OTHER_TYPE:
                reason, any_too_large = TOO_LARGE, True
            files.leave_out(reason, file.name)
            if reason != OTHER_TYPE:
                broken.append(printable_name(file.name))
    total = len(broken) + sum(map(len, kept.values()))
    if len(broken) > max_unreadable * total:
        more = len(broken) - MAX_NAMES_IN_ERROR
        received = ", ".join(broken[:MAX_NAMES_IN_ERROR]) + (
            f" and {more} more" if more > 0 else ""
        )
        if any_too_large:
            problem = f"{len(broken)} of {total} files in {root} are too large or not images"
            raise too_large_error(problem, received)
        raise DataError(
            f"{len(broken)} of {total} files in {root} are not images",
            expected=f"{FORMATS}, at most {max_unreadable:.0%} of the files unreadable",
            received=received,
            hint="Remove or repair them: `cnnkit data check` names them all",
        )
    return kept


def find_readable(files: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return masks of the files that are images and of those that are too large, (n,) bool."""
    limits = max_image_pixels(), max_image_bytes()
    tasks = [files[i : i + FILES_PER_TASK] for i in range(0, len(files), FILES_PER_TASK)]
    with ThreadPoolExecutor(4 * WORKERS) as pool:
        results = pool.map(lambda task: [_look_at(file, limits) for file in task], tasks)
        looks = np.array([look for result in results for look in result], int)
    readable = looks == READABLE
    rest = np.flatnonzero(looks == UNKNOWN)

    def index_if_decodable(index: tf.Tensor, file: tf.Tensor) -> tf.Tensor:
        # The size makes the decoding part of the graph; only the index is kept.
        image = traced_decode_image(tf.io.read_file(file))
        return index + 0 * tf.size(image, out_type=tf.int64)

    if len(rest):
        paths = [os.fsencode(files[i]) for i in rest.tolist()]
        dataset = tf.data.Dataset.from_tensor_slices((rest, paths))
        dataset = parallel_map(dataset, index_if_decodable).ignore_errors()
        readable[list(dataset.as_numpy_iterator())] = True
    return readable, looks == LARGE


def _look_at(path: str, limits: tuple[int, int]) -> int:
    try:
        with open_regular_file(path, is_listed=True) as file:
            if is_too_large(file, limits):
                return LARGE
            file.seek(0)
            if file.read(len(JPEG_BEGIN)) != JPEG_BEGIN:
                return UNKNOWN
            file.seek(-len(JPEG_END), os.SEEK_END)
            return READABLE if file.read(len(JPEG_END)) == JPEG_END else UNKNOWN
    except (OSError, DataError):
        # Without permission, or removed since it was listed.
        return UNKNOWN


def _folders_without_images(layout: FolderLayout, kept: Mapping[str, list[ImageFile]]) -> list[str]:
    """Return the names of the class folders, relative to the root, that hold no readable image."""
    empty = []
    for split, folder in layout.folders.items():
        if split in layout.flat:
            continue
        used = {file.class_name for file in kept[split]}
        names = [name for name in subfolders(layout.folder(split)) if name not in used]
        empty += [printable_name(str(Path(layout.base) / folder / name)) for name in names]
    return empty


# Name, label and file of each image of a split.
Rows = Sequence[tuple[str, int, ImageFile]]


def split_from_rows(rows: Rows) -> Split:
    """Return the images of a split."""
    with tf.device("CPU:0"):
        # The type is given because TensorFlow makes an empty list numeric, and with one image per
        # class the test split is empty. Bytes, because a name need not be UTF-8.
        table = tf.constant([os.fsencode(file.path) for _, _, file in rows], tf.string)
    return Split.from_files(
        np.array([label for _, label, _ in rows], np.int32),
        [name for name, _, _ in rows],
        lambda index: tf.io.read_file(tf.gather(table, index)),
    )


def rows_fingerprint(splits: Mapping[str, Rows]) -> str:
    """Return `Dataset.fingerprint` of the images of all splits."""
    digest = hashlib.sha256()
    for split, rows in sorted(splits.items()):
        lines = [f"{split}\t{name}\t{label}\t{file.size}\n" for name, label, file in rows]
        digest.update("".join(lines).encode())
    return digest.hexdigest()
