"""Datasets by name: `digits`, `folder:PATH`, `tfds:NAME`."""

from __future__ import annotations

from cnnkit.data.split import Source
from cnnkit.errors import UsageError, unknown_name

SPECS = ("digits", "folder:PATH", "tfds:NAME")


def load_source(spec: str, *, seed: int = 0, download: bool = False) -> Source:
    """Opens the dataset that `spec` names.

    Args:
        spec: `digits`: the 1,797 handwritten digits of scikit-learn, 8 x 8 grey.
            `folder:PATH`: one subfolder a class, images of any size, in `PATH` itself or in
            `PATH/train` and `PATH/test`.
            `tfds:NAME`: a TensorFlow dataset that is already prepared.
        seed: Decides the split of a dataset that comes without a test split.
        download: Whether TensorFlow Datasets may download and prepare it.

    Returns:
        The dataset with its splits `train` and `test`.

    Raises:
        UsageError: If there is no such dataset.
        DataError: If it cannot be used.

    Example:
        >>> from cnnkit.data import load_source
        >>> source = load_source("digits")
        >>> len(source.splits["train"]), len(source.splits["test"])
        (1438, 359)
    """
    kind, _, rest = spec.partition(":")
    if kind in ("folder", "tfds") and not rest:
        raise UsageError(f"Dataset {spec!r} lacks its name", expected=f"{kind}:NAME")
    match kind:
        case "digits" if not rest:
            from cnnkit.data.digits import load_digits

            return load_digits(seed)
        case "folder":
            from cnnkit.data.folder import load_folder

            return load_folder(rest, seed)
        case "tfds":
            from cnnkit.data.tfds import load_tfds

            return load_tfds(rest, seed, download)
    raise unknown_name("dataset", spec, SPECS)
