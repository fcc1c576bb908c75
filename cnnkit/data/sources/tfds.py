"""TensorFlow Datasets that are already prepared on this machine."""

from __future__ import annotations

import difflib
import hashlib
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from cnnkit.data.dataset import Dataset, Split, stratified_holdout
from cnnkit.data.sources.tfrecord import RecordOffsets, read_records, record_reader
from cnnkit.errors import DataError, UsageError, unknown_name

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

TEST_SPLITS = ("test", "validation")


def load_tfds(name: str, seed: int, download: bool) -> Dataset:
    """Open the TensorFlow dataset `name`, with its own test split or a seeded one.

    Its files are read once from end to end, to find the labels and the locations of the images.
    The images stay on disk.

    Args:
        name: Name of the dataset, as `tfds.builder` takes it.
        seed: Seed of the split of a dataset without a test split.
        download: Whether the dataset may be downloaded and prepared.

    Raises:
        UsageError: If there is no such dataset, it is not prepared, or its examples are not labeled
            images.
        DataError: If it has no train split, or its files are damaged or of another format.
    """
    builder = _open_builder(name, download)
    features = builder.info.features
    if not {"image", "label"} <= set(features):
        raise UsageError(
            f"Dataset tfds:{name} is not for image classification",
            expected="the features image and label",
            received=", ".join(features),
        )
    if "train" not in builder.info.splits:
        raise DataError(
            f"Dataset tfds:{name} has no train split", received=", ".join(builder.info.splits)
        )
    test_name = next((split for split in TEST_SPLITS if split in builder.info.splits), None)
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
    return Dataset(
        f"tfds:{name}",
        tuple(features["label"].names),
        {split: _split_from_records(split, *row) for split, row in rows.items()},
        digest.hexdigest(),
    )


def _open_builder(name: str, download: bool) -> tfds.core.DatasetBuilder:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name)
    except tfds.core.registered.DatasetNotFoundError:
        base = name.partition("/")[0]
        # Of more than a thousand datasets only similar names are listed in the error.
        near = difflib.get_close_matches(base, tfds.list_builders(), n=5)
        raise unknown_name("dataset", f"tfds:{base}", [f"tfds:{name}" for name in near]) from None
    if download:
        builder.download_and_prepare()
    if not builder.is_prepared():
        raise UsageError(
            f"Dataset tfds:{name} is not prepared on this machine",
            expected=f"its files in {builder.data_dir}",
            hint="Pass --download to download and prepare it",
        )
    return builder


def _locate_images(
    builder: tfds.core.DatasetBuilder, split: str
) -> tuple[RecordOffsets, np.ndarray]:
    """Return the locations of the encoded images of a split, and their labels."""
    files = [str(file) for file in builder.info.splits[split].filepaths]
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
    images = RecordOffsets(files, table[:, 0].astype(np.int32), table[:, 1], table[:, 2])
    return images, table[:, 3].astype(np.int32)


def _split_from_records(name: str, images: RecordOffsets, labels: np.ndarray) -> Split:
    names = [f"{name}{i:06d}" for i in range(len(labels))]
    return Split.from_files(labels, names, record_reader(images))
