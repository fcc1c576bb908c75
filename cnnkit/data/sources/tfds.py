"""TensorFlow Datasets that are already prepared on this machine."""

from __future__ import annotations

import difflib
import hashlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import ParseError
from google.protobuf.message import DecodeError

from cnnkit._dataset_spec import HELD_OUT_MARK
from cnnkit._untrusted.damage import DAMAGE_ERRORS, shorten
from cnnkit._untrusted.json_documents import read_json
from cnnkit._untrusted.record_lengths import MIN_RECORD_BYTES
from cnnkit._untrusted.regular_files import read_text
from cnnkit.data.dataset import (
    UNUSED_SPLIT,
    Dataset,
    Split,
    stratified_holdout,
)
from cnnkit.data.sources.tfrecord import (
    RecordOffsets,
    fits_in_memory,
    read_records,
    record_reader,
    times_of_files,
)
from cnnkit.errors import DataError, UsageError, unknown_name

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

TEST_SPLITS = ("test", "validation")
FEATURES_PACKAGE = "tensorflow_datasets."
# Labels are stored as int32.
MAX_LABEL = 2**31 - 1
# What TensorFlow Datasets raises for a configuration, a version or an option that it lacks, and
# for archives that have to be downloaded by hand.
_BUILDER_ERRORS = (ValueError, AssertionError, TypeError, RuntimeError)


def load_tfds(name: str, seed: int, download: bool) -> Dataset:
    """Open the TensorFlow dataset `name`, with its own test split or a seeded one.

    Its files are read once from end to end, to find the labels and the locations of the images.
    The images stay on disk.

    Args:
        name: Name of the dataset, as `tfds.builder` takes it. `NAME#SPLIT` holds out that split;
            without it `test` is held out, or `validation` if there is no labeled `test`.
        seed: Seed of the split of a dataset without a test split.
        download: Whether the dataset may be downloaded and prepared.

    Raises:
        UsageError: If there is no such dataset, configuration or version, it is not prepared, its
            files are of another format, its examples are not labeled images, or it has no such
            split to hold out.
        DataError: If it has no labeled train split, or its files are damaged.
    """
    spec = f"tfds:{name}"
    name, _, held_out = name.partition(HELD_OUT_MARK)
    builder = _open_builder(name, download)
    _check_builder(name, builder)
    if held_out and held_out not in (others := set(builder.info.splits) - {"train"}):
        raise unknown_name("split to hold out", held_out, sorted(others))
    test_name = held_out or next((one for one in TEST_SPLITS if _has_labels(builder, one)), None)
    images, labels = _locate_images(builder, "train")
    if test_name:
        rows = {"train": (images, labels), "test": _locate_images(builder, test_name)}
    else:
        test = stratified_holdout(labels, seed)
        rows = {
            split: (images.take(members), labels[members])
            for split, members in (("train", ~test), ("test", test))
        }
    digest = hashlib.sha256(builder.info.full_name.encode())
    for _, split_labels in rows.values():
        digest.update(split_labels.tobytes())
    in_memory = fits_in_memory(images for images, _ in rows.values())
    class_names = tuple(builder.info.features["label"].names)
    for split, (_, split_labels) in rows.items():
        outside = split_labels[(split_labels < 0) | (split_labels >= len(class_names))]
        if len(outside):
            raise DataError(
                f"{len(outside)} images of the split {split} of tfds:{name} have no class",
                expected=f"labels of 0 to {len(class_names) - 1}",
                received=int(outside[0]),
            )
    return Dataset(
        spec,
        class_names,
        {split: _split_from_records(split, *row, in_memory) for split, row in rows.items()},
        digest.hexdigest(),
        {
            f"{UNUSED_SPLIT} {split}": _image_names(split, _count_images(builder, split))
            for split in builder.info.splits
            if split not in ("train", test_name)
        },
        modified=times_of_files(file for images, _ in rows.values() for file in images.files),
    )


