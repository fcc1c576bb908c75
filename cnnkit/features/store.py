"""Features on disk: a folder of NumPy arrays and a JSON index.

    DIR/index.json             what they are: network, layer, protocol, dataset, classes, how many
    DIR/features-00000.npy     (rows, d) float32, the vectors of images 0 to rows - 1
    DIR/features-00000.json    their names and labels; written last, so what has one is whole
    DIR/features-00001.npy     ...

`.npy`, because features are one dense matrix: it is mapped into memory as it lies, exact, without
a copy, which is what a nearest-image search and a linear model want, and NumPy alone reads it.
Every process writes the same index, so folders that several machines filled are merged by putting
their files together.
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

from cnnkit._files import STAGING_PREFIX, staged_file, write_text
from cnnkit.data import Dataset
from cnnkit.errors import DataError, UsageError
from cnnkit.features.extract import BATCH_SIZE, FeatureBatch, stream_features
from cnnkit.features.extractor import FeatureExtractor
from cnnkit.features.image_batches import ALL, select_features_split
from cnnkit.features.spec import FeatureSpec

INDEX = "index.json"
FORMAT = 1
PART_BYTES = 64 << 20
# A whole number of the usual batches.
ROWS_MULTIPLE = 64
MAX_ROWS = 8192


@dataclass(frozen=True)
class FeatureIndex:
    """What the features in a folder are.

    Attributes:
        network: Name of the network.
        identity: Digest of the network up to the layer.
        protocol: How an image becomes a vector.
        dataset: How the dataset was asked for.
        dataset_fingerprint: Of the dataset, as `cnnkit.data.Dataset` has it.
        split: `"train"`, `"test"` or `"all"`.
        classes: Names of the classes.
        images: How many there are.
        dimension: Length of a vector.
        rows: Images in each file but the last.
    """

    network: str
    identity: str
    protocol: FeatureSpec
    dataset: str
    dataset_fingerprint: str
    split: str
    classes: tuple[str, ...]
    images: int
    dimension: int
    rows: int

    @property
    def parts(self) -> int:
        """Number of files."""
        return -(-self.images // self.rows)

    def place(self, part: int) -> slice:
        """Returns which images are in a file."""
        return slice(part * self.rows, min((part + 1) * self.rows, self.images))

    def identifying(self) -> dict[str, Any]:
        """Returns what has to agree for features to belong together."""
        return {
            "protocol": self.protocol.as_json(),
            "network": self.identity,
            "dataset": self.dataset_fingerprint,
            "split": self.split,
            "rows": self.rows,
        }

    @property
    def fingerprint(self) -> str:
        """A digest of it."""
        return hashlib.sha256(json.dumps(self.identifying(), sort_keys=True).encode()).hexdigest()

    def as_json(self) -> str:
        """Returns it as text."""
        fields = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            **vars(self),
            "protocol": self.protocol.as_json(),
        }
        return json.dumps(fields, indent=2) + "\n"

    def check_same(self, other: FeatureIndex, where: Path) -> None:
        """Makes sure that the features in `where`, of index `other`, belong to these.

        Raises:
            UsageError: If they do not; the first difference is told.
        """
        mine, theirs = self.identifying(), other.identifying()
        for name, value in mine.items():
            if theirs[name] != value:
                raise UsageError(
                    f"{where} holds features of another {name}",
                    expected=_short(value),
                    received=_short(theirs[name]),
                    hint="Use another folder",
                )


def write_features(
    model: keras.Model,
    source: Dataset,
    protocol: FeatureSpec,
    output: str | Path,
    *,
    split: str = ALL,
    shard: tuple[int, int] = (0, 1),
    rows: int | None = None,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int], object] = lambda count: None,
) -> FeatureIndex:
    """Writes the features of a dataset into a folder, file by file; what is there is not redone.

    Args:
        model: As `cnnkit.features.extract` takes it.
        source: The dataset.
        protocol: How an image becomes a vector.
        output: The folder; it may hold a part of the same features.
        split: `"train"`, `"test"` or `"all"`.
        shard: (i, n): only every n-th file, from the i-th on, counted from 0. Several machines may
            share the folder or have one each: see `merge_features`.
        rows: Images in a file; None makes files of about 64 MB.
        batch_size: Images of 224 x 224 at a time.
        progress: Called with the number of images done since the last call.

    Returns:
        What was written.

    Raises:
        UsageError: If the folder holds something else, or features of another network, layer,
            protocol or dataset.
        DataError: As `extract`.

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
        raise UsageError(
            "There is no such shard",
            expected="(i, n) with 0 <= i < n",
            received=f"{number}/{machines}",
        )
    describer = FeatureExtractor(model, protocol)
    [dimension] = describer.dimensions
    images = select_features_split(source, split)
    index = FeatureIndex(
        network=describer.name,
        identity=describer.identity,
        protocol=protocol,
        dataset=source.spec,
        dataset_fingerprint=source.fingerprint,
        split=split,
        classes=source.class_names,
        images=len(images),
        dimension=dimension,
        rows=rows or _usual_rows(dimension),
    )
    folder = Path(output)
    _begin(folder, index)
    for part in range(number, index.parts, machines):
        place = index.place(part)
        count = place.stop - place.start
        if _is_whole(folder, index, part):
            progress(count)
            continue
        values = np.empty((count, index.dimension), np.float32)
        order = np.arange(place.start, place.stop)
        for places, [vectors] in stream_features(describer, images, order, batch_size):
            values[places] = vectors
            progress(len(places))
        with staged_file(_values_file(folder, part)) as aside, aside.open("wb") as file:
            np.save(file, values)
        about = {
            "names": images.names[place],
            "labels": images.labels[place].tolist(),
        }
        write_text(_names_file(folder, part), json.dumps(about))
    return index


