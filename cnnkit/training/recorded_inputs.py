"""What a run records about its inputs, and whether they are the same when it is resumed.

The fingerprint of a dataset covers names, labels and sizes. The pixels are compared by the sizes
and times of modification of the files. If those differ, because the files were copied or edited,
the bytes of the images are compared: of as many as `CONTENT_BYTES` hold, or of all.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from cnnkit._files import join_lines, write_text
from cnnkit._untrusted.json_documents import JsonFields
from cnnkit.data import Dataset, Split, report_undecodable
from cnnkit.data.pipeline import BATCHES_AHEAD, parallel_map
from cnnkit.errors import RunError
from cnnkit.run_folder import ENVIRONMENT, LABELS, STATISTICS, RunFolder

# Key of the environment file.
INPUTS = "inputs"
# Bytes of the images of a split that are read when a run begins.
CONTENT_BYTES = 256 << 20
FILES_AT_ONCE = 16


def record_inputs(dataset: Dataset, *, verify: bool) -> dict[str, Any]:
    """Return what `check_inputs` compares, but for the statistics, for the environment file.

    Args:
        dataset: The dataset.
        verify: Whether to read all images, however large.
    """
    limit = None if verify else CONTENT_BYTES
    return {
        "modified": dataset.modified,
        "contents": {
            name: _digest_contents(split, max_bytes=limit)
            for name, split in sorted(dataset.splits.items())
        },
    }


def check_inputs(run: RunFolder, dataset: Dataset, *, verify: bool) -> list[str]:
    """Check that images, labels and statistics are those that `run` was started on.

    Args:
        run: The run folder.
        dataset: The dataset, which has the fingerprint of the run's.
        verify: Whether to compare the images too if their files have the same times.

    Returns:
        Sentences about what could not be compared.

    Raises:
        RunError: If they are others.
    """
    _check_labels(run, dataset)
    facts = JsonFields(run.environment, run.path / ENVIRONMENT)
    if INPUTS not in facts.document:
        return ["the run recorded no checksums of its images: edited ones are not noticed"]
    inputs = facts.fields(INPUTS)
    if inputs.text("statistics") != digest_arrays(run.statistics):
        raise RunError(
            f"{run.path / STATISTICS} is not what the run began with",
            hint="Restore it from a copy, or train in another `output`",
        )
    if inputs.text("modified") == dataset.modified and not verify:
        return []
    compared = total = 0
    contents = inputs.fields("contents")
    for name, split in dataset.splits.items():
        recorded = contents.fields(name)
        images = recorded.integer("images", maximum=len(split))
        if _digest_contents(split, images=images)["sha256"] != recorded.text("sha256"):
            raise RunError(
                f"The images of the split {name} of {dataset.spec} have changed since the run "
                f"{run.path} began",
                hint="Restore them, or train in another `output`",
            )
        compared, total = compared + images, total + len(split)
    if compared < total:
        return [
            f"{compared:,} of {total:,} images were compared with their checksums, as many as the "
            "run recorded; `verify=True` at its start records all"
        ]
    return []


def check_statistics(run: RunFolder, image_size: int) -> dict[str, np.ndarray]:
    """Read the statistics of a run that is resumed.

    Raises:
        RunError: If they cannot be those of images.
    """
    statistics = run.statistics
    shapes: dict[str, list[tuple[int, ...]]] = {
        "mean": [(3,), (image_size, image_size, 3)],
        "std": [(3,)],
        "eigenvalues": [(3,)],
        "eigenvectors": [(3, 3)],
    }
    for name, values in statistics.items():
        fits = name in shapes and values.dtype.kind == "f" and values.shape in shapes[name]
        if not fits or not np.isfinite(values).all():
            raise RunError(
                f"{run.path / STATISTICS} is damaged",
                received=f"{name}: {values.dtype} of shape {values.shape}",
                hint="Restore it from a copy, or train in another `output`",
            )
    if "mean" not in statistics:
        raise RunError(f"{run.path / STATISTICS} is damaged", received="no mean")
    return statistics


def _check_labels(run: RunFolder, dataset: Dataset) -> None:
    """Check that labels.txt has the classes of the dataset; write it again if it is missing."""
    file = run.path / LABELS
    if not file.exists():
        write_text(file, join_lines(dataset.class_names))
        return
    names = run.class_names
    if names == dataset.class_names:
        return
    different = [
        f"{ours} instead of {theirs}"
        for ours, theirs in zip(names, dataset.class_names, strict=False)
        if ours != theirs
    ]
    raise RunError(
        f"{file} does not list the {len(dataset.class_names)} classes of {dataset.spec}",
        received=different[0] if different else f"{len(names)} lines",
        hint="Delete it: it is written again",
    )


def _digest_contents(
    split: Split, *, max_bytes: int | None = None, images: int | None = None
) -> dict[str, Any]:
    """Return the number of images that were read, and the SHA-256 of their bytes.

    Args:
        split: The images. Those in memory are part of the dataset's fingerprint and not read.
        max_bytes: Number of bytes after which no further image is read.
        images: Number of images to read.
    """
    digest, size, count = hashlib.sha256(), 0, 0
    limit = len(split) if images is None else images
    if split.load_bytes is None:
        return {"images": limit, "sha256": digest.hexdigest()}
    # Not the first ones, which are all of one class.
    order = np.random.default_rng(0).permutation(len(split))[:limit]
    if limit:
        files = parallel_map(tf.data.Dataset.from_tensor_slices(order), split.load_bytes)
        # A batch leaves TensorFlow in the time of a single file.
        batches = files.batch(FILES_AT_ONCE).prefetch(BATCHES_AHEAD).as_numpy_iterator()
        with report_undecodable(split):
            for data in itertools.chain.from_iterable(batches):
                digest.update(len(data).to_bytes(8, "little") + data)
                size, count = size + len(data), count + 1
                if max_bytes is not None and size >= max_bytes:
                    break
    return {"images": count, "sha256": digest.hexdigest()}


def digest_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of arrays and their names, in hexadecimal."""
    digest = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
