"""Open datasets by name: `digits`, `folder:PATH`, `boxes:PATH`, `shards:PATH`, `tfds:NAME` ..."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from cnnkit._dataset_spec import HELD_OUT_MARK, check_dataset_spec
from cnnkit.data.dataset import MAX_UNREADABLE, Dataset
from cnnkit.data.formats import DEFAULT_DECODING, Decoding

# The datasets of `open_datasets_once`, by the arguments that they were opened with.
_opened: ContextVar[dict[tuple[str, int, float], Dataset] | None] = ContextVar(
    "opened", default=None
)


@contextlib.contextmanager
def open_datasets_once() -> Iterator[None]:
    """Let `load_dataset` open each dataset once within the block, and within blocks around it."""
    opened = _opened.get()
    token = _opened.set({} if opened is None else opened)
    try:
        yield
    finally:
        _opened.reset(token)


def load_dataset(
    spec: str,
    *,
    seed: int = 0,
    download: bool = False,
    max_unreadable: float = MAX_UNREADABLE,
    decoding: Decoding = DEFAULT_DECODING,
) -> Dataset:
    """Open the dataset that `spec` names.

    Args:
        spec: One of:

            - `digits`: the 1,797 handwritten digits of scikit-learn, 8 x 8 gray.
            - `folder:PATH`: one subfolder per class, images of any size at any depth, in `PATH`
              itself or in `PATH/train` and `PATH/test`, or names like these. `folder:PATH#val`
              holds out another folder than `test`.
            - `imagenet:PATH`: ImageNet as its archives, Kaggle's or Tiny ImageNet's unpack.
            - `boxes:PATH`: images with a box around each object: `PATH` is a `.csv` table, a
              `.json` document of COCO, or a folder in the layout of PASCAL VOC.
            - `shards:PATH`: the output of `cnnkit data shard`.
            - `tfds:NAME`: a dataset of TensorFlow Datasets that is already prepared.
              `tfds:NAME#SPLIT` holds out another split than `test`.
        seed: Seed of the split of a dataset that has no test split.
        download: Whether TensorFlow Datasets may download and prepare the dataset.
        max_unreadable: Largest fraction of the files in class folders, 0..1, that may be unreadable
            or broken links. They are left out.
        decoding: Background of transparent images, and whether EXIF orientation counts.

    Returns:
        The dataset with its splits `train` and `test`, and the files that it leaves out.

    Raises:
        UsageError: If there is no such dataset.
        DataError: If the dataset cannot be used.

    Example:
        >>> from cnnkit.data import load_dataset
        >>> dataset = load_dataset("digits")
        >>> len(dataset.splits["train"]), len(dataset.splits["test"])
        (1438, 359)
    """
    opened = _opened.get()
    dataset = None if opened is None else opened.get((spec, seed, max_unreadable))
    if dataset is None:
        dataset = _open_dataset(spec, seed, download, max_unreadable)
    if opened is not None:
        opened[spec, seed, max_unreadable] = dataset
    splits = {name: split.decoded(decoding) for name, split in dataset.splits.items()}
    return dataclasses.replace(dataset, splits=splits)


def image_path(spec: str, name: str) -> str | None:
    """Return the path of an image file of a dataset, or None if it is no file of a folder.

    Args:
        spec: Text that the dataset was opened with.
        name: Name of the image in its split.

    Example:
        >>> image_path("digits", "digit0021") is None
        True
    """
    kind, _, root = spec.partition(":")
    if kind == "boxes":
        from cnnkit.data.sources.boxes import box_image_path

        return box_image_path(root, name)
    if kind not in ("folder", "imagenet"):
        return None
    folder = root if Path(root).is_dir() else root.rpartition(HELD_OUT_MARK)[0]
    file = Path(folder, name)
    return str(file) if file.is_file() else None


def _open_dataset(spec: str, seed: int, download: bool, max_unreadable: float) -> Dataset:
    kind, rest = check_dataset_spec(spec)
    match kind:
        case "digits":
            from cnnkit.data.sources.digits import load_digits

            return load_digits(seed)
        case "folder":
            from cnnkit.data.sources.image_folder import load_image_folder

            return load_image_folder(rest, seed, max_unreadable)
        case "imagenet":
            from cnnkit.data.sources.imagenet import load_imagenet

            return load_imagenet(rest, seed, max_unreadable)
        case "boxes":
            from cnnkit.data.sources.boxes import load_boxes

            return load_boxes(rest, seed, max_unreadable)
        case "shards":
            from cnnkit.data.sources.tfrecord import load_shards

            return load_shards(rest)
        case _:
            from cnnkit.data.sources.tfds import load_tfds

            return load_tfds(rest, seed, download)
