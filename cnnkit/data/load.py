"""Datasets by name: `digits`, `folder:PATH`, `imagenet:PATH`, `shards:PATH`, `tfds:NAME`."""

from __future__ import annotations

from cnnkit.data.dataset import MAX_UNREADABLE_NAMED, Dataset
from cnnkit.errors import UsageError, unknown_name

DATASET_SPECS = ("digits", "folder:PATH", "imagenet:PATH", "shards:PATH", "tfds:NAME")


def load_dataset(
    spec: str,
    *,
    seed: int = 0,
    download: bool = False,
    most_unreadable: float = MAX_UNREADABLE_NAMED,
) -> Dataset:
    """Opens the dataset that `spec` names.

    Args:
        spec: `digits`: the 1,797 handwritten digits of scikit-learn, 8 x 8 gray.
            `folder:PATH`: one subfolder a class, images of any size, in `PATH` itself or in
            `PATH/train` and `PATH/test`.
            `imagenet:PATH`: ImageNet as its archives unpack, `PATH/train` and `PATH/val`.
            `shards:PATH`: what `cnnkit data shard` wrote.
            `tfds:NAME`: a TensorFlow dataset that is already prepared.
        seed: Decides the split of a dataset that comes without a test split.
        download: Whether TensorFlow Datasets may download and prepare it.
        most_unreadable: Part of a folder's files, 0..1, that may be no images: they are left out.

    Returns:
        The dataset with its splits `train` and `test`.

    Raises:
        UsageError: If there is no such dataset.
        DataError: If it cannot be used.

    Example:
        >>> from cnnkit.data import load_dataset
        >>> source = load_dataset("digits")
        >>> len(source.splits["train"]), len(source.splits["test"])
        (1438, 359)
    """
    kind, _, rest = spec.partition(":")
    named = dict(known.split(":") for known in DATASET_SPECS if ":" in known)
    if kind in named and not rest:
        raise UsageError(f"Dataset {spec!r} lacks its name", expected=f"{kind}:{named[kind]}")
    match kind:
        case "digits" if not rest:
            from cnnkit.data.sources.digits import load_digits

            return load_digits(seed)
        case "folder":
            from cnnkit.data.sources.image_folder import load_folder

            return load_folder(rest, seed, most_unreadable)
        case "imagenet":
            from cnnkit.data.sources.imagenet import load_imagenet

            return load_imagenet(rest, seed, most_unreadable)
        case "shards":
            from cnnkit.data.sources.tfrecord import load_shards

            return load_shards(rest)
        case "tfds":
            from cnnkit.data.sources.tfds import load_tfds

            return load_tfds(rest, seed, download)
        case "voc":
            raise UsageError(
                "Images of PASCAL VOC have several classes each",
                expected=f"one of {', '.join(DATASET_SPECS)}",
                received=spec,
                hint="`cnnkit transfer` takes it",
            )
    raise unknown_name("dataset", spec, DATASET_SPECS)
