"""TensorFlow Datasets that are already prepared on this machine."""

from __future__ import annotations

import hashlib

import numpy as np
import tensorflow as tf

from cnnkit.data.split import Source, Split, held_out
from cnnkit.data.workers import untuned
from cnnkit.errors import DataError, UsageError, unknown_name

TEST_SPLITS = ("test", "validation")
# Encoded images are kept in memory, where they can be read in any order.
LARGEST_BYTES = 4 << 30


def load_tfds(name: str, seed: int, download: bool) -> Source:
    """Opens the TensorFlow dataset `name`, with a test split of its own or a seeded one.

    Raises:
        UsageError: If there is no such dataset, it is not prepared, or it is not labelled images.
        DataError: If its encoded images are larger than 4 GiB.
    """
    import tensorflow_datasets as tfds

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
    size = sum(builder.info.splits[part].num_bytes for part in ("train", test_name) if part)
    if size > LARGEST_BYTES:
        raise DataError(
            f"Dataset tfds:{name} does not fit into memory",
            expected=f"at most {LARGEST_BYTES >> 30} GiB of encoded images",
            received=f"{size / 2**30:.1f} GiB",
            hint="Write it out as image files and use folder:PATH",
        )

    def read(part):
        dataset = builder.as_dataset(
            split=part,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(interleave_cycle_length=1, options=untuned()),
        )
        rows = list(tfds.as_numpy(dataset))
        return [row["image"] for row in rows], np.array([row["label"] for row in rows], np.int32)

    images, classes = read("train")
    if test_name:
        parts = {"train": (images, classes), "test": read(test_name)}
    else:
        test = held_out(classes, seed)
        parts = {
            part: ([images[i] for i in np.flatnonzero(chosen)], classes[chosen])
            for part, chosen in (("train", ~test), ("test", test))
        }
    digest = hashlib.sha256(builder.info.full_name.encode())
    for _, labels in parts.values():
        digest.update(labels.tobytes())
    return Source(
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


def _split(part: str, images: list[bytes], labels: np.ndarray) -> Split:
    with tf.device("CPU:0"):
        table = tf.constant(images)
    return Split.of_files(
        labels,
        [f"{part}{i:06d}" for i in range(len(labels))],
        lambda index: tf.gather(table, index),
    )
