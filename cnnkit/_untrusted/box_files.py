"""Bounding boxes of images: CSV tables, COCO's JSON and the XML files of PASCAL VOC."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.etree import ElementTree

from cnnkit._untrusted.damage import shorten
from cnnkit._untrusted.json_documents import JsonFields, read_json
from cnnkit._untrusted.limits import (
    MAX_BOXES,
    MAX_COORDINATE,
    MAX_TEXT_BYTES,
    MAX_TEXT_LENGTH,
    MAX_XML_BYTES,
    MAX_XML_DEPTH,
)
from cnnkit._untrusted.regular_files import read_bytes, read_text
from cnnkit.errors import DataError

# Names of the columns of a table, in any case.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "file": ("file", "filename", "file_name", "image", "path"),
    "class": ("class", "label", "class_name", "category", "name"),
    "left": ("left", "xmin", "x1", "x_min"),
    "top": ("top", "ymin", "y1", "y_min"),
    "right": ("right", "xmax", "x2", "x_max"),
    "bottom": ("bottom", "ymax", "y2", "y_max"),
}
# Folders of a folder in the layout of PASCAL VOC.
ANNOTATIONS, IMAGES = "Annotations", "JPEGImages"


class BoxAnnotation(NamedTuple):
    """A box of an object in an image.

    Attributes:
        file: Path of the image relative to the folder of the images, with `/` between its parts.
        label: Name of the class of the object.
        box: Left, top, right and bottom in pixels, right and bottom exclusive. Some files hold
            boxes without area.
        place: The line or object it was read from, for messages.
    """

    file: str
    label: str
    box: tuple[float, float, float, float]
    place: str


def read_boxes(path: Path) -> list[BoxAnnotation]:
    """Read a table (`.csv`), a COCO document (`.json`) or a folder in the layout of PASCAL VOC.

    A table has a line of names first: those in `COLUMNS`, and any others. The boxes of PASCAL VOC
    count pixels from 1 and include the last one; they are converted. Boxes of COCO that stand for
    a crowd are left out.

    Args:
        path: The file or the folder.

    Raises:
        DataError: If it is none of these, is damaged, or holds no boxes.
    """
    check_boxes_layout(path)
    if path.is_dir():
        found = _voc_boxes(path)
    else:
        found = _coco_boxes(path) if path.suffix.lower() == ".json" else _csv_boxes(path)
    annotations: list[BoxAnnotation] = []
    for one in found:
        if len(annotations) == MAX_BOXES:
            raise DataError(f"{path} holds more than {MAX_BOXES:,} boxes")
        annotations.append(_checked(one, path))
    if not annotations:
        raise DataError(f"{path} holds no boxes")
    return annotations


def check_boxes_layout(path: Path) -> None:
    """Check by its name and its folders that a path may hold boxes; nothing is read.

    Raises:
        DataError: If it may not.
    """
    if path.is_dir():
        if not (path / ANNOTATIONS).is_dir():
            raise DataError(
                f"{path} has no folder {ANNOTATIONS}",
                expected=f"a folder with {ANNOTATIONS} and {IMAGES}",
            )
    elif path.suffix.lower() not in (".csv", ".json"):
        raise DataError(
            f"{path} is not a file of boxes",
            expected=f"a .csv or .json file, or a folder with {ANNOTATIONS} and {IMAGES}",
        )


def _checked(one: BoxAnnotation, path: Path) -> BoxAnnotation:
    """Check the numbers of a box, its class and the name of its image."""
    left, top, right, bottom = one.box
    if not all(math.isfinite(value) and abs(value) <= MAX_COORDINATE for value in one.box):
        raise DataError(
            f"The sides of a box in {path} must be finite numbers",
            expected=f"pixels, at most {MAX_COORDINATE:,}",
            received=f"{left:g}, {top:g}, {right:g}, {bottom:g} in {one.place}",
        )
    if not one.label.isprintable() or not 0 < len(one.label) <= MAX_TEXT_LENGTH:
        raise DataError(
            f"The class of a box in {path} must be a name",
            received=f"{shorten(one.label, 80)!r} in {one.place}",
        )
    file = one.file.replace("\\", "/")
    place = PurePosixPath(file)
    # The file of a stranger names no file outside of its folder.
    if not place.parts or place.is_absolute() or ".." in place.parts or "\0" in file:
        raise DataError(
            f"{path} must name images inside of its folder",
            expected="a relative path without ..",
            received=f"{shorten(one.file, 80)!r} in {one.place}",
        )
    return one._replace(file="/".join(place.parts))


def _csv_boxes(path: Path) -> Iterator[BoxAnnotation]:
    # A line break within a text is part of it.
    rows = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        places = _find_columns(header, path)
        for row in rows:
            if not row:
                continue
            line = f"line {rows.line_num}"
            if len(row) != len(header):
                raise DataError(
                    f"{path} must have {len(header)} values in every line",
                    received=f"{len(row)} in {line}",
                )
            cells = {column: row[place].strip() for column, place in places.items()}
            left, top, right, bottom = (
                _number(cells[side], path, line) for side in ("left", "top", "right", "bottom")
            )
            box = (left, top, right, bottom)
            yield BoxAnnotation(cells["file"], cells["class"], box, line)
    except csv.Error as error:
        raise DataError(
            f"{path} is not a CSV table", received=f"{error} in line {rows.line_num}"
        ) from error


def _find_columns(header: list[str], path: Path) -> dict[str, int]:
    places = {}
    for column, names in COLUMNS.items():
        found = [header.index(name) for name in names if name in header]
        if not found:
            raise DataError(
                f"{path} has no column {column}",
                expected=f"a first line with {', '.join(COLUMNS)}",
                received=shorten(", ".join(header), 200) or "an empty file",
            )
        places[column] = found[0]
    return places


def _number(text: str, path: Path, place: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise DataError(
            f"The sides of a box in {path} must be numbers",
            received=f"{shorten(text, 40)!r} in {place}",
        ) from error


def _coco_boxes(path: Path) -> Iterator[BoxAnnotation]:
    document = JsonFields(read_json(path, max_bytes=MAX_TEXT_BYTES), path)
    files, labels = (
        {
            item.integer("id"): item.text(field)
            for number, one in enumerate(document.items(name))
            for item in [JsonFields(one, path, f"{name}[{number}]")]
        }
        for name, field in (("images", "file_name"), ("categories", "name"))
    )
    for number, one in enumerate(document.items("annotations", max_count=MAX_BOXES)):
        place = f"annotations[{number}]"
        item = JsonFields(one, path, place)
        if item.integer("iscrowd", maximum=1, default=0):
            continue
        left, top, width, height = item.numbers(
            "bbox", minimum=-MAX_COORDINATE, maximum=MAX_COORDINATE, count=4
        )
        image, category = item.integer("image_id"), item.integer("category_id")
        if image not in files or category not in labels:
            raise DataError(f"{path} has no image {image} or no category {category} for {place}")
        box = (left, top, left + width, top + height)
        yield BoxAnnotation(files[image], labels[category], box, place)


def _voc_boxes(path: Path) -> Iterator[BoxAnnotation]:
    files = sorted((path / ANNOTATIONS).glob("*.xml"))
    if not files:
        raise DataError(f"{path} has no {ANNOTATIONS}/*.xml", hint=f"{IMAGES} lies beside it")
    for file in files:
        root = parse_xml(read_bytes(file, max_bytes=MAX_XML_BYTES), file)
        name = (root.findtext("filename") or "").strip()
        for number, item in enumerate(root.iterfind("object")):
            place = f"object {number + 1} of {file.name}"
            corners = [
                _number((item.findtext(f"bndbox/{side}") or "").strip(), file, place)
                for side in ("xmin", "ymin", "xmax", "ymax")
            ]
            label = (item.findtext("name") or "").strip()
            box = (corners[0] - 1, corners[1] - 1, corners[2], corners[3])
            yield BoxAnnotation(name, label, box, place)


class _LimitedTree(ElementTree.TreeBuilder):
    """Builds a tree that is not too deep, without a document type, which may declare entities."""

    def __init__(self, origin: Path) -> None:
        super().__init__()
        self.origin, self.depth = origin, 0

    def start(self, tag: str, attrs: dict[str, str]) -> ElementTree.Element:
        """Open an element."""
        self.depth += 1
        if self.depth > MAX_XML_DEPTH:
            raise DataError(
                f"{self.origin} is not a sensible XML document",
                expected=f"at most {MAX_XML_DEPTH} elements inside each other",
            )
        return super().start(tag, attrs)

    def end(self, tag: str) -> ElementTree.Element:
        """Close an element."""
        self.depth -= 1
        return super().end(tag)

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Refuse a document type, which may declare entities."""
        raise DataError(f"{self.origin} must not declare a document type (DOCTYPE)")


def parse_xml(data: bytes, origin: Path) -> ElementTree.Element:
    """Parse an XML document without document type, entities and files of others.

    Args:
        data: The document.
        origin: The file, for messages.

    Raises:
        DataError: If it is damaged, too deep, or declares a document type.
    """
    parser = ElementTree.XMLParser(target=_LimitedTree(origin))
    try:
        parser.feed(data)
        return parser.close()
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise DataError(f"{origin} is not valid XML", received=error) from error
