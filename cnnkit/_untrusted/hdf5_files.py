"""HDF5: the whole structure of a file is checked before the first number is read.

HDF5 can name other files (external links, external storage, virtual datasets), form cycles of
groups, and unfold a compressed chunk to any size. The file is opened through Python, so that HDF5
itself opens nothing, and each read of the structure is limited.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import h5py

from cnnkit._untrusted.damage import damage_as_error, shorten
from cnnkit._untrusted.limits import (
    FREE_UNFOLDED_BYTES,
    MAX_HDF5_CHUNK_BYTES,
    MAX_HDF5_CHUNKS,
    MAX_HDF5_DEPTH,
    MAX_HDF5_METADATA_BYTES,
    MAX_HDF5_OBJECTS,
    MAX_HDF5_STRUCTURE_BYTES,
    MAX_ZIP_RATIO,
    MIB,
)
from cnnkit._untrusted.regular_files import FileRange, open_regular_file
from cnnkit.errors import DataError

GZIP, SHUFFLE, FLETCHER32 = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, 3
FILTERS = (GZIP, SHUFFLE, FLETCHER32)
# A chunk that compression makes longer, and its checksum.
CHUNK_OVERHEAD_BYTES = 4096


@contextmanager
def open_hdf5(
    source: str | Path | BinaryIO, origin: str | Path | None = None, *, check: bool = True
) -> Iterator[h5py.File]:
    """Open an HDF5 file whose structure has been checked.

    Args:
        source: The file, by its path or open.
        origin: Its name for messages; None for `source`.
        check: Whether to check the structure. Once is enough for a file that is opened repeatedly.

    Raises:
        DataError: If it is damaged; has a link to another file or place, a group that is linked
            twice, more than `MAX_HDF5_OBJECTS` groups and datasets, or deeper than
            `MAX_HDF5_DEPTH`; or a dataset that is not numeric, lies in other files, is
            not wholly stored, or is compressed by other filters than gzip, shuffle and fletcher32.
    """
    if isinstance(source, (str, Path)):
        with open_regular_file(source) as file, open_hdf5(file, source, check=check) as opened:
            yield opened
        return
    name = origin or "The HDF5 file"
    view = FileRange(
        source,
        origin=name,
        max_read=MAX_HDF5_METADATA_BYTES,
        max_total=MAX_HDF5_STRUCTURE_BYTES,
    )
    with damage_as_error(name, problem="is damaged or incomplete, or not an HDF5 file"):
        handle = h5py.File(view, "r")
    with handle:
        if check:
            with damage_as_error(name):
                compressed = _check_structure(handle, name, view.seek(0, io.SEEK_END))
                # The size of each chunk has been compared with that of the dataset.
                view.max_read = view.max_total = None
                for dataset, place in compressed:
                    _check_chunks(dataset, place)
        view.max_read = view.max_total = None
        yield handle


def read_text_attribute(item: h5py.Group | h5py.Dataset, name: str, origin: str | Path) -> str:
    """Return an attribute that is one text, or an empty text if there is none.

    Raises:
        DataError: If it has another type, is not UTF-8, or longer than `MAX_HDF5_METADATA_BYTES`.
    """
    values = read_text_attributes(item, name, origin)
    if len(values) > 1:
        raise DataError(f"The attribute {name} of {origin} must be one text")
    return values[0] if values else ""


def read_text_attributes(
    item: h5py.Group | h5py.Dataset, name: str, origin: str | Path
) -> list[str]:
    """Return an attribute that is a list of texts, or an empty list if there is none.

    Raises:
        DataError: As `read_text_attribute`.
    """
    with damage_as_error(f"The attribute {name} of {origin}"):
        values = _stored_texts(item, name, origin) if name in item.attrs else []
        return [one.decode() if isinstance(one, bytes) else str(one) for one in values]


def _stored_texts(
    item: h5py.Group | h5py.Dataset, name: str, origin: str | Path
) -> list[str | bytes]:
    stored = item.attrs.get_id(name)
    if stored.shape is None or 0 in stored.shape:
        return []  # Keras writes an empty list as numbers.
    size = math.prod(stored.shape) * max(1, stored.dtype.itemsize)
    if stored.dtype.kind not in "SO" or size > MAX_HDF5_METADATA_BYTES:
        raise DataError(
            f"The attribute {name} of {origin} must be text",
            received=f"{shorten(str(stored.dtype), 40)} {shorten(str(stored.shape))}",
        )
    if h5py.check_string_dtype(stored.dtype) is None:
        raise DataError(f"The attribute {name} of {origin} must be text")
    value = item.attrs[name]
    return value.reshape(-1).tolist() if hasattr(value, "reshape") else [value]


def _check_structure(
    handle: h5py.File, name: str | Path, file_size: int
) -> list[tuple[h5py.Dataset, str]]:
    """Visit every group and dataset once, without recursion; return the datasets in chunks."""
    seen = {_address(handle)}
    open_groups: list[tuple[h5py.Group, str, int]] = [(handle, "", 0)]
    attributes = _check_attributes(handle, name)
    stored = 0
    in_chunks = []
    while open_groups:
        group, path, depth = open_groups.pop()
        if len(group) + len(seen) > MAX_HDF5_OBJECTS:
            raise _absurd(name, "groups and datasets", MAX_HDF5_OBJECTS, len(group) + len(seen))
        if depth > MAX_HDF5_DEPTH:
            raise _absurd(name, "groups inside each other", MAX_HDF5_DEPTH, depth)
        for key in group:
            place = f"{path}/{key}"
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise DataError(
                    f"{name} has a link to another file or place, which is not followed",
                    received=shorten(place),
                )
            item = group[key]
            address = _address(item)
            if address in seen:
                raise DataError(f"{name} has two links to one object", received=shorten(place))
            seen.add(address)
            attributes += _check_attributes(item, name)
            if attributes > MAX_HDF5_OBJECTS:
                raise _absurd(name, "attributes", MAX_HDF5_OBJECTS, attributes)
            if isinstance(item, h5py.Group):
                open_groups.append((item, place, depth + 1))
            elif isinstance(item, h5py.Dataset):
                stored += _check_dataset(item, f"{shorten(place)} of {name}")
                if item.chunks is not None:
                    in_chunks.append((item, f"{shorten(place)} of {name}"))
                if stored > file_size:
                    raise DataError(f"{name} is damaged: its datasets overlap")
            else:
                raise DataError(
                    f"{name} has an object that is neither a group nor a dataset",
                    received=shorten(place),
                )
    return in_chunks


def _check_attributes(item: h5py.Group | h5py.Dataset, name: str | Path) -> int:
    """Read the texts among the attributes while reads are limited, and return their number."""
    for key in item.attrs:
        stored = item.attrs.get_id(key)
        if h5py.check_string_dtype(stored.dtype) is not None:
            _stored_texts(item, key, name)
    return len(item.attrs)


def _address(item: h5py.Group | h5py.Dataset) -> object:
    return h5py.h5o.get_info(item.id).addr


def _absurd(name: str | Path, things: str, limit: int, received: int) -> DataError:
    return DataError(
        f"{name} has too many {things}", expected=f"at most {limit:,}", received=f"{received:,}"
    )


def _check_dataset(dataset: h5py.Dataset, name: str) -> int:
    """Check a dataset, and return the number of bytes that it occupies in the file."""
    properties = dataset.id.get_create_plist()
    layout = properties.get_layout()
    if properties.get_external_count() or layout == h5py.h5d.VIRTUAL:
        raise DataError(f"{name} lies in other files, which are not opened")
    dtype = dataset.dtype
    # HDF5 has no bfloat16: Keras stores its two bytes as they are.
    is_number = dtype.kind in "biuf" and dtype.itemsize <= 8
    if not (is_number or (dtype.kind == "V" and dtype.itemsize == 2 and not dtype.names)):
        raise DataError(f"{name} is not an array of numbers", received=shorten(str(dtype), 80))
    if dataset.shape is None:
        raise DataError(f"{name} has no shape")
    size = math.prod(dataset.shape) * dtype.itemsize
    stored = dataset.id.get_storage_size()
    if layout != h5py.h5d.CHUNKED:
        if stored < size:
            raise DataError(
                f"{name} is not wholly stored", expected=f"{size:,} bytes", received=f"{stored:,}"
            )
        return int(stored)
    if size > max(FREE_UNFOLDED_BYTES, MAX_ZIP_RATIO * stored):
        raise DataError(
            f"{name} unfolds to an absurd size",
            expected=f"at most {MAX_ZIP_RATIO} times its stored {stored:,} bytes",
            received=f"{size:,}",
            hint="If you trust the file, rewrite it: h5repack -f NONE",
        )
    return int(stored)


def _check_chunks(dataset: h5py.Dataset, name: str) -> None:
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(n)[0] for n in range(properties.get_nfilters())]
    if not set(filters) <= set(FILTERS) or len(set(filters)) < len(filters):
        raise DataError(
            f"{name} is compressed in a way that is not read",
            expected="gzip, shuffle and fletcher32",
            received=", ".join(map(str, filters)),
            hint="Rewrite the file: h5repack -f GZIP=4",
        )
    chunk = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if chunk > min(MAX_HDF5_CHUNK_BYTES, max(FREE_UNFOLDED_BYTES, 2 * dataset.nbytes)):
        raise DataError(f"{name} has absurdly large chunks", received=f"{chunk:,} bytes")
    count = math.prod(
        -(-side // step) for side, step in zip(dataset.shape, dataset.chunks, strict=True)
    )
    if count > MAX_HDF5_CHUNKS:
        raise _absurd(name, "chunks", MAX_HDF5_CHUNKS, count)
    found: list[h5py.h5d.StoreInfo] = []
    dataset.id.chunk_iter(found.append)
    if len(found) != count:
        raise DataError(
            f"{name} is not wholly stored", expected=f"{count:,} chunks", received=f"{len(found):,}"
        )
    for info in found:
        if info.size > chunk + CHUNK_OVERHEAD_BYTES:
            raise DataError(f"{name} has a chunk of an absurd size", received=f"{info.size:,}")
        is_compressed = GZIP in filters and not info.filter_mask >> filters.index(GZIP) & 1
        if is_compressed and not _unfolds_to(dataset, info, chunk, FLETCHER32 in filters):
            raise DataError(
                f"{name} has a chunk that does not unfold to {chunk:,} bytes",
                received=f"the chunk at {info.chunk_offset}",
            )


def _unfolds_to(
    dataset: h5py.Dataset, info: h5py.h5d.StoreInfo, size: int, has_checksum: bool
) -> bool:
    """Return True if a compressed chunk has the size of a chunk; HDF5 unfolds it to any size."""
    _, data = dataset.id.read_direct_chunk(info.chunk_offset)
    compressed = data[:-4] if has_checksum else data
    decompressor = zlib.decompressobj()
    total = 0
    while not decompressor.eof and total <= size:
        block = decompressor.decompress(compressed, MIB)
        compressed = decompressor.unconsumed_tail
        if not block and not compressed:
            break
        total += len(block)
    return decompressor.eof and total == size
