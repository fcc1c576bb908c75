"""Feature extraction: vectors of a dataset's images, in memory or streamed."""

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
from cnnkit.features.mapped_rows import release_pages
from cnnkit.features.spec import FeatureSpec

BATCH_SIZE = 32


@dataclass(frozen=True)
class FeatureBatch:
    """Feature vectors of images, with their names and labels.

    Attributes:
        values: (n, d) float32; may be a memory-mapped file.
        names: Name of each image.
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
    dataset: Dataset | Split,
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
    """Extract the feature vectors of a dataset's images at a layer.

    Without `scales` the network is applied once, to the center crop of each image. With them it is
    applied densely to the whole image at each scale, with dense layers as convolutions; outputs
    are averaged over positions and over the mirrored image, and the scales are concatenated
    (Simonyan & Zisserman 2014, appendix B). `cnnkit.features.FeatureSpec` explains each choice.

    Args:
        model: A functional or sequential Keras model over RGB images in 0..255.
        dataset: A dataset, or a split of one.
        layer: Name of a layer, for example `fc7`.
        scales: Shorter sides of the image in pixels.
        aggregate: `"stack"`, `"average"` or `"max"` over the scales.
        flip: Whether to average with the mirrored image; None does so with `scales` only.
        pool: How a map becomes a vector: `"average"`, `"max"` or `"flatten"`; None averages with
            `scales` and flattens without.
        l2: Whether vectors are divided by their Euclidean length.
        image_size: Side of the center crop in pixels, for a model that takes images of any size.
        split: Split of a `Dataset`: `"train"`, `"test"` or `"all"`.
        batch_size: Number of 224 x 224 images in a batch; a batch of larger images has fewer.
        progress: Called with the number of images done since the last call.

    Returns:
        The vectors, (n, d) float32, in the order of the split.

    Raises:
        UsageError: If the layer does not exist, an option is out of range, or the images are too
            small.
        DataError: If an image cannot be decoded, or a vector is not finite.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.data import load_dataset
        >>> from cnnkit.features import extract_features
        >>> model = alexnet(input_shape=(64, 64, 3), include_top=False)
        >>> extract_features(model, load_dataset("digits"), "pool2", split="test").values.shape
        (359, 2304)
    """
    spec = FeatureSpec.with_defaults(
        layer,
        scales=scales,
        aggregate=aggregate,
        flip=flip,
        pool=pool,
        l2=l2,
        image_size=image_size,
    )
    images = select_features_split(dataset, split) if isinstance(dataset, Dataset) else dataset
    classes = dataset.class_names if isinstance(dataset, Dataset) else ()
    extractor = FeatureExtractor(model, spec)
    values = np.empty((len(images), *extractor.dimensions), np.float32)
    for rows, [vectors] in stream_features(extractor, images, np.arange(len(images)), batch_size):
        values[rows] = vectors
        progress(len(rows))
    return FeatureBatch(values, images.names, images.labels, classes)


def require_batch_size(batch_size: int) -> None:
    """Check the number of images in a batch.

    Raises:
        UsageError: If it is below 1.
    """
    if batch_size < 1:
        raise UsageError("`batch_size` must be at least 1", received=batch_size)


def stream_features(
    extractor: FeatureExtractor, split: Split, order: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Yield the feature vectors of images in batches.

    The memory does not depend on the number of images. Batches of whole images (with scales) are
    grouped by shape, so that they do not come in order.

    Args:
        extractor: The feature extractor.
        split: The images.
        order: (n,) indices into the split.
        batch_size: Number of 224 x 224 images in a batch; a batch of larger images has fewer.

    Yields:
        Positions in `order`, (b,) int, and for each layer the vectors, (b, d) float32.

    Raises:
        UsageError: If the batch size is below 1.
        DataError: If an image cannot be decoded, or a vector is not finite.
    """
    require_batch_size(batch_size)
    if extractor.spec.scales:
        batches = iter_full_images(split, order, extractor.sides, batch_size)
    else:
        batches = iter_center_crops(split, order, extractor.sides[0], batch_size)
    for rows, images in batches:
        # The last batch of center crops is filled up with repeated rows.
        features = [vectors[: len(rows)] for vectors in extractor(images)]
        for layer, vectors in zip(extractor.layers, features, strict=True):
            for row in np.flatnonzero(~np.isfinite(vectors).all(axis=1)):
                raise DataError(
                    f"The output of layer {layer!r} for image {split.names[order[rows[row]]]}"
                    " is not finite",
                    hint="Check the weights: training may have diverged",
                )
        yield rows, features


