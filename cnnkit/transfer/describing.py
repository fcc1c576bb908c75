"""One pass over the images, for all layers and networks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from cnnkit.data import Split
from cnnkit.errors import UsageError
from cnnkit.features import Describer, Protocol, stream
from cnnkit.features.extract import BATCH_SIZE


@dataclass(frozen=True)
class Description:
    """The vectors of images by some layers of one network, or of several stacked.

    Attributes:
        protocol: How an image becomes a vector of the first layer; where the networks see the
            centre at one size, it tells that size.
        layers: Names of the layers.
        networks: Name of each network.
        identities: Digest of each network up to the first layer.
        values: For each layer (n, d) float32, in a file without a name that goes with the array.
    """

    protocol: Protocol
    layers: tuple[str, ...]
    networks: tuple[str, ...]
    identities: tuple[str, ...]
    values: tuple[np.ndarray, ...]


def describe(
    models: keras.Model | Sequence[keras.Model],
    images: Split,
    layers: Sequence[str],
    *,
    protocol: Protocol | None = None,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int], object] = lambda count: None,
) -> Description:
    """Describes images by layers of trained networks, in one pass of each network.

    The vectors of several networks stand side by side, each of them of length 1 where the protocol
    says so (Simonyan & Zisserman 2014, appendix B, Table 11).

    Args:
        models: A Keras model over RGB images in 0..255, or several.
        images: What is described.
        layers: Names of layers, which every model has.
        protocol: How an image becomes a vector, for the first of the layers; None sees the centre
            of the image.
        batch_size: Images of 224 x 224 at a time.
        progress: Called with the number of images done since the last call, for every model.

    Raises:
        UsageError: If a layer does not exist, or an option is out of range.
        DataError: If an image cannot be used.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.data import load_source
        >>> from cnnkit.transfer import describe
        >>> model = alexnet(input_shape=(64, 64, 3), include_top=False)
        >>> images = load_source("digits").splits["test"]
        >>> [one.shape for one in describe(model, images, ["pool2", "pool5"]).values]
        [(359, 2304), (359, 256)]
    """
    models = [models] if isinstance(models, keras.Model) else list(models)
    if not models or not layers:
        raise UsageError("Features come from a network and a layer", received=list(layers))
    protocol = replace(protocol or Protocol(layers[0]), layer=layers[0])
    describers = [Describer(model, protocol, layers[1:]) for model in models]
    widths = zip(*(describer.dimensions for describer in describers), strict=True)
    arrays = [_unnamed((len(images), sum(width))) for width in widths]
    begin = [0] * len(arrays)
    for describer in describers:
        for places, answers in stream(describer, images, np.arange(len(images)), batch_size):
            for i, vectors in enumerate(answers):
                arrays[i][places, begin[i] : begin[i] + vectors.shape[1]] = vectors
            progress(len(places))
        begin = [b + d for b, d in zip(begin, describer.dimensions, strict=True)]
    sides = {describer.sides for describer in describers}
    if not protocol.scales and len(sides) == 1:
        protocol = replace(protocol, image_size=describers[0].sides[0])
    return Description(
        protocol,
        tuple(layers),
        tuple(describer.name for describer in describers),
        tuple(describer.identity for describer in describers),
        tuple(arrays),
    )


def _unnamed(shape: tuple[int, int]) -> np.ndarray:
    """Returns an array in a temporary file that no way of ending leaves behind."""
    # A file without a name: the system frees it with the last mapping, after `kill -9` too.
    with tempfile.TemporaryFile(prefix="cnnkit-") as file:
        return np.memmap(file, np.float32, "w+", shape=shape)