def is_feature_store(folder: str | Path) -> bool:
    """Tells whether a folder holds features."""
    return (Path(folder) / INDEX).is_file()


def read_index(folder: str | Path) -> FeatureIndex:
    """Returns what the features in a folder are.

    Raises:
        UsageError: If it holds none.
        DataError: If the index is torn or of another version.
    """
    file = Path(folder) / INDEX
    if not file.is_file():
        raise UsageError(
            f"No features in {folder}", expected=f"a folder with {INDEX}, from `cnnkit features`"
        )
    try:
        fields = json.loads(file.read_text())
        if fields.pop("format") != FORMAT:
            raise DataError(f"{file} is of another cnnkit", expected=f"format {FORMAT}")
        fields.pop("fingerprint")
        fields["protocol"] = FeatureSpec.from_json(fields["protocol"])
        return FeatureIndex(**{**fields, "classes": tuple(fields["classes"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is no index of features", received=error) from error


def load_features(folder: str | Path) -> tuple[FeatureIndex, FeatureBatch]:
    """Reads a folder of features; a single file is mapped into memory, several are read.

    Raises:
        UsageError: If there are none.
        DataError: If files are missing or torn.
    """
    index = read_index(folder)
    parts = list(iter_parts(folder, index))
    values = parts[0].values if len(parts) == 1 else np.concatenate([p.values for p in parts])
    names = tuple(name for part in parts for name in part.names)
    labels = np.concatenate([part.labels for part in parts])
    return index, FeatureBatch(values, names, labels, index.classes)


def iter_parts(folder: str | Path, index: FeatureIndex) -> Iterator[FeatureBatch]:
    """Yields the files of a folder in their order, each mapped into memory.

    Raises:
        DataError: If a file is missing or torn, before the first is yielded; or its labels do not
            fit the classes.
    """
    folder = Path(folder)
    missing = [part for part in range(index.parts) if not _is_whole(folder, index, part)]
    if missing:
        raise DataError(
            f"{len(missing)} of {index.parts} files of features in {folder} are missing",
            received=f"no whole {_values_file(folder, missing[0]).name}",
            hint="Run the same command again, or merge what other machines wrote",
        )
    for part in range(index.parts):
        about = json.loads(_names_file(folder, part).read_text())
        labels = np.array(about["labels"], np.int32)
        if labels.size and not 0 <= labels.min() <= labels.max() < len(index.classes):
            raise DataError(
                f"The labels in {_names_file(folder, part)} do not fit the classes",
                expected=f"0 to {len(index.classes) - 1}",
                received=f"{labels.min()} to {labels.max()}",
            )
        values = np.load(_values_file(folder, part), mmap_mode="r")
        yield FeatureBatch(values, tuple(about["names"]), labels, index.classes)


def merge_features(folders: Sequence[str | Path], output: str | Path) -> FeatureIndex:
    """Copies the files of several folders of the same features into one.

    Raises:
        UsageError: If they are features of different networks, layers, protocols or datasets.
    """
    index = read_index(folders[0])
    target = Path(output)
    for folder in folders[1:]:
        index.check_same(read_index(folder), Path(folder))
    _begin(target, index)
    for folder in map(Path, folders):
        for part in range(index.parts):
            if _is_whole(target, index, part) or not _is_whole(folder, index, part):
                continue
            for name in (_values_file, _names_file):
                with staged_file(name(target, part)) as aside:
                    shutil.copyfile(name(folder, part), aside)
    return index


def missing_parts(folder: str | Path, index: FeatureIndex) -> int:
    """Returns how many files are not there yet."""
    return sum(not _is_whole(Path(folder), index, part) for part in range(index.parts))


def _begin(folder: Path, index: FeatureIndex) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", expected="a folder for the features")
    if is_feature_store(folder):
        index.check_same(read_index(folder), folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    if any(not entry.name.startswith(STAGING_PREFIX) for entry in folder.iterdir()):
        raise UsageError(
            f"{folder} holds something else", expected="a new folder, or one of the same features"
        )
    write_text(folder / INDEX, index.as_json())


def _is_whole(folder: Path, index: FeatureIndex, part: int) -> bool:
    values = _values_file(folder, part)
    if not _names_file(folder, part).is_file() or not values.is_file():
        return False
    place = index.place(part)
    shape = (place.stop - place.start, index.dimension)
    try:
        found = np.load(values, mmap_mode="r")
    except (ValueError, EOFError):
        return False
    return found.shape == shape and found.dtype == np.float32


def _values_file(folder: Path, part: int) -> Path:
    return folder / f"features-{part:05d}.npy"


def _names_file(folder: Path, part: int) -> Path:
    return folder / f"features-{part:05d}.json"


def _usual_rows(dimension: int) -> int:
    rows = PART_BYTES // (4 * dimension) // ROWS_MULTIPLE * ROWS_MULTIPLE
    return min(max(rows, ROWS_MULTIPLE), MAX_ROWS)


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return str(value)[:12] if isinstance(value, str) else str(value)