@dataclass(frozen=True)
class LayerFeatures:
    """Feature vectors of images at several layers of one network, or of several networks.

    Attributes:
        spec: How an image becomes a vector of the first layer. Where all networks take the center
            crop at one size, its `image_size` is that size.
        layers: Names of the layers.
        networks: Name of each network.
        identities: Digest of each network up to the first layer.
        values: For each layer (n, d) float32, memory-mapped from an unlinked temporary file that
            is freed with the array.
    """

    spec: FeatureSpec
    layers: tuple[str, ...]
    networks: tuple[str, ...]
    identities: tuple[str, ...]
    values: tuple[np.ndarray, ...]


def extract_layers(
    models: keras.Model | Sequence[keras.Model],
    images: Split,
    layers: Sequence[str],
    *,
    spec: FeatureSpec | None = None,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int], object] = lambda count: None,
) -> LayerFeatures:
    """Extract the feature vectors of images at several layers, in one pass of each network.

    The vectors of several networks are concatenated, each of length 1 where the spec says so
    (Simonyan & Zisserman 2014, appendix B, Table 11).

    Args:
        models: A Keras model over RGB images in 0..255, or several.
        images: The images.
        layers: Names of layers, which every model has.
        spec: How an image becomes a vector, for the first of the layers; None takes the center
            crop of the image.
        batch_size: Number of 224 x 224 images in a batch; a batch of larger images has fewer.
        progress: Called with the number of images done since the last call, for every model.

    Raises:
        UsageError: If a layer does not exist, or an option is out of range.
        DataError: If an image cannot be used.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.data import load_dataset
        >>> from cnnkit.features import extract_layers
        >>> model = alexnet(input_shape=(64, 64, 3), include_top=False)
        >>> images = load_dataset("digits").splits["test"]
        >>> [one.shape for one in extract_layers(model, images, ["pool2", "pool5"]).values]
        [(359, 2304), (359, 256)]
    """
    models = [models] if isinstance(models, keras.Model) else list(models)
    if not models or not layers:
        raise UsageError(
            "`models` and `layers` must not be empty",
            received=f"{len(models)} models, {len(layers)} layers",
        )
    spec = replace(spec or FeatureSpec(layers[0]), layer=layers[0])
    extractors = [FeatureExtractor(model, spec, layers[1:]) for model in models]
    widths = zip(*(extractor.dimensions for extractor in extractors), strict=True)
    arrays = [_temporary_array((len(images), sum(width))) for width in widths]
    columns = [0] * len(arrays)
    for extractor in extractors:
        for rows, features in stream_features(
            extractor, images, np.arange(len(images)), batch_size
        ):
            for array, begin, vectors in zip(arrays, columns, features, strict=True):
                array[rows, begin : begin + vectors.shape[1]] = vectors
                release_pages(array)
            progress(len(rows))
        columns = [b + d for b, d in zip(columns, extractor.dimensions, strict=True)]
    sides = {extractor.sides for extractor in extractors}
    if not spec.scales and len(sides) == 1:
        spec = replace(spec, image_size=extractors[0].sides[0])
    return LayerFeatures(
        spec,
        tuple(layers),
        tuple(extractor.name for extractor in extractors),
        tuple(extractor.identity for extractor in extractors),
        tuple(arrays),
    )


def _temporary_array(shape: tuple[int, int]) -> np.ndarray:
    """Return a float32 array in an unlinked temporary file.

    The file has no name: the system frees it with the last mapping, after `kill -9` too.
    """
    with tempfile.TemporaryFile(prefix="cnnkit-") as file:
        return np.memmap(file, np.float32, "w+", shape=shape)
