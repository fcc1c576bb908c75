"""The calls about images, as flows: read images, select a signature, interpret its outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cnnkit.client.calls import CallOptions, Calls
from cnnkit.client.expected import check_rows
from cnnkit.client.flow import Flow
from cnnkit.client.inputs import Arrays
from cnnkit.client.metadata import Signature
from cnnkit.client.predict_calls import predict_flow
from cnnkit.errors import DataError, UsageError, warn
from cnnkit.wire.dtypes import TensorError
from cnnkit.wire.pixels import find_invalid_pixel

# Number of classes returned for an image by default.
DEFAULT_TOP = 5
# Bytes of a class name, at most. `predict` returns longer texts.
_MAX_LABEL_BYTES = 4096
# Pixels scaled to 0..1 or -1..1, or standardized with ImageNet's statistics, are within this range.
_LARGEST_NORMALIZED = 3

Image = str | Path | bytes | npt.NDArray[Any]
Images = Image | Iterable[Image]


@dataclass(frozen=True)
class Prediction:
    """One predicted class of an image.

    Attributes:
        label: Name of the class, or "class 3" if the model has no class names.
        probability: In 0..1.
    """

    label: str
    probability: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """The deconvnet projection of one image, computed by the server.

    Attributes:
        label: Name of the predicted class, or None if a layer's unit is explained.
        score: Probability of that class, or None.
        projection: (h, w, 3) float32, the unit's activation projected to the pixels.
        image: (h, w, 3) uint8, the part of the image that the network saw, or None if the signature
            does not return it.
        outputs: All outputs of the signature for this image, by name.
    """

    label: str | None
    score: float | None
    projection: npt.NDArray[Any]
    image: npt.NDArray[Any] | None
    outputs: Arrays


def read_images(images: Images) -> npt.NDArray[Any]:
    """Return a batch of images to send.

    Args:
        images: One or several paths or encoded images (JPEG, PNG, ...) as bytes; or pixels: one
            image (h, w, 3), a batch (n, h, w, 3), or several images of the same size.

    Returns:
        Encoded images as an object array (n,) of bytes, or pixels as an array (n, h, w, 3).

    Raises:
        UsageError: There is no image, a file does not exist, an element has another type, or paths
            and pixels are mixed.
        DataError: A file cannot be read, or is empty.

    Example:
        >>> read_images(b"...").shape
        (1,)
    """
    if isinstance(images, np.ndarray) and images.dtype.kind not in "OSU":
        return images[np.newaxis] if images.ndim == 3 else images
    several = [images] if isinstance(images, str | Path | bytes) else list(images)
    if not several:
        raise UsageError("`images` must hold at least one image")
    pixels = [image for image in several if isinstance(image, np.ndarray)]
    if pixels:
        shapes = sorted({image.shape for image in pixels})
        if len(pixels) < len(several) or len(shapes) > 1:
            raise UsageError(
                "`images` must be paths and bytes, or arrays of the same shape",
                received=", ".join(map(str, shapes)),
            )
        return np.stack(pixels)
    encoded = np.empty(len(several), object)
    for index, image in enumerate(several):
        encoded[index] = _read(image)
    return encoded


def check_pixels(batch: npt.NDArray[Any]) -> None:
    """Check that pixels are in 0..255, which the signatures of images expect.

    Args:
        batch: The images, as returned by `read_images`.

    Raises:
        UsageError: An image holds NaN or a value far outside of 0..255.

    Warns:
        UserWarning: The pixels look as if they were normalized, for example to 0..1.

    Example:
        >>> check_pixels(np.full((1, 2, 2, 3), 255))
    """
    if batch.dtype.kind not in "fiu" or not batch.size:
        return
    problem = find_invalid_pixel(batch)
    if problem is not None:
        raise UsageError(problem)
    least, largest = float(batch.min()), float(batch.max())
    if max(-least, largest) <= _LARGEST_NORMALIZED and (batch != np.round(batch)).any():
        warn(
            f"`images` hold values in {least:.3g}..{largest:.3g}, as after a normalization; models "
            "exported by cnnkit expect pixels in 0..255 and normalize them",
            stacklevel=2,
        )


def select_signature(
    signatures: Mapping[str, Signature], names: Iterable[str], batch: npt.NDArray[Any], model: str
) -> str:
    """Return the first of the named signatures that accepts a batch of images.

    Args:
        signatures: Signatures of the model by name.
        names: Names of suitable signatures, the preferred one first.
        batch: The images, as returned by `read_images`.
        model: Name of the model, for error messages.

    Raises:
        UsageError: The model has none of these signatures, or none that accepts such images.

    Example:
        >>> from cnnkit.client.metadata import TensorSpec
        >>> accepted = {"image_bytes": TensorSpec("string", (None,))}
        >>> signatures = {"serving_bytes": Signature(accepted, {})}
        >>> names = ["classify_bytes", "serving_bytes"]
        >>> select_signature(signatures, names, read_images(b"..."), "digits")
        'serving_bytes'
    """
    names = list(names)
    encoded = batch.dtype.kind == "O"
    known = [name for name in names if name in signatures]
    for name in known:
        dtypes = [spec.dtype for spec in signatures[name].inputs.values()]
        if len(dtypes) == 1 and (dtypes[0] == "string") == encoded:
            return name
    kind, other = ("encoded images", "arrays") if encoded else ("arrays", "encoded images")
    raise UsageError(
        f"Model {model!r} does not accept {kind} for this call",
        expected=f"a signature {' or '.join(names)}",
        received=", ".join(signatures) or "none",
        hint=f"Send {other}" if known else "Export the model with that signature",
    )


def output_class_count(signature: Signature) -> int | None:
    """Return the number of classes a signature outputs, or None if unknown."""
    spec = signature.outputs.get("labels" if "labels" in signature.outputs else "probabilities")
    return spec.shape[-1] if spec is not None and spec.shape else None


def check_top(top: int | None, count: int | None, model: str) -> None:
    """Raise a `UsageError` if `top` is below 1 or above the model's number of classes.

    Args:
        top: Number of classes asked for, or None for the default.
        count: Number of classes the model outputs, or None if unknown.
        model: Name of the model, for the error message.

    Example:
        >>> check_top(5, 10, "digits")
    """
    if top is not None and top < 1:
        raise UsageError("`top` must be positive", expected="top >= 1", received=top)
    if top is not None and count is not None and top > count:
        raise UsageError(
            f"`top` must not exceed the {count} classes that model {model!r} returns",
            expected=f"top <= {count}",
            received=top,
        )


def top_k_from_labels(outputs: Mapping[str, npt.NDArray[Any]], top: int) -> list[list[Prediction]]:
    """Return the first `top` classes of the outputs `labels` and `scores`, each (n, k)."""
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
    """Return the `top` most probable classes of `probabilities` (n, k), named by index."""
    probabilities = outputs["probabilities"]
    # A stable sort: of equally probable classes, the one with the lower index comes first.
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [
        [Prediction(f"class {index}", float(row[index])) for index in best]
        for row, best in zip(probabilities, order, strict=True)
    ]


def decode_text(label: bytes) -> str:
    """Decode a label; bytes that are not UTF-8 become U+FFFD.

    Raises:
        TensorError: The label is no text, or longer than 4,096 bytes.

    Example:
        >>> decode_text("é".encode())
        'é'
    """
    if not isinstance(label, bytes) or len(label) > _MAX_LABEL_BYTES:
        raise TensorError(
            "`labels` must hold short texts",
            expected=f"{_MAX_LABEL_BYTES:,} bytes at most",
            received=f"{len(label):,} bytes" if isinstance(label, bytes) else "a number",
        )
    return label.decode(errors="replace")


def _read(image: object) -> bytes:
    if isinstance(image, bytes):
        if not image:
            raise DataError("`images` must not hold empty bytes", expected="a JPEG, PNG, ...")
        return image
    if not isinstance(image, str | Path):
        raise UsageError("`images` must be paths, bytes or arrays", received=type(image).__name__)
    try:
        encoded = Path(image).read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"`images` must be existing files, received {image}") from error
    except OSError as error:
        raise DataError(f"Image {image} cannot be read", received=error.strerror) from error
    if not encoded:
        raise DataError(f"Image {image} must not be empty", received="0 bytes")
    return encoded


def _prepare(images: Images, options: CallOptions) -> tuple[npt.NDArray[Any], CallOptions]:
    """Return the batch to send, and options that name its images in errors."""
    names: list[str] = []
    if not isinstance(images, np.ndarray) or images.dtype.kind in "OSU":
        images = [images] if isinstance(images, str | Path | bytes) else list(images)
        names = [str(image) if isinstance(image, str | Path) else "" for image in images]
    batch = read_images(images)
    check_pixels(batch)
    return batch, replace(options, row_names=names)


def classify_flow(
    calls: Calls, images: Images, top: int | None, options: CallOptions
) -> Flow[list[list[Prediction]]]:
    """Classify images: see `Client.classify`."""
    (batch, options), model = _prepare(images, options), options.target.model
    check_top(top, None, model)
    known = yield from calls.signatures(options)
    names = ("classify_bytes", "serving_bytes", "serving_default")
    name = select_signature(known, names, batch, model)
    check_top(top, output_class_count(known[name]), model)
    has_labels = "labels" in known[name].outputs
    wanted = ["labels", "scores"] if has_labels else ["probabilities"]
    outputs = yield from predict_flow(calls, batch, name, wanted, options)

    def read() -> list[list[Prediction]]:
        check_rows(outputs, len(batch), axes=dict.fromkeys(wanted, 2), numbers=wanted[-1:])
        if len({outputs[name].shape for name in wanted}) > 1:
            raise TensorError("`labels` and `scores` must have the same shape")
        check_top(top, outputs[wanted[0]].shape[-1], model)
        top_k = top_k_from_labels if has_labels else top_k_from_probabilities
        return top_k(outputs, top or DEFAULT_TOP)

    return calls.check_response(read, options.target)


def features_flow(calls: Calls, images: Images, options: CallOptions) -> Flow[npt.NDArray[Any]]:
    """Compute features of images: see `Client.features`."""
    batch, options = _prepare(images, options)
    known = yield from calls.signatures(options)
    names = ("features_bytes", "features")
    name = select_signature(known, names, batch, options.target.model)
    outputs = yield from predict_flow(calls, batch, name, ["features"], options)

    def read() -> npt.NDArray[Any]:
        check_rows(outputs, len(batch), numbers=["features"])
        return outputs["features"]

    return calls.check_response(read, options.target)


def explain_flow(
    calls: Calls, images: Images, layer: str | None, options: CallOptions
) -> Flow[list[Explanation]]:
    """Explain predictions: see `Client.explain`."""
    (batch, options), model = _prepare(images, options), options.target.model
    known = yield from calls.signatures(options)
    wanted = "explain_bytes" if layer is None else f"explain_bytes_{layer}"
    name = select_signature(known, [wanted], batch, model)
    outputs = yield from predict_flow(calls, batch, name, (), options)
    if "projection" not in outputs:
        raise UsageError(
            f"Signature {name} of {model!r} must have an output `projection`",
            received=", ".join(outputs),
        )

    def read() -> list[Explanation]:
        images = [name for name in ("projection", "image") if name in outputs]
        numbers = [*images, *(["scores"] if "scores" in outputs else [])]
        check_rows(outputs, len(batch), axes=dict.fromkeys(images, 4), numbers=numbers)
        return [
            _explanation({key: values[row] for key, values in outputs.items()})
            for row in range(len(batch))
        ]

    return calls.check_response(read, options.target)


def _explanation(outputs: Arrays) -> Explanation:
    """Return the explanation of one image from its row of the outputs."""
    labels, scores = outputs.get("labels"), outputs.get("scores")
    return Explanation(
        None if labels is None else decode_text(np.ravel(labels)[0]),
        None if scores is None else float(np.ravel(scores)[0]),
        outputs["projection"],
        outputs.get("image"),
        outputs,
    )
