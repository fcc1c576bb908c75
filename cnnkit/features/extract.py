"""The vectors of a dataset's images, in memory or streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import numpy as np

from cnnkit.data import Source, Split
from cnnkit.errors import DataError, UsageError
from cnnkit.features.network import Describer
from cnnkit.features.protocol import Protocol
from cnnkit.features.reading import ALL, centres, split_of, whole

BATCH_SIZE = 32


@dataclass(frozen=True)
class Features:
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


def extract(
    model: keras.Model,
    source: Source | Split,
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
) -> Features:
    """Returns what a layer answers to every image, as unit vectors.

    Without `scales` the network sees the centre of each image once. With them it is applied densely
    to the whole image at each scale, with dense layers as convolutions; answers are averaged over
    positions and the mirrored image, and the scales stacked (Simonyan & Zisserman 2014, appendix
    B). `cnnkit.features.Protocol` explains each choice.

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
        image_size: Side of the centre, for a model that takes images of any size.
        split: Of a dataset: `"train"`, `"test"` or `"all"`.
        batch_size: Images of 224 x 224 at a time; of larger ones fewer.
        progress: Called with the number of images done since the last call.

    Raises:
        UsageError: If a layer or an option does not exist, or the images are too small.
        DataError: If an image cannot be decoded, or the network answers with what is not finite.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.data import load_source
        >>> from cnnkit.features import extract
        >>> model = alexnet(input_shape=(64, 64, 3), include_top=False)
        >>> extract(model, load_source("digits"), "pool2", split="test").values.shape
        (359, 2304)
    """
    protocol = Protocol.named(
        layer,
        scales=scales,
        aggregate=aggregate,
        flip=flip,
        pool=pool,
        l2=l2,
        image_size=image_size,
    )
    part = split_of(source, split) if isinstance(source, Source) else source
    classes = source.labels if isinstance(source, Source) else ()
    describer = Describer(model, protocol)
    values = np.empty((len(part), *describer.dimensions), np.float32)
    for places, [vectors] in stream(describer, part, np.arange(len(part)), batch_size):
        values[places] = vectors
        progress(len(places))
    return Features(values, part.names, part.labels, classes)


def stream(
    describer: Describer, split: Split, order: np.ndarray, batch_size: int
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
        images = whole(split, order, describer.sides, batch_size)
    else:
        images = centres(split, order, describer.sides[0], batch_size)
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
