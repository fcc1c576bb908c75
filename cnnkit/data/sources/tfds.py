"""TensorFlow Datasets that are already prepared on this machine."""

from __future__ import annotations

import hashlib

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from cnnkit.data.dataset import Dataset, Split, stratified_holdout
from cnnkit.data.sources.tfrecord import RecordOffsets, read_records, record_reader
from cnnkit.errors import DataError, UsageError, unknown_name

TEST_SPLITS = ("test", "validation")


def load_tfds(name: str, seed: int, download: bool) -> Dataset:
    """Opens the TensorFlow dataset `name`, with a test split of its own or a seeded one.

    Its files are read once from end to end, to find the labels and where each image lies; the
    images stay on disk.

    Raises:
        UsageError: If there is no such dataset, it is not prepared, or it is not labeled images.
        DataError: If it has no train split, or its files are torn or of another format.
    """
    builder = _builder(name, download)
    features = builder.info.features
    if not {"image", "label"} <= set(features):
        raise UsageError(
            f"Dataset tfds:{name} is no image classification",
            expected="the features image and label",
            received=", ".join(features),
        )
    if "train" not in builder.info.splits:
        raise DataError(
            f"Dataset tfds:{name} has no train split", received=", ".join(builder.info.splits)
        )
    test_name = next((part for part in TEST_SPLITS if part in builder.info.splits), None)
    images, classes = _read(builder, "train")
    if test_name:
        parts = {"train": (images, classes), "test": _read(builder, test_name)}
    else:
        test = stratified_holdout(classes, seed)
        parts = {
            part: (images.take(chosen), classes[chosen])
            for part, chosen in (("train", ~test), ("test", test))
        }
    digest = hashlib.sha256(builder.info.full_name.encode())
    for _, labels in parts.values():
        digest.update(labels.tobytes())
    return Dataset(
        f"tfds:{name}",
        tuple(features["label"].names),
        {part: _split(part, *rows) for part, rows in parts.items()},
        digest.hexdigest(),
    )


def _builder(name: str, download: bool):
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name)
    except tfds.core.registered.DatasetNotFoundError:
        base = name.partition("/")[0]
        raise unknown_name("dataset", f"tfds:{base}", _nearest(base)) from None
    if download:
        builder.download_and_prepare()
    if not builder.is_prepared():
        raise UsageError(
            f"Dataset tfds:{name} is not prepared on this machine",
            expected=f"its files in {builder.data_dir}",
            hint="Pass --download to download and prepare it",
        )
    return builder


def _nearest(name: str) -> list[str]:
    """Returns the few known names to offer: TensorFlow Datasets has more than a thousand."""
    import difflib

    import tensorflow_datasets as tfds

    return [f"tfds:{near}" for near in difflib.get_close_matches(name, tfds.list_builders(), n=5)]


def _read(builder, part: str) -> tuple[RecordOffsets, np.ndarray]:
    """Returns where the encoded images of a split lie, and their labels."""
    files = [str(file) for file in builder.info.splits[part].filepaths]
    rows = []
    for number, file in enumerate(files):
        try:
            for start, record in read_records(file):
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
    places = RecordOffsets(files, table[:, 0].astype(np.int32), table[:, 1], table[:, 2])
    return places, table[:, 3].astype(np.int32)


def _split(part: str, images: RecordOffsets, labels: np.ndarray) -> Split:
    names = [f"{part}{i:06d}" for i in range(len(labels))]
    return Split.of_files(labels, names, record_reader(images))
