"""Caffe's binary files: the weights in `.caffemodel`, the mean image in `.binaryproto`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError, Message

from cnnkit.errors import UsageError
from cnnkit.models.preprocessing import caffe_preprocessing
from cnnkit.models.weights import caffe_weights_pb2 as schema
from cnnkit.models.weights.weights_file import (
    OIHW,
    LRNParameters,
    StoredLayer,
    StoredTensor,
    WeightsFile,
)

# Layer types as numbers, until 2015, and as names.
LRN = (15, "LRN")
POOLING = (17, "Pooling")
WITHIN = 1


def read_caffemodel(path: Path) -> WeightsFile:
    """Reads a `.caffemodel`, of the current layers or of those until 2015.

    Raises:
        UsageError: If it is no such file, not whole, or older still.
    """
    net = schema.Net()
    _parse(net, path, "Caffe weights")
    layers = [*net.layers, *net.old_layers]
    if any(layer.HasField("layer") for layer in net.old_layers):
        raise UsageError(
            f"{path} is in the layout that Caffe left in 2014",
            hint="Caffe's upgrade_net_proto_binary brings it up to date",
        )
    stored = tuple(_layer(path, layer) for layer in layers if layer.blobs)
    if not stored:
        raise UsageError(f"{path} is no weights file of a known kind")
    names = [layer.name for layer in stored]
    return WeightsFile(
        path,
        "Caffe weights (.caffemodel)",
        stored,
        OIHW,
        channels="BGR",
        preprocessing=caffe_preprocessing(names),
        normalizations={
            layer.name: _normalization(layer.normalization)
            for layer in layers
            if layer.type in LRN and layer.HasField("normalization")
        },
        pooled_first=_pooled_first(layers),
        facts={"network": net.name} if net.name else {},
    )


def read_mean_image(path: Path) -> np.ndarray:
    """Reads a mean image, (h, w, 3) RGB in 0..255, from a `.binaryproto`.

    Raises:
        UsageError: If the file holds none.
    """
    blob = schema.Blob()
    _parse(blob, path, "a Caffe mean image")
    shape = _shape(blob)
    if len(shape) != 4 or shape[:2] != (1, 3):
        raise UsageError(
            f"{path} is no mean image", expected="1 x 3 x height x width", received=shape
        )
    bgr = _numbers(path, "mean", blob, shape)(slice(None))[0]
    return np.ascontiguousarray(bgr[::-1].transpose(1, 2, 0), np.float32)


def _parse(message: Message, path: Path, what: str) -> None:
    try:
        message.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise UsageError(
            f"{path} is not {what}, or not all of it", received="bytes that do not decode"
        ) from error


def _layer(path: Path, layer) -> StoredLayer:
    kernel, *bias = [
        StoredTensor(f"{layer.name}.{role}", shape, _numbers(path, layer.name, blob, shape), True)
        for role, blob in zip(("weights", "bias"), layer.blobs, strict=False)
        for shape in [_trimmed(_shape(blob), role)]
    ]
    return StoredLayer(layer.name, kernel, bias[0] if bias else None)


def _shape(blob) -> tuple[int, ...]:
    if blob.HasField("shape"):
        return tuple(blob.shape.dim)
    return (blob.num, blob.channels, blob.height, blob.width)


def _trimmed(shape: tuple[int, ...], role: str) -> tuple[int, ...]:
    """Takes the axes off that blobs of four axes pad dense kernels and biases with."""
    axes = 1 if role == "bias" else 2
    while len(shape) > axes and shape[0] == 1 and (axes == 1 or shape[1] == 1 or len(shape) == 3):
        shape = shape[1:]
    return shape


def _numbers(path: Path, name: str, blob, shape) -> Callable[[slice], np.ndarray]:
    def read(place: slice) -> np.ndarray:
        if blob.floats:
            values = np.frombuffer(blob.floats, "<f4")
        else:
            values = np.frombuffer(blob.doubles, "<f8")
        if values.size != int(np.prod(shape)):
            raise UsageError(
                f"Layer {name!r} of {path} is not whole",
                expected=f"{int(np.prod(shape)):,} numbers",
                received=f"{values.size:,}",
            )
        return values.reshape(shape)[place]

    return read


def _normalization(declared) -> LRNParameters:
    # Caffe divides alpha by the number of cells in the window.
    within = declared.region == WITHIN
    cells = declared.local_size**2 if within else declared.local_size
    return LRNParameters(
        declared.local_size, declared.alpha / cells, declared.beta, declared.k, within
    )


def _pooled_first(layers) -> frozenset[str] | None:
    """Returns the normalizations that take what a pooling gives; None without normalizations."""
    poolings = {top for layer in layers if layer.type in POOLING for top in layer.top}
    normalizations = [layer for layer in layers if layer.type in LRN and layer.bottom]
    if not normalizations:
        return None
    return frozenset(layer.name for layer in normalizations if layer.bottom[0] in poolings)
