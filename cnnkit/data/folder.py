"""Folders of images, one subfolder a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cnnkit.data.files import files_by_class, source_of_files, subfolders
from cnnkit.data.split import MOST_UNREADABLE, Source
from cnnkit.errors import DataError, UsageError


def load_folder(root: str, seed: int, most_unreadable: float = MOST_UNREADABLE) -> Source:
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
    return source_of_files(f"folder:{root}", path, labels, parts, seed, most_unreadable)


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
