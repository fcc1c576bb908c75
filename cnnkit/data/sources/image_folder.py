"""Folders of images with one subfolder per class, possibly below folders of the splits."""

from __future__ import annotations

import re
from pathlib import Path

from cnnkit._dataset_spec import HELD_OUT_MARK
from cnnkit.data.dataset import MAX_UNREADABLE, Dataset
from cnnkit.data.sources.image_files import dataset_from_files
from cnnkit.data.sources.sorted_files import FolderLayout, sort_files, subfolders
from cnnkit.errors import DataError, UsageError

# Names of the folders of each split, in any case: train, Training, train_set ...
SPLIT_NAMES = {
    role: re.compile(rf"({names})([ _-]?(set|data|images))?", re.IGNORECASE)
    for role, names in {
        "train": "train|training",
        "test": "test|testing|eval|evaluation",
        "val": "val|valid|validation|dev",
    }.items()
}


def load_image_folder(root: str, seed: int, max_unreadable: float = MAX_UNREADABLE) -> Dataset:
    """Open a folder of class folders, or one with folders of splits that hold class folders.

    Every file is checked, so that files that are not images are found before any work begins.

    Args:
        root: The folder. A folder with `train` and one of `test` and `val`, or names like these,
            has splits. `test` is held out, or `val` if there is no `test`; `PATH#NAME` holds out
            another folder.
        seed: Seed of the split of a folder without splits.
        max_unreadable: Largest fraction of the files in the class folders, 0..1, that may be
            unreadable.

    Raises:
        UsageError: If it has no folder to hold out of the given name.
        DataError: If it has no class folders or no images, too many of its files are unreadable,
            the held-out folder has classes that `train` lacks, or it is not clear which folders
            are the splits.
    """
    path, held_out = _parse_root(root)
    layout = _find_layout(path, held_out)
    return dataset_from_files(f"folder:{root}", layout, sort_files(layout), seed, max_unreadable)


def _parse_root(root: str) -> tuple[Path, str | None]:
    """Return the folder and the name of the folder to hold out, if one is given."""
    if Path(root).is_dir():
        return Path(root), None
    folder, _, held_out = root.rpartition(HELD_OUT_MARK)
    return Path(folder), held_out


def _find_layout(path: Path, held_out: str | None) -> FolderLayout:
    """Find the folders of the splits."""
    names = subfolders(path)
    roles = _find_roles(path, names)
    train = [name for name, role in roles.items() if role == "train"]
    others = [name for name, role in roles.items() if role != "train"]
    if held_out is not None and (held_out not in names or held_out in train or not train):
        raise UsageError(
            f"{path} has no folder {held_out} to hold out",
            expected=f"{path}{HELD_OUT_MARK}NAME, a folder beside train",
            received=", ".join(names) or "no folders",
        )
    if not train or not (others or held_out):
        _refuse_splits_in_classes(path, names)
        return FolderLayout(path, {"all": ""})
    if len(train) > 1:
        raise DataError(
            f"{path} has several folders of training images",
            expected="one",
            received=", ".join(train),
            hint="Move all but one elsewhere",
        )
    test = held_out or _default_held_out(path, train[0], {name: roles[name] for name in others})
    unused = tuple(name for name in others if name != test)
    return FolderLayout(path, {"train": train[0], "test": test}, unused=unused)


def _find_roles(path: Path, names: list[str]) -> dict[str, str]:
    """Return the role of each folder of a split.

    A name that only contains `train`, `test` or `val`, such as `seg_train` and `val2017`, counts
    where no folder has that name alone. If all names are such, they count where the folders for
    training and testing share a class folder: `train_station` and `test_tube` are classes.
    """
    roles = {name: role for name in names if (role := split_role(name))}
    given = set(roles.values())
    if "train" in given and given != {"train"}:
        return roles
    for name in names:
        words = (split_role(word) for word in re.split("[^a-z]+", name.lower()))
        if (role := next(filter(None, words), None)) and role not in given:
            roles.setdefault(name, role)
    if given:
        return roles
    inner = {name: set(subfolders(path / name)) for name in roles}
    train = [inner[name] for name, role in roles.items() if role == "train"]
    others = [inner[name] for name, role in roles.items() if role != "train"]
    return roles if any(one & other for one in train for other in others) else {}


def _default_held_out(path: Path, train: str, roles: dict[str, str]) -> str:
    """Choose the folder to hold out: the one of the role `test`, else `val`, that has classes."""
    classes = set(subfolders(path / train))
    labeled = [name for name in roles if classes & set(subfolders(path / name))]
    chosen = [name for name in labeled if roles[name] == "test"] or labeled
    if not chosen:
        raise DataError(
            f"{path} has no class folders to hold out",
            expected=f"folders of the classes of {train} in {' or '.join(roles)}",
            hint=_advice(path, train, classes),
        )
    if len(chosen) > 1:
        raise DataError(
            f"{path} has several folders to hold out",
            expected=f"folder:{path}{HELD_OUT_MARK}NAME with one of {', '.join(chosen)}",
        )
    return chosen[0]


def _advice(path: Path, train: str, classes: set[str]) -> str:
    """Return what to do with a folder whose splits have no common class folders."""
    if (path / "val" / "val_annotations.txt").is_file():
        return f"imagenet:{path} reads this layout"
    if len(classes) > 1:
        return f"folder:{path / train} holds out a part of the training images"
    return "Move the images into a folder for each class"


def split_role(name: str) -> str | None:
    """Return `train`, `test` or `val` for the name of a split's folder, None for another.

    Example:
        >>> split_role("Training"), split_role("valid"), split_role("trains")
        ('train', 'val', None)
    """
    return next((role for role, names in SPLIT_NAMES.items() if names.fullmatch(name)), None)


def _refuse_splits_in_classes(path: Path, names: list[str]) -> None:
    """Check that the class folders do not hold folders of splits, which would be mixed.

    Raises:
        DataError: If one does.
    """
    for name in names:
        roles = {split_role(inner): inner for inner in subfolders(path / name)}
        test = roles.get("test") or roles.get("val")
        if "train" in roles and test:
            raise DataError(
                f"{path} has folders of splits inside of a class folder",
                expected=f"{roles['train']}/CLASS and {test}/CLASS in {path}",
                received=f"{name}/{roles['train']} and {name}/{test}",
                hint=f"Move them, or open folder:{path / name} if its splits hold class folders",
            )
