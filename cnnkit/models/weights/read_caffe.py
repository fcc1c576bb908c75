"""Reading Caffe's binary files: weights (`.caffemodel`) and mean images (`.binaryproto`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError, Message

from cnnkit._untrusted.damage import shorten
from cnnkit._untrusted.limits import MAX_ARRAY_AXES, MAX_MEAN_BYTES
from cnnkit._untrusted.protobuf_messages import cut_large_fields, read_place
from cnnkit._untrusted.regular_files import open_regular_file
from cnnkit.errors import DataError, UsageError
from cnnkit.models.preprocessing import Preprocessing, caffe_preprocessing
from cnnkit.models.weights import caffe_weights_pb2 as schema
from cnnkit.models.weights.weights_file import (
    OIHW,
    LRNParameters,
    StoredLayer,
    StoredTensor,
    WeightsFile,
)

# Layer types: numbers until 2015, then names.
LRN = (15, "LRN")
POOLING = (17, "Pooling")
# Number of `LRNParameter.NormRegion.WITHIN_CHANNEL` in Caffe's schema.
WITHIN_CHANNEL = 1
# Fields of numbers, which stay in the file until a layer is read.
NUMBERS = frozenset({"cnnkit.caffe.Blob.floats", "cnnkit.caffe.Blob.doubles"})
# `received` of the error for a file that is not a message of Caffe.
UNDECODABLE = "bytes that do not decode"


def read_caffemodel(path: Path) -> WeightsFile:
    """Read a `.caffemodel` with the current layers or with those used until 2015.

    Raises:
        UsageError: If it is not such a file, is incomplete, or has the layout used until 2014.
    """
    net = schema.Net()
    _parse(net, path, "a file of Caffe weights")
    layers: list[schema.Layer | schema.OldLayer] = [*net.layers, *net.old_layers]
    if any(layer.HasField("layer") for layer in net.old_layers):
        raise UsageError(
            f"{path} has the layout that Caffe gave up in 2014",
            hint="Convert it with Caffe's upgrade_net_proto_binary",
        )
    stored = tuple(_stored_layer(path, layer) for layer in layers if layer.blobs)
    if not stored:
        raise UsageError(f"{path} is not a weights file of a known format")
    preprocessing = _find_preprocessing(layers, [layer.name for layer in stored])
    return WeightsFile(
        path,
        "Caffe weights (.caffemodel)",
        stored,
        OIHW,
        preprocessing=preprocessing,
        normalizations=_normalizations(layers),
        norms_after_pooling=_norms_after_pooling(layers),
        metadata={"network": net.name} if net.name else {},
    )


def read_mean_image(path: Path) -> np.ndarray:
    """Read a mean image, (h, w, 3) float32 RGB in 0..255, from a `.binaryproto`.

    Raises:
        UsageError: If the file does not contain a mean image.
    """
    blob = schema.Blob()
    _parse(blob, path, "a Caffe mean image")
    _check_blob(path, "mean", blob)
    shape = _shape(blob)
    if len(shape) != 4 or shape[:2] != (1, 3):
        raise UsageError(
            f"{path} is not a mean image", expected="1 x 3 x height x width", received=shape
        )
    if math.prod(shape) * 8 > MAX_MEAN_BYTES:
        raise UsageError(f"{path} has an absurdly large mean image", received=shape)
    bgr = _reader(path, blob, shape)(slice(None))[0]
    return np.ascontiguousarray(bgr[::-1].transpose(1, 2, 0), np.float32)


def _parse(message: Message, path: Path, content: str) -> None:
    """Parse a file whose numbers stay there: each field of numbers holds its place."""
    problem = f"is not {content}, or is incomplete"
    try:
        with open_regular_file(path) as file:
            structure = cut_large_fields(file, message, NUMBERS, path)
        message.ParseFromString(structure)
    except (DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} {problem}", received=UNDECODABLE) from error
    except DataError as error:
        if error.expected is not None:  # A limit, not damage.
            raise UsageError(error.problem, expected=error.expected) from error
        raise UsageError(f"{path} {problem}", received=UNDECODABLE) from error


def _stored_layer(path: Path, layer: schema.Layer | schema.OldLayer) -> StoredLayer:
    for blob in layer.blobs:
        _check_blob(path, layer.name, blob)
    kernel, *bias = [
        StoredTensor(f"{layer.name}.{role}", shape, _reader(path, blob, shape))
        for role, blob in zip(("weights", "bias"), layer.blobs, strict=False)
        for shape in [_without_padding(_shape(blob), role)]
    ]
    return StoredLayer(layer.name, kernel, bias[0] if bias else None)


def _check_blob(path: Path, name: str, blob: schema.Blob) -> None:
    """Check that a blob states as many numbers as are stored."""
    shape = tuple(blob.shape.dim[: MAX_ARRAY_AXES + 1]) if blob.HasField("shape") else _shape(blob)
    count = _place(blob)[2]
    sides_fit = len(shape) <= MAX_ARRAY_AXES and all(side >= 0 for side in shape)
    if not sides_fit or math.prod(shape) != count:
        raise UsageError(
            f"Layer {name!r} of {path} is incomplete",
            expected=f"the numbers of {shorten(str(shape), 80)}",
            received=f"{count:,}",
        )


def _place(blob: schema.Blob) -> tuple[str, int, int]:
    """Return the type of the numbers of a blob, their first byte, and how many they are."""
    field, dtype = (blob.floats, "<f4") if blob.floats else (blob.doubles, "<f8")
    start, size = read_place(field) if field else (0, 0)
    return dtype, start, size // np.dtype(dtype).itemsize


def _shape(blob: schema.Blob) -> tuple[int, ...]:
    if blob.HasField("shape"):
        return tuple(blob.shape.dim)
    return (blob.num, blob.channels, blob.height, blob.width)


def _without_padding(shape: tuple[int, ...], role: str) -> tuple[int, ...]:
    """Remove the axes of length 1 with which old files pad dense kernels and biases to four."""
    axes = 1 if role == "bias" else 2
    while len(shape) > axes and shape[0] == 1 and (axes == 1 or shape[1] == 1 or len(shape) == 3):
        shape = shape[1:]
    return shape


def _reader(path: Path, blob: schema.Blob, shape: tuple[int, ...]) -> Callable[[slice], np.ndarray]:
    def read(part: slice) -> np.ndarray:
        dtype, start, _ = _place(blob)
        # Mapped anew for every block: the pages of an open file count as memory.
        return np.array(np.memmap(path, dtype, "r", start, shape)[part])

    return read


def _find_preprocessing(
    layers: Iterable[schema.Layer | schema.OldLayer], names: list[str]
) -> Preprocessing:
    """Return what the data layer of a training network states, or Caffe's custom.

    Caffe subtracts the mean from BGR images in 0..255, and multiplies by the scale afterwards. A
    mean image is in another file.
    """
    usual = caffe_preprocessing(names)
    stated = {
        (one.scale, one.mean_file, tuple(one.mean_value))
        for one in (layer.transformation for layer in layers if layer.HasField("transformation"))
    }
    if len(stated) != 1:
        return usual
    [(scale, mean_file, bgr)] = stated
    if len(bgr) not in (0, 1, 3) or not 0 < scale < math.inf:
        return usual
    std = None if scale == 1 else (1 / scale,) * 3
    if mean_file:
        return replace(usual, std=std, reason=f"Caffe; the file names the mean image {mean_file}")
    mean = (bgr or (0.0,)) * (1 if len(bgr) == 3 else 3)
    return replace(usual, mean=mean[::-1], std=std).said_by_file("its data layer")


def _normalizations(
    layers: Iterable[schema.Layer | schema.OldLayer],
) -> dict[str, LRNParameters] | None:
    """Return the parameters of the normalizations; None for a network without any.

    Caffe writes the layers without weights too. A file without those does not tell. Parameters
    that are not in the file have Caffe's defaults, which the schema repeats.
    """
    found = {
        layer.name: _lrn_parameters(layer.normalization) for layer in layers if layer.type in LRN
    }
    return found if found or all(layer.blobs for layer in layers) else None


def _lrn_parameters(declared: schema.Normalization) -> LRNParameters:
    # Caffe divides alpha by the number of cells in the window.
    within_channel = declared.region == WITHIN_CHANNEL
    cells = declared.local_size**2 if within_channel else declared.local_size
    return LRNParameters(
        declared.local_size, declared.alpha / cells, declared.beta, declared.k, within_channel
    )


def _norms_after_pooling(layers: Iterable[schema.Layer | schema.OldLayer]) -> frozenset[str] | None:
    """Return the normalizations whose input is a pooling; None without normalizations."""
    layers = list(layers)
    poolings = {top for layer in layers if layer.type in POOLING for top in layer.top}
    normalizations = [layer for layer in layers if layer.type in LRN and layer.bottom]
    if not normalizations:
        return None
    return frozenset(layer.name for layer in normalizations if layer.bottom[0] in poolings)
