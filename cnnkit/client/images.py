"""Encoded images in, labels with probabilities out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cnnkit.client.metadata import Signature
from cnnkit.errors import DataError, UsageError

IMAGE_INPUT = "image_bytes"
# Which signatures classify encoded images, the best first, and the output that says how many.
LABELLED = "classify_bytes"
UNLABELLED = "serving_bytes"

# Classes an image where the caller names no number.
USUAL_TOP = 5

Image = str | Path | bytes


@dataclass(frozen=True)
class Prediction:
    """One class that an image may show.

    Attributes:
        label: The class's name, or "class 3" where the model has no names.
        probability: Between 0 and 1.
    """

    label: str
    probability: float


def read_images(images: Image | Iterable[Image]) -> npt.NDArray[Any]:
    """Returns encoded images (JPEG, PNG, ...) as an object array (n,) of bytes.

    Args:
        images: Paths of files, or bytes; one or several.

    Raises:
        UsageError: There is none, or one is neither a path nor bytes.
        DataError: A file cannot be read, or is empty.

    Example:
        >>> read_images(b"...").shape
        (1,)
    """
    several = [images] if isinstance(images, str | Path | bytes) else list(images)
    if not several:
        raise UsageError("There is no image to classify", expected="one or more paths or bytes")
    encoded = np.empty(len(several), object)
    for index, image in enumerate(several):
        encoded[index] = _read(image)
    return encoded


def choose(signatures: Mapping[str, Signature], top: int | None, model: str) -> str:
    """Returns the signature of a model that classifies encoded images.

    Args:
        signatures: What the model offers.
        top: The number of classes wanted for each image; None is content with what there is.
        model: The model's name, for the texts of errors.

    Raises:
        UsageError: It has none, or answers with fewer classes than wanted.

    Example:
        >>> choose({"serving_bytes": Signature({}, {})}, 5, "digits")
        'serving_bytes'
    """
    if top is not None and top < 1:
        raise UsageError("Each image gets one class at least", expected="top >= 1", received=top)
    for name, output in ((LABELLED, "labels"), (UNLABELLED, "probabilities")):
        if name not in signatures:
            continue
        spec = signatures[name].outputs.get(output)
        count = spec.shape[-1] if spec is not None and spec.shape else None
        if count is not None:
            check_top(top, count, model)
        return name
    raise UsageError(
        f"Model {model!r} does not take encoded images",
        expected=f"a signature {LABELLED} or {UNLABELLED}",
        received=", ".join(signatures) or "none",
        hint="Export the model with cnnkit, or send arrays with predict()",
    )


def check_top(top: int | None, count: int, model: str) -> None:
    """Raises a UsageError where more classes are wanted than the model answers with.

    Example:
        >>> check_top(5, 10, "digits")
    """
    if top is not None and top > count:
        raise UsageError(
            f"Model {model!r} answers with {count} classes an image",
            expected=f"top <= {count}",
            received=top,
        )


def labelled(outputs: Mapping[str, npt.NDArray[Any]], top: int) -> list[list[Prediction]]:
    """Returns the first classes of `labels` and `scores`, each (n, k), best first."""
    return [
        [
            Prediction(label.decode(errors="replace"), float(score))
            for label, score in zip(labels[:top], scores[:top], strict=True)
        ]
        for labels, scores in zip(outputs["labels"], outputs["scores"], strict=True)
    ]


def unlabelled(outputs: Mapping[str, npt.NDArray[Any]], top: int) -> list[list[Prediction]]:
    """Returns the best classes of `probabilities` (n, k), named by their index."""
    probabilities = outputs["probabilities"]
    # Stable: of two equally probable classes, the one with the lower index comes first.
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [
        [Prediction(f"class {index}", float(row[index])) for index in best]
        for row, best in zip(probabilities, order, strict=True)
    ]


def _read(image: Image) -> bytes:
    if isinstance(image, bytes):
        if not image:
            raise DataError("An image is empty", expected="the bytes of a JPEG, PNG, ...")
        return image
    if not isinstance(image, str | Path):
        raise UsageError(
            "An image is neither a path nor bytes",
            received=type(image).__name__,
            hint="Send arrays with predict()",
        )
    try:
        encoded = Path(image).read_bytes()
    except FileNotFoundError as error:
        raise UsageError("There is no such image file", received=image) from error
    except OSError as error:
        raise DataError(f"Image {image} cannot be read", received=error.strerror) from error
    if not encoded:
        raise DataError("An image file is empty", received=image)
    return encoded
