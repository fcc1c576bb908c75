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

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cnnkit._files import json_text, write_text
from cnnkit._staging import STAGING_PREFIX, remove_abandoned, staged_file
from cnnkit.data import Dataset, Decoding
from cnnkit.data.formats import DECODING_OF_0_1_0, DEFAULT_DECODING
from cnnkit.errors import DataError, UsageError
from cnnkit.features.extract import BATCH_SIZE, FeatureBatch, stream_features
from cnnkit.features.extractor import FeatureExtractor
from cnnkit.features.image_batches import ALL, select_features_split
from cnnkit.features.spec import FeatureSpec

INDEX = "index.json"
FORMAT = 1
# The key of the spec in the file.
SPEC_KEY = "protocol"
PART_BYTES = 64 << 20
# Parts hold a multiple of the default batch size.
ROWS_MULTIPLE = 64
MAX_ROWS = 8192


@dataclass(frozen=True)
class FeatureIndex:
    """Index of a feature store: how its features were made.

    Attributes:
        network: Name of the network.
        identity: Digest of the network up to the layer, from `model_identity`.
        spec: How an image becomes a vector.
        dataset: Specification of the dataset, for example `folder:images`.
        dataset_fingerprint: Fingerprint of the dataset, from `cnnkit.data.Dataset`.
        split: `"train"`, `"test"` or `"all"`.
        classes: Names of the classes.
        images: Number of images.
        dimension: Length of a vector.
        rows: Number of images in each part but the last.
        decoding: How the files of the images became pixels.
    """

    network: str
    identity: str
    spec: FeatureSpec
    dataset: str
    dataset_fingerprint: str
    split: str
    classes: tuple[str, ...]
    images: int
    dimension: int
    rows: int
    decoding: Decoding = DEFAULT_DECODING

    @property
    def parts(self) -> int:
        """Number of parts, the files of the store."""
        return -(-self.images // self.rows)

    def part_slice(self, part: int) -> slice:
        """Return the slice of the images that are in a part."""
        return slice(part * self.rows, min((part + 1) * self.rows, self.images))

    def key_fields(self) -> dict[str, Any]:
        """Return the fields that are equal in all parts of the same features, by their JSON key."""
        fields = {
            SPEC_KEY: self.spec.to_dict(),
            "network": self.identity,
            "dataset": self.dataset_fingerprint,
            "split": self.split,
            "rows": self.rows,
        }
        if self.decoding == DECODING_OF_0_1_0:
            return fields
        return {**fields, "decoding": self.decoding.to_dict()}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the key fields, in hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.key_fields(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """Return the content of the index file."""
        fields = {SPEC_KEY if name == "spec" else name: value for name, value in vars(self).items()}
        fields = {"format": FORMAT, "fingerprint": self.fingerprint, **fields}
        fields[SPEC_KEY], fields["decoding"] = self.spec.to_dict(), self.decoding.to_dict()
        return json_text(fields, indent=2) + "\n"

    def check_compatible(self, other: FeatureIndex, folder: Path) -> None:
        """Check that another store holds parts of the same features.

        Args:
            other: Index of the other store.
            folder: Folder of the other store, for the error.

        Raises:
            UsageError: If it does not. The error names the first field that differs.
        """
        mine, theirs = self.key_fields(), other.key_fields()
        for name in {**mine, **theirs}:
            if mine.get(name) != theirs.get(name):
                raise UsageError(
                    f"{folder} holds features of another {'spec' if name == SPEC_KEY else name}",
                    expected=_short(mine[name]) if name in mine else "that of version 0.1.0",
                    received=_short(theirs[name]) if name in theirs else "that of version 0.1.0",
                    hint="Use another folder",
                )


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
            dataset; or if `shard` is out of range.
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


def is_feature_store(folder: str | Path) -> bool:
    """Return True if the folder is a feature store."""
    return (Path(folder) / INDEX).is_file()


def read_index(folder: str | Path) -> FeatureIndex:
    """Read the index of a feature store.

    Raises:
        UsageError: If the folder is not a feature store.
        DataError: If the index is damaged or of another version.
    """
    file = Path(folder) / INDEX
    if not file.is_file():
        raise UsageError(
            f"No features in {folder}", expected=f"a folder with {INDEX}, from `cnnkit features`"
        )
    try:
        fields = json.loads(file.read_text())
        if fields.pop("format") != FORMAT:
            raise DataError(
                f"{file} was written by another version of cnnkit", expected=f"format {FORMAT}"
            )
        fields.pop("fingerprint")
        fields["spec"] = FeatureSpec.from_dict(fields.pop(SPEC_KEY))
        fields["decoding"] = Decoding.from_dict(fields.get("decoding"))
        return FeatureIndex(**{**fields, "classes": tuple(fields["classes"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is not an index of features", received=error) from error


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
    missing = [part for part in range(index.parts) if not _is_whole(folder, index, part)]
    if missing:
        raise DataError(
            f"{len(missing)} of {index.parts} parts of the features in {folder} are missing",
            received=f"no complete {_values_file(folder, missing[0]).name}",
            hint="Run the same command again, or merge the folders of the other machines",
        )
    for part in range(index.parts):
        stored = json.loads(_names_file(folder, part).read_text())
        labels = np.array(stored["labels"], np.int32)
        if labels.size and not 0 <= labels.min() <= labels.max() < len(index.classes):
            raise DataError(
                f"The labels in {_names_file(folder, part)} do not fit the classes",
                expected=f"0 to {len(index.classes) - 1}",
                received=f"{labels.min()} to {labels.max()}",
            )
        values = np.load(_values_file(folder, part), mmap_mode="r")
        yield FeatureBatch(values, tuple(stored["names"]), labels, index.classes)


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
        for part in range(index.parts):
            if _is_whole(target, index, part) or not _is_whole(folder, index, part):
                continue
            for name in (_values_file, _names_file):
                with staged_file(name(target, part)) as staged:
                    shutil.copyfile(name(folder, part), staged)
    return index


def missing_parts(folder: str | Path, index: FeatureIndex) -> int:
    """Return the number of parts that are missing."""
    return sum(not _is_whole(Path(folder), index, part) for part in range(index.parts))


def _create(folder: Path, index: FeatureIndex) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} must be a folder, not a file")
    remove_abandoned(folder)
    if is_feature_store(folder):
        index.check_compatible(read_index(folder), folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    if any(not entry.name.startswith(STAGING_PREFIX) for entry in folder.iterdir()):
        raise UsageError(
            f"{folder} holds other files", expected="a new folder, or one of the same features"
        )
    write_text(folder / INDEX, index.to_json())


def _write_part(
    folder: Path, part: int, values: np.ndarray, names: Sequence[str], labels: np.ndarray
) -> None:
    """Write the vectors of a part, and then its names and labels, which mark it as whole."""
    with staged_file(_values_file(folder, part)) as staged, staged.open("wb") as file:
        np.save(file, values)
    names_and_labels = {"names": names, "labels": labels.tolist()}
    write_text(_names_file(folder, part), json_text(names_and_labels))


def _is_whole(folder: Path, index: FeatureIndex, part: int) -> bool:
    values = _values_file(folder, part)
    if not (_names_file(folder, part).is_file() and values.is_file()):
        return False
    rows = index.part_slice(part)
    shape = (rows.stop - rows.start, index.dimension)
    try:
        found = np.load(values, mmap_mode="r")
    except (ValueError, EOFError):
        return False
    return bool(found.shape == shape and found.dtype == np.float32)


def _values_file(folder: Path, part: int) -> Path:
    return folder / f"features-{part:05d}.npy"


def _names_file(folder: Path, part: int) -> Path:
    return folder / f"features-{part:05d}.json"


def _default_rows(dimension: int) -> int:
    rows = PART_BYTES // (4 * dimension) // ROWS_MULTIPLE * ROWS_MULTIPLE
    return min(max(rows, ROWS_MULTIPLE), MAX_ROWS)


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return str(value)[:12] if isinstance(value, str) else str(value)
