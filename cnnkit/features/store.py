"""Feature store: a folder of NumPy arrays and a JSON index.

    DIR/index.json             network, layer, spec, dataset, classes, number of images
    DIR/features-00000.npy     part 0: (rows, d) float32, the vectors of images 0 to rows - 1
    DIR/features-00000.json    their names and labels; written last, so a part that has it is whole
    DIR/features-00001.npy     part 1 ...

Features are one dense matrix, so the format is `.npy`: NumPy maps it into memory without a copy,
exactly, as nearest-neighbor search and linear models need it. Every process writes the same index,
so folders that several machines filled are merged by copying their files into one.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np

from cnnkit._file_tree import FEATURE_INDEX
from cnnkit._files import json_text, write_text
from cnnkit._staging import STAGING_PREFIX, remove_abandoned, staged_file, write_errors
from cnnkit._untrusted.json_documents import JsonFields, read_json
from cnnkit._untrusted.limits import MAX_FEATURE_ROWS
from cnnkit._untrusted.npy_arrays import map_npy
from cnnkit.data import Dataset
from cnnkit.data.formats import DECODING_OF_0_1_0, DEFAULT_DECODING
from cnnkit.errors import DataError, UsageError
from cnnkit.features.extract import BATCH_SIZE, FeatureBatch, require_batch_size, stream_features
from cnnkit.features.extractor import FeatureExtractor
from cnnkit.features.image_batches import ALL, select_features_split
from cnnkit.features.index import FeatureIndex, is_feature_store, read_index
from cnnkit.features.spec import FeatureSpec

PART_PREFIX = "features-"
PART_BYTES = 64 << 20
# Parts hold a multiple of the default batch size.
ROWS_MULTIPLE = 64
MAX_ROWS = 8192


def write_features(
    model: keras.Model,
    dataset: Dataset,
    spec: FeatureSpec,
    output: str | Path,
    *,
    split: str = ALL,
    shard: tuple[int, int] = (0, 1),
    rows: int | None = None,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int], object] = lambda count: None,
) -> FeatureIndex:
    """Write the features of a dataset into a folder, part by part; whole parts are kept.

    Args:
        model: A functional or sequential Keras model over RGB images in 0..255.
        dataset: The dataset.
        spec: How an image becomes a vector.
        output: The folder; it may already hold parts of the same features.
        split: `"train"`, `"test"` or `"all"`.
        shard: (i, n) writes every n-th part from the i-th on, counted from 0. Several machines may
            share one folder, or have one each: see `merge_features`.
        rows: Number of images in a part; None makes parts of about 64 MB.
        batch_size: Number of 224 x 224 images in a batch; a batch of larger images has fewer.
        progress: Called with the number of images done since the last call.

    Returns:
        The index of the store.

    Raises:
        UsageError: If the folder holds other files, or features of another network, spec or
            dataset; or if `shard` or `rows` is out of range.
        DataError: If an image cannot be decoded, or a vector is not finite.

    Example:
        >>> import tempfile
        >>> from cnnkit import alexnet
        >>> from cnnkit.data import load_dataset
        >>> from cnnkit.features import FeatureSpec, load_features, write_features
        >>> model = alexnet(input_shape=(64, 64, 3), include_top=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_features(
        ...         model, load_dataset("digits"), FeatureSpec("pool2"), folder, split="test"
        ...     )
        ...     load_features(folder)[1].values.shape
        (359, 2304)
    """
    number, machines = shard
    if not 0 <= number < machines:
        raise UsageError("`shard` must be (i, n) with 0 <= i < n", received=f"{number}/{machines}")
    if rows is not None and not 1 <= rows <= MAX_FEATURE_ROWS:
        raise UsageError(f"`rows` must be from 1 to {MAX_FEATURE_ROWS:,}", received=rows)
    require_batch_size(batch_size)
    extractor = FeatureExtractor(model, spec)
    [dimension] = extractor.dimensions
    images = select_features_split(dataset, split)
    folder, decoding = Path(output), images.decoding
    stored = read_index(folder).decoding if is_feature_store(folder) else decoding
    if (decoding, stored) == (DEFAULT_DECODING, DECODING_OF_0_1_0):
        # A store that version 0.1.0 began goes on as it began.
        decoding, images = stored, images.decoded(stored)
    index = FeatureIndex(
        network=extractor.name,
        identity=extractor.identity,
        spec=spec,
        dataset=dataset.spec,
        dataset_fingerprint=dataset.fingerprint,
        split=split,
        classes=dataset.class_names,
        images=len(images),
        dimension=dimension,
        rows=rows or _default_rows(dimension),
        decoding=decoding,
    )
    _create(folder, index)
    for part in range(number, index.parts, machines):
        part_slice = index.part_slice(part)
        if _is_whole(folder, index, part):
            progress(part_slice.stop - part_slice.start)
            continue
        order = np.arange(part_slice.start, part_slice.stop)
        values = np.empty((len(order), dimension), np.float32)
        for positions, [vectors] in stream_features(extractor, images, order, batch_size):
            values[positions] = vectors
            progress(len(positions))
        _write_part(folder, part, values, images.names[part_slice], images.labels[part_slice])
    return index


def load_features(folder: str | Path) -> tuple[FeatureIndex, FeatureBatch]:
    """Load a feature store; a single part is memory-mapped, several are concatenated in memory.

    Raises:
        UsageError: If the folder is not a feature store.
        DataError: If parts are missing or damaged.
    """
    index = read_index(folder)
    parts = list(iter_parts(folder, index))
    values = parts[0].values if len(parts) == 1 else np.concatenate([p.values for p in parts])
    names = tuple(name for part in parts for name in part.names)
    labels = np.concatenate([part.labels for part in parts])
    return index, FeatureBatch(values, names, labels, index.classes)


def iter_parts(folder: str | Path, index: FeatureIndex) -> Iterator[FeatureBatch]:
    """Yield the parts of a feature store in order, each memory-mapped.

    Raises:
        DataError: If a part is missing or damaged, which is checked before the first is yielded;
            or if its labels do not fit the classes.
    """
    folder = Path(folder)
    whole = _whole_parts(folder, index)
    if len(whole) < index.parts:
        first = next(part for part in itertools.count() if part not in whole)
        raise DataError(
            f"{index.parts - len(whole)} of {index.parts} parts of the features in {folder} are"
            " missing",
            received=f"no complete {_values_file(folder, first).name}",
            hint="Run the same command again, or merge the folders of the other machines",
        )
    for part in range(index.parts):
        names, labels = _read_names(folder, index, part)
        yield FeatureBatch(map_npy(_values_file(folder, part)), names, labels, index.classes)


def merge_features(folders: Sequence[str | Path], output: str | Path) -> FeatureIndex:
    """Copy the parts of several stores of the same features into one folder.

    Raises:
        UsageError: If they are features of different networks, specs or datasets.
    """
    index = read_index(folders[0])
    target = Path(output)
    for folder in folders[1:]:
        index.check_compatible(read_index(folder), Path(folder))
    _create(target, index)
    for folder in map(Path, folders):
        for part in sorted(_whole_parts(folder, index) - _whole_parts(target, index)):
            _read_names(folder, index, part)
            for name in (_values_file, _names_file):
                with staged_file(name(target, part)) as staged:
                    shutil.copyfile(name(folder, part), staged)
    return index


def missing_parts(folder: str | Path, index: FeatureIndex) -> int:
    """Return the number of parts that are missing."""
    return index.parts - len(_whole_parts(Path(folder), index))


def _create(folder: Path, index: FeatureIndex) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} must be a folder, not a file")
    remove_abandoned(folder)
    if not is_feature_store(folder):
        with write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if all(entry.name.startswith(STAGING_PREFIX) for entry in folder.iterdir()):
            write_text(folder / FEATURE_INDEX, index.to_json())
        # Another machine may have written the index in the meantime.
        elif not is_feature_store(folder):
            raise UsageError(
                f"{folder} holds other files", expected="a new folder, or one of the same features"
            )
    index.check_compatible(read_index(folder), folder)


def _write_part(
    folder: Path, part: int, values: np.ndarray, names: Sequence[str], labels: np.ndarray
) -> None:
    """Write the vectors of a part, and then its names and labels, which mark it as whole."""
    with staged_file(_values_file(folder, part)) as staged, staged.open("wb") as file:
        np.save(file, values)
    names_and_labels = {"names": names, "labels": labels.tolist()}
    write_text(_names_file(folder, part), json_text(names_and_labels))


def _whole_parts(folder: Path, index: FeatureIndex) -> set[int]:
    """Return the parts that are there and complete."""
    # An index may state more parts than can be looked for one by one.
    stems = (file.stem.removeprefix(PART_PREFIX) for file in folder.glob(f"{PART_PREFIX}*.npy"))
    numbers = {int(stem) for stem in stems if stem.isdecimal()}
    return {part for part in numbers if part < index.parts and _is_whole(folder, index, part)}


def _is_whole(folder: Path, index: FeatureIndex, part: int) -> bool:
    values = _values_file(folder, part)
    if not (_names_file(folder, part).is_file() and values.is_file()):
        return False
    rows = index.part_slice(part)
    try:
        found = map_npy(values)
    except DataError:
        return False
    shape = (rows.stop - rows.start, index.dimension)
    return bool(found.shape == shape and found.dtype == np.float32)


def _read_names(folder: Path, index: FeatureIndex, part: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of the images of a part, and their labels, (rows,) int32."""
    file = _names_file(folder, part)
    stored = JsonFields(read_json(file), file)
    names, labels = stored.texts("names"), stored.integers("labels", minimum=-(2**53))
    rows = index.part_slice(part)
    if not len(names) == len(labels) == rows.stop - rows.start:
        raise DataError(
            f"{file} must have a name and a label for each image",
            expected=rows.stop - rows.start,
            received=f"{len(names)} names and {len(labels)} labels",
        )
    if not 0 <= min(labels) <= max(labels) < len(index.classes):
        raise DataError(
            f"The labels in {file} do not fit the classes",
            expected=f"0 to {len(index.classes) - 1}",
            received=f"{min(labels)} to {max(labels)}",
        )
    return names, np.array(labels, np.int32)


def _values_file(folder: Path, part: int) -> Path:
    return folder / f"{PART_PREFIX}{part:05d}.npy"


def _names_file(folder: Path, part: int) -> Path:
    return folder / f"{PART_PREFIX}{part:05d}.json"


def _default_rows(dimension: int) -> int:
    rows = PART_BYTES // (4 * dimension) // ROWS_MULTIPLE * ROWS_MULTIPLE
    return min(max(rows, ROWS_MULTIPLE), MAX_ROWS)
