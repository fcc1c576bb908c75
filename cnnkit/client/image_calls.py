"""What the calls about images do, as plans: which signature, and what its outputs mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cnnkit.client.calls import Calls
from cnnkit.client.encode import RequestTarget
from cnnkit.client.flow import Deadline, Flow
from cnnkit.client.inputs import Arrays
from cnnkit.client.metadata import Signature
from cnnkit.errors import DataError, UsageError

# Classes an image where the caller names no number.
DEFAULT_TOP = 5

Image = str | Path | bytes | npt.NDArray[Any]
Images = Image | Iterable[Image]


@dataclass(frozen=True)
class Prediction:
    """One class that an image may show.

    Attributes:
        label: The class's name, or "class 3" where the model has no names.
        probability: Between 0 and 1.
    """

    label: str
    probability: float


def read_images(images: Images) -> npt.NDArray[Any]:
    """Returns a batch: encoded images as an object array (n,) of bytes, pixels as one of numbers.

    Args:
        images: Paths of files, or bytes (JPEG, PNG, ...), one or several; or the pixels of one
            image (h, w, 3), of a batch (n, h, w, 3), or of several images of one size.

    Raises:
        UsageError: There is none, one is no image, or files and pixels are mixed.
        DataError: A file cannot be read, or is empty.

    Example:
        >>> read_images(b"...").shape
        (1,)
    """
    if isinstance(images, np.ndarray) and images.dtype.kind not in "OSU":
        return images[np.newaxis] if images.ndim == 3 else images
    several = [images] if isinstance(images, str | Path | bytes) else list(images)
    if not several:
        raise UsageError("There is no image to look at", expected="one or more paths or bytes")
    pixels = [image for image in several if isinstance(image, np.ndarray)]
    if pixels:
        shapes = sorted({image.shape for image in pixels})
        if len(pixels) < len(several) or len(shapes) > 1:
            raise UsageError(
                "These images cannot be sent together",
                expected="files and bytes, or arrays of one shape",
                received=", ".join(map(str, shapes)),
            )
        return np.stack(pixels)
    encoded = np.empty(len(several), object)
    for index, image in enumerate(several):
        encoded[index] = _read(image)
    return encoded


def select_signature(
    signatures: Mapping[str, Signature], names: Iterable[str], batch: npt.NDArray[Any], model: str
) -> str:
    """Returns the first of a model's signatures that takes such images.

    Args:
        signatures: What the model offers.
        names: Those that would do, the best first.
        batch: The images, as `read_images` gives them.
        model: The model's name, for the texts of errors.

    Raises:
        UsageError: It has none of them, or none for such images.

    Example:
        >>> from cnnkit.client.metadata import TensorSpec
        >>> taken = {"image_bytes": TensorSpec("string", (None,))}
        >>> offered = {"serving_bytes": Signature(taken, {})}
        >>> select_signature(offered, ["classify_bytes", "serving_bytes"], read_images(b"..."), "digits")
        'serving_bytes'
    """
    names = list(names)
    encoded = batch.dtype.kind == "O"
    there = [name for name in names if name in signatures]
    for name in there:
        taken = [spec.dtype for spec in signatures[name].inputs.values()]
        if len(taken) == 1 and (taken[0] == "string") == encoded:
            return name
    kind, other = ("encoded images", "arrays") if encoded else ("arrays", "encoded images")
    raise UsageError(
        f"Model {model!r} does not take {kind} for this",
        expected=f"a signature {' or '.join(names)}",
        received=", ".join(signatures) or "none",
        hint=f"Send {other}" if there else "Export the model with that signature",
    )


def output_class_count(signature: Signature) -> int | None:
    """Returns with how many classes an image a signature answers, None where it does not say."""
    spec = signature.outputs.get("labels" if "labels" in signature.outputs else "probabilities")
    return spec.shape[-1] if spec is not None and spec.shape else None


def check_top(top: int | None, count: int | None, model: str) -> None:
    """Raises a UsageError where no class is wanted, or more than the model answers with.

    Example:
        >>> check_top(5, 10, "digits")
    """
    if top is not None and top < 1:
        raise UsageError("Each image gets one class at least", expected="top >= 1", received=top)
    if top is not None and count is not None and top > count:
        raise UsageError(
            f"Model {model!r} answers with {count} classes an image",
            expected=f"top <= {count}",
            received=top,
        )


def top_k_from_labels(outputs: Mapping[str, npt.NDArray[Any]], top: int) -> list[list[Prediction]]:
    """Returns the first classes of `labels` and `scores`, each (n, k), best first."""
    return [
        [
            Prediction(decode_text(label), float(score))
            for label, score in zip(labels[:top], scores[:top], strict=True)
        ]
        for labels, scores in zip(outputs["labels"], outputs["scores"], strict=True)
    ]


def top_k_from_probabilities(
    outputs: Mapping[str, npt.NDArray[Any]], top: int
) -> list[list[Prediction]]:
    """Returns the best classes of `probabilities` (n, k), named by their index."""
    probabilities = outputs["probabilities"]
    # Stable: of two equally probable classes, the one with the lower index comes first.
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [
        [Prediction(f"class {index}", float(row[index])) for index in best]
        for row, best in zip(probabilities, order, strict=True)
    ]


def decode_text(label: bytes) -> str:
    """Returns a label as text; bytes that are no UTF-8 are marked.

    Example:
        >>> decode_text("é".encode())
        'é'
    """
    return label.decode(errors="replace")


def _read(image: object) -> bytes:
    if isinstance(image, bytes):
        if not image:
            raise DataError("An image is empty", expected="the bytes of a JPEG, PNG, ...")
        return image
    if not isinstance(image, str | Path):
        raise UsageError(
            "An image is neither a path, bytes nor an array", received=type(image).__name__
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


@dataclass(frozen=True, eq=False)
class Explanation:
    """What in an image made a unit fire, as the server's deconvnet saw it.

    Attributes:
        label: The class's name; None where the signature does not explain a class.
        score: Its probability.
        projection: (h, w, 3) float32, the unit's signal in the pixels; 0 where it saw nothing.
        image: (h, w, 3) uint8, the part of the image that the network saw; None where the server
            does not show it.
        outputs: Everything that the server said about the image, by the outputs' names.
    """

    label: str | None
    score: float | None
    projection: npt.NDArray[Any]
    image: npt.NDArray[Any] | None
    outputs: Arrays


def classify_flow(
    plans: Calls,
    images: Images,
    target: RequestTarget,
    top: int | None,
    batch_size: int | None,
    deadline: Deadline,
) -> Flow[list[list[Prediction]]]:
    """Asks what images show."""
    batch = read_images(images)
    check_top(top, None, target.model)
    offered = yield from plans.signatures(target, deadline)
    names = ("classify_bytes", "serving_bytes", "serving_default")
    name = select_signature(offered, names, batch, target.model)
    check_top(top, output_class_count(offered[name]), target.model)
    has_labels = "labels" in offered[name].outputs
    wanted = ["labels", "scores"] if has_labels else ["probabilities"]
    outputs = yield from plans.predict(batch, target, name, wanted, batch_size, deadline)
    check_top(top, outputs[wanted[0]].shape[-1], target.model)
    read = top_k_from_labels if has_labels else top_k_from_probabilities
    return read(outputs, top or DEFAULT_TOP)


def features_flow(
    plans: Calls,
    images: Images,
    target: RequestTarget,
    batch_size: int | None,
    deadline: Deadline,
) -> Flow[npt.NDArray[Any]]:
    """Asks for the features of images."""
    batch = read_images(images)
    offered = yield from plans.signatures(target, deadline)
    name = select_signature(offered, ("features_bytes", "features"), batch, target.model)
    outputs = yield from plans.predict(batch, target, name, ["features"], batch_size, deadline)
    return outputs["features"]


def explain_flow(
    plans: Calls,
    images: Images,
    target: RequestTarget,
    layer: str | None,
    batch_size: int | None,
    deadline: Deadline,
) -> Flow[list[Explanation]]:
    """Asks what in images made the winning class, or a layer's strongest unit, fire."""
    batch = read_images(images)
    offered = yield from plans.signatures(target, deadline)
    wanted = "explain_bytes" if layer is None else f"explain_bytes_{layer}"
    name = select_signature(offered, [wanted], batch, target.model)
    outputs = yield from plans.predict(batch, target, name, (), batch_size, deadline)
    if "projection" not in outputs:
        raise UsageError(
            f"Signature {name} of {target.model!r} answers with no projection",
            expected="an output projection",
            received=", ".join(outputs),
        )
    return [
        _explanation({key: values[row] for key, values in outputs.items()})
        for row in range(len(outputs["projection"]))
    ]


def _explanation(outputs: Arrays) -> Explanation:
    labels, scores = outputs.get("labels"), outputs.get("scores")
    return Explanation(
        None if labels is None else decode_text(np.ravel(labels)[0]),
        None if scores is None else float(np.ravel(scores)[0]),
        outputs["projection"],
        outputs.get("image"),
        outputs,
    )
