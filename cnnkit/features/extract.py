"""The vectors of a dataset's images, in memory or streamed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from cnnkit.data import Dataset, Split
from cnnkit.errors import DataError, UsageError
from cnnkit.features.extractor import FeatureExtractor
from cnnkit.features.image_batches import (
    ALL,
    iter_center_crops,
    iter_full_images,
    select_features_split,
)
from cnnkit.features.spec import FeatureSpec

BATCH_SIZE = 32


@dataclass(frozen=True)
class FeatureBatch:
    """A vector for every image.

    Attributes:
        values: (n, d) float32; perhaps a file that is mapped into memory.
        names: A name for each image.
        labels: (n,) int32, an index into `classes`.
        classes: Names of the classes.
    """

    values: np.ndarray
    names: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.values)


def extract_features(
    model: keras.Model,
    source: Dataset | Split,
    layer: str,
    *,
    scales: tuple[int, ...] = (),
    aggregate: str = "stack",
    flip: bool | None = None,
    pool: str | None = None,
    l2: bool = True,
    image_size: int | None = None,
    split: str = ALL,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int], object] = lambda count: None,
) -> FeatureBatch:
    """Returns what a layer answers to every image, as unit vectors.

    Without `scales` the network sees the center of each image once. With them it is applied densely
    to the whole image at each scale, with dense layers as convolutions; answers are averaged over
    positions and the mirrored image, and the scales stacked (Simonyan & Zisserman 2014, appendix
    B). `cnnkit.features.FeatureSpec` explains each choice.

    Args:
        model: Any functional or sequential model over RGB images in 0..255.
        source: A dataset, or a part of one.
        layer: Name of a layer, for example `fc7`.
        scales: Shorter sides of the image.
        aggregate: `"stack"`, `"average"` or `"max"` over the scales.
        flip: Whether to average with the mirrored image; None does so with scales.
        pool: Of a map: `"average"`, `"max"` or `"flatten"`; None averages with scales, and flattens
            without.
        l2: Whether vectors get the length 1.
        image_size: Side of the center, for a model that takes images of any size.
        split: Of a dataset: `"train"`, `"test"` or `"all"`.
        batch_size: Images of 224 x 224 at a time; of larger ones fewer.
        progress: Called with the number of images done since the last call.

    Raises:
        UsageError: If a layer or an option does not exist, or the images are too small.
        DataError: If an image cannot be decoded, or the network answers with what is not finite.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.data import load_dataset
        >>> from cnnkit.features import extract_features
        >>> model = alexnet(input_shape=(64, 64, 3), include_top=False)
        >>> extract_features(model, load_dataset("digits"), "pool2", split="test").values.shape
        (359, 2304)
    """
    protocol = FeatureSpec.named(
        layer,
        scales=scales,
        aggregate=aggregate,
        flip=flip,
        pool=pool,
        l2=l2,
        image_size=image_size,
    )
    part = select_features_split(source, split) if isinstance(source, Dataset) else source
    classes = source.class_names if isinstance(source, Dataset) else ()
    describer = FeatureExtractor(model, protocol)
    values = np.empty((len(part), *describer.dimensions), np.float32)
    for places, [vectors] in stream_features(describer, part, np.arange(len(part)), batch_size):
        values[places] = vectors
        progress(len(places))
    return FeatureBatch(values, part.names, part.labels, classes)


def stream_features(
    describer: FeatureExtractor, split: Split, order: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Yields places in the order, (n,), and their vectors, (n, d) float32 for each layer.

    The memory does not depend on the number of images.

    Raises:
        UsageError: If the batch size is below 1.
        DataError: If an image cannot be decoded, or a vector is not finite.
    """
    if batch_size < 1:
        raise UsageError("A batch holds images", expected="at least 1", received=batch_size)
    if describer.protocol.scales:
        images = iter_full_images(split, order, describer.sides, batch_size)
    else:
        images = iter_center_crops(split, order, describer.sides[0], batch_size)
    for places, batch in images:
        answers = [vectors[: len(places)] for vectors in describer(batch)]
        for layer, vectors in zip(describer.layers, answers, strict=True):
            for row in np.flatnonzero(~np.isfinite(vectors).all(axis=1)):
                raise DataError(
                    f"Layer {layer!r} answers image {split.names[order[places[row]]]}"
                    " with values that are not finite",
                    hint="Look at the weights: training may have diverged",
                )
        yield places, answers


@dataclass(frozen=True)
class LayerFeatures:
    """The vectors of images by some layers of one network, or of several stacked.

    Attributes:
        protocol: How an image becomes a vector of the first layer; where the networks see the
            center at one size, it tells that size.
        layers: Names of the layers.
        networks: Name of each network.
        identities: Digest of each network up to the first layer.
        values: For each layer (n, d) float32, in a file without a name that goes with the array.
    """

    protocol: FeatureSpec
    layers: tuple[str, ...]
    networks: tuple[str, ...]
    identities: tuple[str, ...]
    values: tuple[np.ndarray, ...]


def extract_layers(
    models: keras.Model | Sequence[keras.Model],
    images: Split,
    layers: Sequence[str],
    *,
    protocol: FeatureSpec | None = None,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int], object] = lambda count: None,
) -> LayerFeatures:
    """Describes images by layers of trained networks, in one pass of each network.

    The vectors of several networks stand side by side, each of them of length 1 where the protocol
    says so (Simonyan & Zisserman 2014, appendix B, Table 11).

    Args:
        models: A Keras model over RGB images in 0..255, or several.
        images: What is described.
        layers: Names of layers, which every model has.
        protocol: How an image becomes a vector, for the first of the layers; None sees the center
            of the image.
        batch_size: Images of 224 x 224 at a time.
        progress: Called with the number of images done since the last call, for every model.

    Raises:
        UsageError: If a layer does not exist, or an option is out of range.
        DataError: If an image cannot be used.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.data import load_dataset
        >>> from cnnkit.transfer import extract_layers
        >>> model = alexnet(input_shape=(64, 64, 3), include_top=False)
        >>> images = load_dataset("digits").splits["test"]
        >>> [one.shape for one in extract_layers(model, images, ["pool2", "pool5"]).values]
        [(359, 2304), (359, 256)]
    """
    models = [models] if isinstance(models, keras.Model) else list(models)
    if not models or not layers:
        raise UsageError("Features come from a network and a layer", received=list(layers))
    protocol = replace(protocol or FeatureSpec(layers[0]), layer=layers[0])
    describers = [FeatureExtractor(model, protocol, layers[1:]) for model in models]
    widths = zip(*(describer.dimensions for describer in describers), strict=True)
    arrays = [_unnamed((len(images), sum(width))) for width in widths]
    begin = [0] * len(arrays)
    for describer in describers:
        for places, answers in stream_features(
            describer, images, np.arange(len(images)), batch_size
        ):
            for i, vectors in enumerate(answers):
                arrays[i][places, begin[i] : begin[i] + vectors.shape[1]] = vectors
            progress(len(places))
        begin = [b + d for b, d in zip(begin, describer.dimensions, strict=True)]
    sides = {describer.sides for describer in describers}
    if not protocol.scales and len(sides) == 1:
        protocol = replace(protocol, image_size=describers[0].sides[0])
    return LayerFeatures(
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