def _open_builder(name: str, download: bool) -> tfds.core.DatasetBuilder:
    import tensorflow_datasets as tfds

    _check_metadata(re.split("[/:]", name)[0])
    try:
        builder = tfds.builder(name)
    except tfds.core.registered.DatasetNotFoundError:
        base = name.partition("/")[0]
        # Of more than a thousand datasets only similar names are listed in the error.
        near = difflib.get_close_matches(base, tfds.list_builders(), n=5)
        raise unknown_name("dataset", f"tfds:{base}", [f"tfds:{name}" for name in near]) from None
    except _BUILDER_ERRORS as error:
        raise _unknown_variant(name, error) from error
    except (*DAMAGE_ERRORS, ParseError) as error:
        raise DataError(
            f"The description of dataset tfds:{name} is damaged",
            received=_first_sentence(error),
            hint="Prepare the dataset again",
        ) from error
    if download:
        try:
            builder.download_and_prepare()
        except (*_BUILDER_ERRORS, OSError) as error:
            raise DataError(
                f"Dataset tfds:{name} could not be prepared", received=_first_sentence(error)
            ) from error
    if not builder.is_prepared():
        raise UsageError(
            f"Dataset tfds:{name} is not prepared on this machine",
            expected=f"its files in {builder.data_dir}",
            hint="`download=True` downloads and prepares it",
        )
    return builder


def _check_metadata(base: str) -> None:
    """Check the descriptions of a prepared dataset, which TensorFlow Datasets reads whole.

    Raises:
        DataError: If one is not a regular file, too large, or not JSON or text, or names a class
            outside of TensorFlow Datasets.
    """
    from tensorflow_datasets.core.utils import file_utils

    if not base or "\0" in base or Path(base).name != base:  # None that is prepared.
        return
    for root in file_utils.list_data_dirs():
        # NAME/VERSION/ or NAME/CONFIG/VERSION/.
        for depth in ("*", "*/*"):
            for file in Path(root, base).glob(f"{depth}/*.json"):
                _check_classes(file, read_json(file, nan=True))
            for file in Path(root, base).glob(f"{depth}/*.txt"):
                read_text(file)


def _check_classes(file: Path, document: object) -> None:
    """Check the classes that a description names: TensorFlow Datasets imports their modules."""
    parts = [document]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            parts += part.values()
            name = part.get("pythonClassName", FEATURES_PACKAGE)
            module = str(name).rpartition(".")[0]
            if not str(name).startswith(FEATURES_PACKAGE) and module not in sys.modules:
                raise DataError(
                    f"{file} names a class of a module that is not imported",
                    expected=f"classes of {FEATURES_PACKAGE}*",
                    received=shorten(name),
                    hint=f"Import {shorten(module)} first if you trust it",
                )
        elif isinstance(part, list):
            parts += part


def _unknown_variant(name: str, error: Exception) -> UsageError:
    """Return the error for a name that TensorFlow Datasets refuses, with what it has."""
    import tensorflow_datasets as tfds

    base = re.split("[/:]", name)[0]
    try:
        builder_class = tfds.builder_cls(base)
        versions = [builder_class.VERSION, *(builder_class.SUPPORTED_VERSIONS or ())]
        known = ", ".join(f"tfds:{base}/{config}" for config in builder_class.builder_configs)
        known = (known or f"tfds:{base}") + f"; versions {', '.join(map(str, versions))}"
    except Exception:  # The name is none, or its module cannot be imported.
        known = "tfds:NAME, tfds:NAME/CONFIG or tfds:NAME:1.0.0"
    return UsageError(
        f"Dataset tfds:{name} has no such configuration or version",
        expected=known,
        received=_first_sentence(error),
    )


def _first_sentence(error: Exception) -> str:
    """Return the first line of a message; TensorFlow Datasets writes pages."""
    text = re.sub(r"^Failed to construct dataset .*?}\": ", "", str(error).strip())
    return text.partition("\n")[0] or type(error).__name__


