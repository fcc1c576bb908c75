"""Names of datasets, such as `folder:PATH`: their kinds, and the folders that they name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cnnkit._staging import STAGING_PREFIX
from cnnkit._untrusted.box_files import check_boxes_layout
from cnnkit.errors import DataError, UsageError, unknown_name

DATASET_SPECS = (
    "digits",
    "folder:PATH",
    "imagenet:PATH",
    "boxes:PATH",
    "shards:PATH",
    "tfds:NAME",
)
# The only kind of images with several classes each.
VOC_SPEC = "voc:PATH"
# Between a dataset's folder or name and the split that is held out in place of its test split.
HELD_OUT_MARK = "#"
# File that is written last into a folder of shards.
SHARD_INDEX = "index.npz"
SHARD_SUFFIX = ".tfrecord"
# ImageNet's folders in the archive of Kaggle.
KAGGLE = "ILSVRC/Data/CLS-LOC"
_SPLITS = ("train", "val")
_BOXES = "boxes:PATH of a .csv or .json file, or of a folder of PASCAL VOC"
_FOLDERS = ("folder", "imagenet", "voc")


def check_dataset_spec(
    spec: str, known: Iterable[str] = DATASET_SPECS, *, others: Iterable[str] = (VOC_SPEC,)
) -> tuple[str, str]:
    """Check a dataset's kind, and that its folder exists; nothing is read.

    Args:
        spec: The dataset, such as `folder:photos`.
        known: The kinds that are supported, as in `DATASET_SPECS`.
        others: Kinds that only other functions support.

    Returns:
        The kind, and the path or name after the colon.

    Raises:
        UsageError: If there is no such kind, no such folder, or no index of shards in it.
        DataError: If a folder of images has no subfolders, or the folders and files of `imagenet`
            or `boxes` have other names than theirs.

    Example:
        >>> check_dataset_spec("tfds:cifar10")
        ('tfds', 'cifar10')
    """
    known = tuple(known)
    kind, colon, rest = spec.partition(":")
    placeholders = dict(one.split(":") for one in (*known, *others) if ":" in one)
    if kind in placeholders and not rest:
        raise UsageError(
            f"Dataset {spec!r} lacks its name", expected=f"{kind}:{placeholders[kind]}"
        )
    if kind in (one.partition(":")[0] for one in others if one not in known):
        raise UsageError(
            f"Dataset {spec!r} has several classes per image, which is not supported here",
            expected=f"one of {', '.join(known)}",
            hint="`cnnkit transfer` supports it",
        )
    if kind not in placeholders and spec not in known:
        hint = f"Did you mean folder:{spec}?" if Path(spec).is_dir() else ""
        raise unknown_name("dataset", spec, known, hint=hint)
    if kind in _FOLDERS and not _is_folder(rest, marked=kind == "folder"):
        raise missing_folder(kind, rest)
    if kind == "folder":
        _check_subfolders(Path(rest))
    if kind == "imagenet":
        imagenet_base(Path(rest))
    if kind == "boxes":
        if not Path(rest).exists():
            raise UsageError(f"No file or folder {rest}", expected=_BOXES)
        check_boxes_layout(Path(rest))
    if kind == "shards" and not Path(rest, SHARD_INDEX).is_file():
        raise missing_shards(rest)
    return kind, rest


def missing_folder(kind: str, path: object) -> UsageError:
    """Return the error for a dataset in a folder that does not exist."""
    return UsageError(
        f"No folder {path}",
        expected=f"{kind}:PATH of an existing folder",
        hint="If it was moved, give its new path",
    )


def missing_shards(path: object) -> UsageError:
    """Return the error for a folder without the index of shards."""
    return UsageError(
        f"No index of shards in {path}",
        expected=f"a folder with {SHARD_INDEX}, from `cnnkit data shard`",
        hint="Without it, writing was not finished: write the shards again",
    )


def missing_boxes(spec: str) -> UsageError:
    """Return the error for a dataset without boxes where a network learns to localize."""
    return UsageError(
        "`dataset` must have boxes for the task localize", expected=_BOXES, received=spec
    )


def imagenet_base(path: Path) -> str:
    """Return the folder in `path` that has ImageNet's folders train and val: "" or `KAGGLE`.

    Raises:
        DataError: If there is none.
    """
    for base in ("", KAGGLE):
        if all((path / base / split).is_dir() for split in _SPLITS):
            return base
    missing = [split for split in _SPLITS if not (path / split).is_dir()]
    raise DataError(
        f"{path} does not have the layout of ImageNet",
        expected=f"the folders {' and '.join(_SPLITS)}, or {KAGGLE}",
        received=f"no {' and no '.join(missing)}",
    )


def no_class_folders(folder: Path, received: str = "none", hint: str | None = None) -> DataError:
    """Return the error for a folder of images without a subfolder for each class."""
    return DataError(
        f"{folder} is not a dataset",
        expected="a subfolder for each class",
        received=received,
        hint=hint,
    )


def _check_subfolders(folder: Path) -> None:
    """Check that a folder that can be read has a subfolder; it may have a mark behind it."""
    if not folder.is_dir():
        folder = Path(str(folder).rpartition(HELD_OUT_MARK)[0])
    try:
        has_any = any(one.is_dir() for one in folder.iterdir() if not one.name.startswith("."))
    except OSError:
        return
    if not has_any:
        raise no_class_folders(folder)


def check_shards_folder(folder: Path) -> None:
    """Check that a folder has nothing but what an interrupted writing of shards left.

    Raises:
        UsageError: If it has.
    """
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.suffix != SHARD_SUFFIX and not entry.name.startswith(STAGING_PREFIX):
            raise occupied_shards_folder(folder)


def occupied_shards_folder(folder: Path) -> UsageError:
    """Return the error for a folder with other files, where shards are to be written."""
    return UsageError(
        f"{folder} is not empty", expected="a new folder for the shards", hint="Use another one"
    )


def _is_folder(path: str, *, marked: bool) -> bool:
    """Return whether a folder exists, perhaps with a held-out split behind it."""
    folder, mark, _ = path.rpartition(HELD_OUT_MARK)
    return Path(path).is_dir() or bool(marked and mark and folder and Path(folder).is_dir())
