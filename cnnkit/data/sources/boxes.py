"""Images with bounding boxes: a CSV table, a COCO document, or a folder of PASCAL VOC."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cnnkit._file_tree import printable_name
from cnnkit._untrusted.box_files import IMAGES, BoxAnnotation, read_boxes
from cnnkit.data.dataset import (
    UNREADABLE,
    Dataset,
    Split,
    digest_times,
    stratified_holdout,
)
from cnnkit.data.formats import FORMATS
from cnnkit.data.pipeline import MAX_NAMES_IN_ERROR
from cnnkit.data.sources.image_files import (
    Rows,
    find_readable,
    rows_fingerprint,
    split_from_rows,
)
from cnnkit.data.sources.sorted_files import ImageFile
from cnnkit.errors import DataError

PREFIX = "boxes:"
# Reason of images that are left out.
NO_AREA = "with boxes of no area"


def load_boxes(root: str, seed: int, max_unreadable: float) -> Dataset:
    """Open images with a box around each object.

    An image has the class of its largest box, and the boxes of that class: localization names one
    class for an image, and where its objects are (Russakovsky et al. 2015, section 3.2). A fifth
    of the images of each class is held out. The pixels of a box are those of the image as it is
    decoded: upright, if the EXIF orientation counts.

    Args:
        root: A `.csv` table, a `.json` document of COCO, or a folder with `Annotations/*.xml` and
            `JPEGImages`. The images of a table lie below its folder; those of a document too, or
            where COCO's archives unpack them: in `images`, or in `../NAME` for
            `annotations/instances_NAME.json`.
        seed: Seed of the split.
        max_unreadable: Largest fraction of the images, 0..1, that may be missing or unreadable.

    Raises:
        DataError: If the boxes cannot be read, or too many images.
    """
    path = Path(root)
    annotations = read_boxes(path)
    folder = _image_folder(path, annotations)
    of_image: dict[str, list[BoxAnnotation]] = {}
    for one in annotations:
        of_image.setdefault(one.file, [])
        if _area(one) > 0:
            of_image[one.file].append(one)
    empty = sorted(name for name, boxes in of_image.items() if not boxes)
    names = sorted(of_image.keys() - {*empty})
    missing = _unreadable(folder, names)
    if len(missing) > max_unreadable * len(names):
        more = len(missing) - MAX_NAMES_IN_ERROR
        raise DataError(
            f"{len(missing):,} of {len(names):,} images of {path} are missing or not images",
            expected=f"{FORMATS} files in {folder}",
            received=", ".join(missing[:MAX_NAMES_IN_ERROR]) + (f" and {more:,} more" * (more > 0)),
        )
    if not len(names) > len(missing):
        raise DataError(f"No image of {path} has a box with an area")
    labels = {name: max(of_image[name], key=_area).label for name in names}
    class_names = sorted({labels[name] for name in names if name not in missing})
    rows = [
        (printable_name(name), class_names.index(labels[name]), _image_file(folder, name, labels))
        for name in names
        if name not in missing
    ]
    rows.sort(key=lambda row: (row[1], row[0]))
    boxes = _stacked([_boxes_of_label(of_image[file.name]) for _, _, file in rows])
    test = stratified_holdout(np.array([label for _, label, _ in rows]), seed)
    members = {"train": np.flatnonzero(~test), "test": np.flatnonzero(test)}
    tables = {name: [rows[i] for i in places] for name, places in members.items()}
    return Dataset(
        f"{PREFIX}{root}",
        tuple(class_names),
        {name: _split(tables[name], boxes[places]) for name, places in members.items()},
        _fingerprint(tables, boxes),
        {
            reason: tuple(map(printable_name, left_out))
            for reason, left_out in ((UNREADABLE, missing), (NO_AREA, empty))
            if left_out
        },
        modified=digest_times((file.size, file.modified) for _, _, file in rows),
    )


def box_image_path(root: str, name: str) -> str | None:
    """Return the path of an image of `load_boxes` by its name, or None if there is no such file."""
    path = Path(root)
    places = [path / IMAGES] if path.is_dir() else _document_folders(path)
    files = (place / name for place in places)
    return next((str(file) for file in files if file.is_file()), None)


def _document_folders(path: Path) -> list[Path]:
    """Return the folders where the images of a table or a document may lie."""
    folder = path.parent
    archive = path.stem.rpartition("_")[2]
    return [folder, folder / "images", folder.parent / "images", folder.parent / archive]


def _image_folder(path: Path, annotations: Sequence[BoxAnnotation]) -> Path:
    if path.is_dir():
        return path / IMAGES
    first = annotations[0].file
    found = [folder for folder in _document_folders(path) if (folder / first).is_file()]
    return found[0] if found else path.parent


def _unreadable(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the names of the images that are missing, too large or not images."""
    readable, _ = find_readable([str(folder / name) for name in names])
    return [name for name, is_good in zip(names, readable.tolist(), strict=True) if not is_good]


def _image_file(folder: Path, name: str, labels: dict[str, str]) -> ImageFile:
    file = folder / name
    status = file.stat()
    return ImageFile(str(file), name, labels[name], status.st_size, None, status.st_mtime_ns)


def _area(one: BoxAnnotation) -> float:
    left, top, right, bottom = one.box
    return max(right - left, 0) * max(bottom - top, 0)


def _boxes_of_label(annotations: Sequence[BoxAnnotation]) -> list[BoxAnnotation]:
    """Return the boxes of the class of the largest one, the largest first."""
    ordered = sorted(annotations, key=_area, reverse=True)
    return [one for one in ordered if one.label == ordered[0].label]


def _stacked(found: Sequence[Sequence[BoxAnnotation]]) -> np.ndarray:
    """Return the boxes of images as (n, m, 4) float32, with NaN where an image has fewer."""
    boxes = np.full((len(found), max(map(len, found)), 4), np.nan, np.float32)
    for row, of_image in zip(boxes, found, strict=True):
        row[: len(of_image)] = [one.box for one in of_image]
    return boxes


def _split(rows: Rows, boxes: np.ndarray) -> Split:
    return replace(split_from_rows(rows), boxes=boxes)


def _fingerprint(tables: dict[str, list[tuple[str, int, ImageFile]]], boxes: np.ndarray) -> str:
    digest = hashlib.sha256(rows_fingerprint(tables).encode())
    digest.update(boxes.tobytes())
    return digest.hexdigest()