def _check_builder(name: str, builder: tfds.core.DatasetBuilder) -> None:
    """Check that the files can be read and that the examples are images of one class each.

    Raises:
        UsageError, DataError: As `load_tfds`.
    """
    import tensorflow_datasets as tfds

    file_format = builder.info.file_format
    if file_format is not None and file_format.value != "tfrecord":
        raise UsageError(
            f"Dataset tfds:{name} is prepared as {file_format.value} files",
            expected="TFRecord files",
            received=builder.data_dir,
            hint="Convert them with `tfds convert_format --out_file_format=tfrecord`, or prepare"
            " the dataset with `tfds build --file_format=tfrecord`",
        )
    features = builder.info.features
    kinds = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    found = {key: features[key] for key in kinds if key in features}
    is_image = isinstance(found.get("image"), tfds.features.Image)
    if (
        len(found) < len(kinds)
        or not all(isinstance(found[key], kind) for key, kind in kinds.items())
        or (is_image and np.dtype(found["image"].np_dtype).kind != "u")
    ):
        raise UsageError(
            f"Dataset tfds:{name} is not for image classification",
            expected="the features image, an Image of integers, and label, a ClassLabel",
            received=", ".join(f"{key} {_kind(feature)}" for key, feature in features.items()),
        )
    if "train" not in builder.info.splits:
        raise DataError(
            f"Dataset tfds:{name} has no train split", received=", ".join(builder.info.splits)
        )


def _kind(feature: tfds.features.FeatureConnector) -> str:
    """Return the class and the data type of a feature, for errors."""
    return f"({type(feature).__name__} {getattr(feature, 'np_dtype', '')})"


def _has_labels(builder: tfds.core.DatasetBuilder, split: str) -> bool:
    """Return whether a split exists and its first image has a class.

    The test images of a challenge, such as ImageNet's, have the label -1.
    """
    if split not in builder.info.splits or not builder.info.splits[split].num_examples:
        return False
    return bool(_locate_images(builder, split, limit=1)[1][0] >= 0)


def _count_images(builder: tfds.core.DatasetBuilder, split: str) -> int:
    """Return the stated number of images of a split that is not read.

    Raises:
        DataError: If its files could not hold as many.
    """
    about = builder.info.splits[split]
    files = map(Path, about.filepaths)
    size = sum(file.stat().st_size for file in files if file.is_file())
    if about.num_examples * MIN_RECORD_BYTES > size:
        raise DataError(
            f"The split {split} is damaged or incomplete",
            expected=f"{about.num_examples:,} images",
            received=f"{size:,} bytes",
            hint="Prepare the dataset again",
        )
    return int(about.num_examples)


def _locate_images(
    builder: tfds.core.DatasetBuilder, split: str, limit: int | None = None
) -> tuple[RecordOffsets, np.ndarray]:
    """Return the locations of the encoded images of a split, of the first `limit`, and labels."""
    files = [str(file) for file in builder.info.splits[split].filepaths]
    if outside := [file for file in files if Path(file).parent != Path(builder.data_dir)]:
        raise DataError(
            f"The split {split} has files outside of its dataset",
            expected=f"files in {builder.data_dir}",
            received=shorten(outside[0]),
        )
    rows: list[tuple[int, int, int, int]] = []
    for number, file in enumerate(files):
        try:
            for start, record in read_records(file):
                if limit is not None and len(rows) >= limit:
                    break
                features = tf.train.Example.FromString(record).features.feature
                [image] = features["image"].bytes_list.value
                [label] = features["label"].int64_list.value
                rows.append((number, start + record.index(image), len(image), label))
        except (tf.errors.DataLossError, DecodeError, ValueError) as error:
            raise DataError(
                f"The prepared file {file} cannot be read",
                expected="whole TFRecord files of examples",
                hint="Prepare the dataset again",
            ) from error
    table = np.array(rows, np.int64).reshape(-1, 4)
    if len(wrong := table[abs(table[:, 3]) > MAX_LABEL, 3]):
        raise DataError(
            f"The split {split} has an absurd label",
            expected=f"labels up to {MAX_LABEL:,}",
            received=int(wrong[0]),
        )
    images = RecordOffsets(files, table[:, 0].astype(np.int32), table[:, 1], table[:, 2])
    return images, table[:, 3].astype(np.int32)


def _split_from_records(
    name: str, images: RecordOffsets, labels: np.ndarray, in_memory: bool
) -> Split:
    read = record_reader(images, in_memory)
    return Split.from_files(labels, _image_names(name, len(labels)), read)


def _image_names(split: str, count: int) -> tuple[str, ...]:
    return tuple(f"{split}{i:06d}" for i in range(count))
