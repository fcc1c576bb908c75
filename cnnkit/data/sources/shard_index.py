"""The index of a sharded dataset, whose every field is checked before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnkit._dataset_spec import SHARD_SUFFIX
from cnnkit._untrusted.images import max_image_bytes, too_large_error
from cnnkit._untrusted.json_documents import JsonFields, parse_json
from cnnkit._untrusted.limits import (
    MAX_JSON_BYTES,
    MAX_SHARD_INDEX_BYTES,
    MAX_TEXT_LENGTH,
    SHARD_BYTES_PER_INDEX_BYTE,
)
from cnnkit._untrusted.npy_arrays import NpzArrays, open_npz
from cnnkit._untrusted.regular_files import decode_utf8
from cnnkit.errors import DataError

FORMAT = 1
AGAIN = "Copy it or write the shards again"
PLACE_COLUMNS = 4


@dataclass(frozen=True)
class SplitIndex:
    """The images of a split.

    Attributes:
        labels: (n,) int32, an index into the class names.
        names: Name of each image.
        file_index: (n,) int32, an index into the shards.
        offsets: (n,) int64, position of the first byte of each image in its shard.
        lengths: (n,) int64, in bytes.
    """

    labels: np.ndarray
    names: tuple[str, ...]
    file_index: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True)
class ShardIndex:
    """What the index of a sharded dataset says.

    Attributes:
        class_names: Names of the classes.
        files: Paths of the shards.
        splits: The images of each split.
        fingerprint: That of the dataset.
        left_out: Names of the files that were left out, by reason.
        label_files: Names of the files that labels were read from.
        empty_folders: Names of the folders without any image.
    """

    class_names: tuple[str, ...]
    files: tuple[str, ...]
    splits: Mapping[str, SplitIndex]
    fingerprint: str
    left_out: Mapping[str, tuple[str, ...]]
    label_files: tuple[str, ...]
    empty_folders: tuple[str, ...]


def read_shard_index(file: Path, unreadable: str) -> ShardIndex:
    """Read the index of a sharded dataset, and compare it with the shards beside it.

    Args:
        file: The index.
        unreadable: The reason of the files that version 0.1.0 stored as unreadable.

    Raises:
        DataError: If the index is damaged or of another format; a shard is missing or of another
            size; an image is not within its shard, or its file is larger than an image may be.
    """
    arrays = open_npz(file, kinds="iu")
    # The description is small, and says how large the rest may be.
    data = _read(arrays, "about", "u", max_bytes=MAX_JSON_BYTES).tobytes()
    about = JsonFields(parse_json(data, f"about in {file}"), f"about in {file}")
    if (found := about.integer("format")) != FORMAT:
        raise DataError(
            f"{file} was written by another version of cnnkit",
            expected=f"format {FORMAT}",
            received=found,
        )
    class_names = about.texts("labels")
    sizes = _check_shards(file.parent, about)
    allowed = max(MAX_SHARD_INDEX_BYTES, sum(sizes.values()) // SHARD_BYTES_PER_INDEX_BYTE)
    total = sum(header.bytes for header in arrays.headers.values())
    if total > allowed:
        raise DataError(
            f"{file} is too large", expected=f"at most {allowed:,} bytes", received=f"{total:,}"
        )
    splits = about.texts("parts")
    if not {"train", "test"} <= set(splits):
        raise about.wrong("parts", "a list with train and test")
    return ShardIndex(
        class_names,
        tuple(str(file.parent / name) for name in sizes),
        {
            split: _read_split(arrays, split, len(class_names), np.array(list(sizes.values())))
            for split in splits
        },
        about.text("fingerprint"),
        _left_out(about, unreadable),
        about.texts("label_files", default=()),
        about.texts("empty_folders", default=()),
    )


def _read(arrays: NpzArrays, name: str, kinds: str, max_bytes: int | None = None) -> np.ndarray:
    header = arrays.headers.get(name)
    if header is None:
        raise DataError(f"{arrays.path} is damaged: it has no {name}", hint=AGAIN)
    is_table = name.endswith("/places")
    axes = (header.shape[0], PLACE_COLUMNS) if is_table and header.shape else header.shape[:1]
    if header.dtype.kind not in kinds or not header.shape or header.shape != axes:
        raise DataError(
            f"{name} in {arrays.path} is damaged",
            expected="integers of shape " + (f"(n, {PLACE_COLUMNS})" if is_table else "(n,)"),
            received=f"{header.dtype} of shape {header.shape}",
            hint=AGAIN,
        )
    if max_bytes is not None and header.bytes > max_bytes:
        raise DataError(
            f"{name} in {arrays.path} is too large",
            expected=f"at most {max_bytes:,} bytes",
            received=f"{header.bytes:,}",
        )
    return arrays.read(name)


def _check_shards(folder: Path, about: JsonFields) -> dict[str, int]:
    """Return the sizes of the shards by their names, as stated, after a look at the files."""
    sizes: dict[str, int] = {}
    for number, pair in enumerate(about.items("shards")):
        place = f"shards[{number}]"
        if not isinstance(pair, list) or len(pair) != 2:
            raise about.wrong("shards", "a list of names and sizes")
        fields = JsonFields(dict(zip(("name", "bytes"), pair, strict=True)), about.origin, place)
        name, size = fields.text("name", max_length=255), fields.integer("bytes")
        # A path would open a file elsewhere.
        if not name.endswith(SHARD_SUFFIX) or name in sizes or set(name) & set("/\\:"):
            raise fields.wrong("name", f"a file name of its own that ends with {SHARD_SUFFIX}")
        file = folder / name
        try:
            status = file.stat() if file.is_file() else None
        except OSError:
            status = None
        if status is None:
            raise DataError(f"The shard {file} is missing", hint="Write the shards again")
        if status.st_size != size:
            raise DataError(
                f"The shard {file} is damaged",
                expected=f"{size} bytes",
                received=status.st_size,
                hint=AGAIN,
            )
        sizes[name] = size
    return sizes


def _read_split(arrays: NpzArrays, split: str, classes: int, sizes: np.ndarray) -> SplitIndex:
    origin = f"{split} in {arrays.path}"
    places = _read(arrays, f"{split}/places", "i").astype(np.int64, copy=False)
    labels = _read(arrays, f"{split}/labels", "iu")
    count = len(places)
    text = _read(arrays, f"{split}/names", "u", max_bytes=(MAX_TEXT_LENGTH + 1) * max(1, count))
    names = decode_utf8(text.tobytes(), f"The names of {origin}")
    if len(labels) != count or (names.count("\n") + 1 if count else len(names)) != count:
        raise DataError(f"The numbers of labels, names and images of {origin} differ", hint=AGAIN)
    file_index, offsets, lengths, _ = places.T
    if not count:
        return SplitIndex(labels, (), file_index.astype(np.int32), offsets, lengths)
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"The labels of {origin} are damaged",
            expected=f"0 to {classes - 1}",
            received=f"{labels.min()} to {labels.max()}",
            hint=AGAIN,
        )
    _check_places(file_index, offsets, lengths, sizes, origin)
    labels = labels.astype(np.int32, copy=False)
    split_names = tuple(names.split("\n"))
    largest = int(lengths.argmax())
    if lengths[largest] > max_image_bytes():
        raise too_large_error(
            f"An image of {origin} is too large",
            f"{split_names[largest]}, {lengths[largest]:,} bytes",
        )
    return SplitIndex(labels, split_names, file_index.astype(np.int32), offsets, lengths)


def _check_places(
    file_index: np.ndarray,
    offsets: np.ndarray,
    lengths: np.ndarray,
    sizes: np.ndarray,
    origin: str,
) -> None:
    """Check that all images lie within the shards, and are not more than their bytes together."""
    is_inside = (
        file_index.min() >= 0
        and file_index.max() < len(sizes)
        and offsets.min() >= 0
        and lengths.min() >= 0
        # A sum of the two could be beyond int64.
        and bool((lengths <= sizes[file_index]).all())
        and bool((offsets <= sizes[file_index] - lengths).all())
        and bool((np.bincount(file_index, lengths, len(sizes)) <= sizes).all())
    )
    if not is_inside:
        raise DataError(
            f"The locations of the images of {origin} are damaged",
            expected="images side by side within the shards",
            hint=AGAIN,
        )


def _left_out(about: JsonFields, unreadable: str) -> dict[str, tuple[str, ...]]:
    """Return the left-out files by reason; version 0.1.0 stored the unreadable ones only."""
    if "left_out" in about and about.document["left_out"]:
        fields = about.fields("left_out")
        reasons = JsonFields({"reasons": list(fields)}, about.origin, "left_out").texts("reasons")
        return {reason: fields.texts(reason) for reason in reasons}
    names = about.texts("unreadable", default=())
    return {unreadable: names} if names else {}
