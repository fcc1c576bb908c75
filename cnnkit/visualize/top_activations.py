"""The strongest activations of every feature map over a dataset, in one pass of fixed memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from cnnkit.data import Augmentation, Dataset, Split, batches, report_undecodable
from cnnkit.errors import DataError, UsageError
from cnnkit.models.graph import Graph, build_graph
from cnnkit.visualize.forward import (
    check_image_shape,
    check_supports_rule,
    check_weights,
    forward_to,
)


@dataclass(frozen=True)
class TopActivations:
    """The k strongest images of every unit of a layer, strongest first.

    Of every image only the strongest place counts, so the images of a unit differ. Equals are
    ordered by image. 16 bytes for each of them.

    Attributes:
        layer: Name of the layer.
        values: (units, k) float32; minus infinity where there were fewer images.
        images: (units, k) int64, indices into the dataset.
        flat_positions: (units, k) int32, row times width of the map plus column, the first among equals.
        width: Width of the map; 0 in a dense layer.
    """

    layer: str
    values: np.ndarray
    images: np.ndarray
    flat_positions: np.ndarray
    width: int

    @property
    def dead(self) -> np.ndarray:
        """(units,) bool, whether a unit fired for no image."""
        return self.values[:, 0] <= 0

    def position(self, unit: int, rank: int) -> tuple[int, ...]:
        """Returns (row, column) of one of them, () in a dense layer."""
        return divmod(int(self.flat_positions[unit, rank]), self.width) if self.width else ()

    def merge(self, other: TopActivations) -> TopActivations:
        """Returns the strongest of two parts of a dataset; the order of parts does not matter.

        Raises:
            UsageError: If the other one is of another layer or number.
        """
        mine, theirs = ((s.layer, s.values.shape, s.width) for s in (self, other))
        if mine != theirs:
            raise UsageError(
                "Only the same units can be merged",
                expected="layer {}, units and images {}, width {}".format(*mine),
                received="layer {}, units and images {}, width {}".format(*theirs),
            )
        return self._with(other.values, other.images, other.flat_positions)

    def _with(self, values: np.ndarray, images: np.ndarray, places: np.ndarray) -> TopActivations:
        """Returns the strongest of these and (units, m) others."""
        every = (
            np.concatenate(pair, axis=1)
            for pair in (
                (self.values, values), (self.images, images), (self.flat_positions, places)
            )
        )  # fmt: skip
        values, images, places = every
        order = np.lexsort((images, -values), axis=-1)[:, : self.values.shape[1]]
        kept = (np.take_along_axis(one, order, axis=1) for one in (values, images, places))
        return TopActivations(self.layer, *kept, self.width)


def find_top_activations(
    model: keras.Model | Graph,
    source: Dataset | Split | np.ndarray,
    layers: Sequence[str],
    k: int = 9,
    *,
    image_size: int | None = None,
    batch_size: int = 16,
    part: tuple[int, int] = (0, 1),
    progress: Callable[[int], None] | None = None,
    first_image: int = 0,
) -> dict[str, TopActivations]:
    """Finds the images that excite each unit most.

    Args:
        model: As `cnnkit.visualize.deconvnet.project` takes it.
        source: A split, a dataset (its `test` split), or images (n, h, w, 3) as the model takes
            them.
        layers: Names of layers.
        k: Images for each unit.
        image_size: Side of a dataset's images, for a model that takes images of any size.
        batch_size: Images at a time.
        part: (i, n): only part i of n of the images, to be merged with the others.
        progress: Hears the number of images after every batch.
        first_image: Index of the first image, where the source is a part of a larger one.

    Raises:
        UsageError: If a layer does not exist, k is below one, the images do not fit, or a dataset
            meets a model that takes images of any size.
        DataError: If there are no images, or activations are not finite.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import find_top_activations
        >>> images = np.random.default_rng(0).uniform(0, 255, (6, 64, 64, 3))
        >>> model = zfnet(input_shape=(64, 64, 3), include_top=False)
        >>> found = find_top_activations(model, images, ["conv1", "conv5"], k=2)
        >>> found["conv5"].values.shape
        (256, 2)
    """
    if k < 1:
        raise UsageError("At least one image is kept", expected="k of 1 or more", received=k)
    graph = build_graph(model)
    wanted = [graph.node(layer) for layer in layers]
    nodes = graph.ancestors(*wanted)
    check_supports_rule(nodes, "gradient")
    check_weights(nodes)

    @tf.function(autograph=False)
    def search(images):
        return [_strongest_places(maps) for maps in forward_to(nodes, images, wanted)]

    state: dict[str, TopActivations] = {}
    if isinstance(source, Dataset):
        source = source.splits["test"]
    if not 0 <= part[0] < part[1]:
        raise UsageError(
            "There is no such part", expected="(i, n) with i of 0 to n - 1", received=part
        )
    first, last = (len(source) * i // part[1] for i in (part[0], part[0] + 1))
    seen = first_image + first
    size = image_size or graph.image_shape[0]
    for images, count in _batches(source, first, last, size, batch_size):
        check_image_shape(graph, images.shape)
        index = np.arange(seen, seen + count)
        for layer, (values, places, width) in zip(layers, search(images), strict=True):
            # Maps first, and without the rows that only fill up the last batch.
            values, places = values.numpy()[:count].T, places.numpy()[:count].T
            if not np.isfinite(values).all():
                image = index[~np.isfinite(values).all(axis=0)][0]
                raise DataError(
                    f"Layer {layer!r} answers image {image} with values that are not finite"
                )
            if layer not in state:
                state[layer] = _none(layer, len(values), k, int(width))
            old = state[layer]
            # Most batches change few maps, so the others are not sorted.
            rows = np.flatnonzero(values.max(axis=1) >= old.values[:, -1])
            part = TopActivations(
                layer, old.values[rows], old.images[rows], old.flat_positions[rows], old.width
            )
            new = part._with(values[rows], np.tile(index, (len(rows), 1)), places[rows])
            old.values[rows], old.images[rows], old.flat_positions[rows] = (
                new.values,
                new.images,
                new.flat_positions,
            )
        seen += count
        if progress is not None:
            progress(count)
    if not state:
        raise DataError("There are no images to look for the strongest among")
    return state


def _strongest_places(maps):
    """Returns the largest values (n, units), their places in row-major order, and the width."""
    if len(maps.shape) == 2:
        return tf.cast(maps, tf.float32), tf.zeros_like(maps, tf.int32), tf.constant(0)
    count, height, width, units = tf.unstack(tf.shape(maps))
    # The maps are read once, by a reduction that is fast over the last axis; TensorFlow's argmax is
    # not, and has only rows to choose from, and then the columns of one row.
    of_rows = tf.reduce_max(maps, axis=2)
    row = tf.argmax(of_rows, axis=1, output_type=tf.int32)
    first = (tf.range(count)[:, None] * height + row) * width * units + tf.range(units)
    line = tf.gather(tf.reshape(maps, (-1,)), first[..., None] + tf.range(width) * units)
    places = row * width + tf.argmax(line, axis=2, output_type=tf.int32)
    return tf.cast(tf.reduce_max(of_rows, axis=1), tf.float32), places, width


def _none(layer: str, units: int, k: int, width: int) -> TopActivations:
    # No image has so large an index: a real one of equal value comes first.
    images = np.full((units, k), np.iinfo(np.int64).max)
    values = np.full((units, k), -np.inf, np.float32)
    return TopActivations(layer, values, images, np.zeros((units, k), np.int32), width)


def _batches(
    source, first: int, last: int, size: int | None, batch_size: int
) -> Iterator[tuple[tf.Tensor, int]]:
    """Yields batches of one size, and how many of their rows are images."""
    if isinstance(source, Split):
        if size is None:
            raise UsageError(
                "The network takes images of any size, and a dataset has many",
                hint="Give the image size",
            )
        with report_undecodable(source):
            order, whole = np.arange(first, last), Augmentation(size)
            for batch in batches(source, augmentation=whole, batch_size=batch_size, order=order):
                yield batch["images"], int(batch["weights"].numpy().sum())
        return
    for start in range(first, last, batch_size):
        part = np.asarray(source[start : min(start + batch_size, last)], np.float32)
        for row in np.flatnonzero(~np.isfinite(part).all(axis=(1, 2, 3))):
            # Said here: a rectifier or a pooling may hide it on the way up.
            raise DataError(f"Image {start + row} of the source has pixels that are not finite")
        missing = batch_size - len(part) if start > first else 0
        yield tf.constant(np.pad(part, ((0, missing), (0, 0), (0, 0), (0, 0)))), len(part)
