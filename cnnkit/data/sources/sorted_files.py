"""Sort the files below a dataset's folder: images by split and class, and the reasons of others."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cnnkit._file_tree import BROKEN_LINK, OTHER_TYPE, find_files, is_ordinary, printable_name
from cnnkit.data.dataset import UNREADABLE, UNUSED_SPLIT
from cnnkit.errors import UsageError

# Reasons of files that are left out, beside those of `cnnkit._file_tree`.
OUTSIDE = "outside the class folders"
ANNOTATIONS = "of annotations"
TOO_LARGE = "too large (the environment variable `CNNKIT_MAX_IMAGE_PIXELS` allows more)"
# A file that cannot be decoded counts as unreadable if its name has one of these endings or none,
# and as a file of another type otherwise.
IMAGE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff",
    ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".ppm", ".pgm", ".pbm", ".pnm", ".tga",
    ".ico", ".svg", ".psd", ".raw", ".cr2", ".nef", ".arw", ".dng", ".exr", ".hdr", ".dcm",
))  # fmt: skip
# Names of folders beside the class folders that are no classes.
NO_CLASSES = frozenset({"annotation", "annotations"})


class ImageFile(NamedTuple):
    """A file in a class folder.

    Attributes:
        path: The path to open.
        name: The path relative to the folder of the splits.
        class_name: Name of its class.
        size: Size in bytes.
        reason: Why it cannot be read; None if that is not known yet.
        modified: Time of its last modification in nanoseconds.
    """

    path: str
    name: str
    class_name: str
    size: int
    reason: str | None = None
    modified: int = 0


@dataclass(frozen=True)
class FolderLayout:
    """Folders of the splits of a dataset.

    Attributes:
        root: The folder of the dataset.
        folders: The folder of the class folders of each split, relative to `base`: of `train` and
            `test`, or of `all`, which is split by a seed.
        base: The folder of these folders, relative to `root`, with a separator behind it.
        unused: Folders of further splits, relative to `base`.
        flat: Splits whose folders hold images of all classes.
        label_files: Names of the files that labels are read from, relative to `root`.
    """

    root: Path
    folders: Mapping[str, str]
    base: str = ""
    unused: Sequence[str] = ()
    flat: Sequence[str] = ()
    label_files: Sequence[str] = ()

    def folder(self, split: str) -> Path:
        """Return the folder of the class folders of a split."""
        return self.root / self.base / self.folders[split]

    def locate(self, name: str) -> tuple[str, str] | str:
        """Return the split and the class of a file by its name, or the reason why it has none."""
        if not name.startswith(self.base):
            return OUTSIDE
        top, _, below = name[len(self.base) :].partition(os.sep)
        for split, folder in self.folders.items():
            if folder not in ("", top):
                continue
            inner = below if folder else name[len(self.base) :]
            class_name, is_below, _ = inner.partition(os.sep)
            if split in self.flat:
                return split, ""
            if not is_below:
                return OUTSIDE
            return ANNOTATIONS if _is_no_class(class_name) else (split, class_name)
        return f"{UNUSED_SPLIT} {top}" if below and top in self.unused else OUTSIDE


@dataclass
class SortedFiles:
    """The files below a folder, but for those of labels.

    Attributes:
        images: The files of each split that should be images.
        left_out: Names of all other files, by reason.
    """

    images: dict[str, list[ImageFile]]
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, name: str) -> None:
        """Count a file under a reason."""
        self.left_out.setdefault(reason, []).append(printable_name(name))


def sort_files(layout: FolderLayout) -> SortedFiles:
    """Find all files of a dataset, and the split and the class folder of each."""
    files = SortedFiles({split: [] for split in layout.folders})
    for file in find_files(layout.root):
        if file.name in layout.label_files:
            continue
        place = layout.locate(file.name)
        if file.reason not in (None, BROKEN_LINK) or isinstance(place, str):
            files.leave_out(str(file.reason or place), file.name)
        elif place[0] in layout.flat and reason_of_suffix(file.name) == OTHER_TYPE:
            files.leave_out(file.reason or OTHER_TYPE, file.name)
        else:
            split, class_name = place
            files.images[split].append(
                ImageFile(file.path, file.name, class_name, file.size, file.reason, file.modified)
            )
    return files


def subfolders(path: Path) -> list[str]:
    """Return the names of the folders in `path`, in order, but for hidden ones and annotations.

    Raises:
        UsageError: If the folder may not be read.
    """
    try:
        with os.scandir(path) as entries:
            names = [e.name for e in entries if is_ordinary(e.name) and e.is_dir()]
    except PermissionError as error:
        raise UsageError(f"The folder {path} must be readable", received=error.strerror) from error
    return sorted(name for name in names if not _is_no_class(name))


def _is_no_class(name: str) -> bool:
    return name.lower() in NO_CLASSES


def reason_of_suffix(name: str) -> str:
    """Return the reason why a file is left out that cannot be read as an image."""
    suffix = Path(name).suffix.lower()
    return UNREADABLE if suffix in IMAGE_SUFFIXES or not suffix else OTHER_TYPE
