"""The strongest activations of every unit over a dataset, in one pass with fixed memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from cnnkit._deprecation import renamed_argument
from cnnkit.data import Augmentation, Dataset, Split, batches, report_undecodable
from cnnkit.data.crops import fit_images
from cnnkit.errors import DataError, UsageError
from cnnkit.models.graph import Graph, build_graph
from cnnkit.visualize.argument_checks import check_batch_size, check_names, check_whole_number
from cnnkit.visualize.forward import (
    check_image_shape,
    check_weights,
    forward_to,
    non_finite_error,
    softmaxes,
)


@dataclass(frozen=True)
class TopActivations:
    """The k images with the strongest activation of every unit of a layer, strongest first.

    Only the strongest position of each image counts, so the images of a unit differ. Equal values
    are ordered by image. Each entry takes 16 bytes.

    Attributes:
        layer: Name of the layer.
        values: (units, k) float32, the activations; minus infinity if there were fewer images.
        images: (units, k) int64, indices into the dataset.
        flat_positions: (units, k) int32, row times width of the map plus column, the first among
            equals.
        width: Width of the map; 0 in a dense layer.
    """

    layer: str
    values: np.ndarray
    images: np.ndarray
    flat_positions: np.ndarray
    width: int

    @property
    def dead(self) -> np.ndarray:
        """(units,) bool, True for units that fired for no image."""
        return self.values[:, 0] <= 0

    def position(self, unit: int, rank: int) -> tuple[int, ...]:
        """Returns the (row, column) of a unit's entry, () in a dense layer."""
        return divmod(int(self.flat_positions[unit, rank]), self.width) if self.width else ()

    def merge(self, other: TopActivations) -> TopActivations:
        """Returns the strongest activations of two shards of a dataset, in either order.

        Raises:
            UsageError: If the other one has another layer, or another number of units or images.
        """
        mine, theirs = ((s.layer, s.values.shape, s.width) for s in (self, other))
        if mine != theirs:
            raise UsageError(
                "`other` must hold activations of the same units",
                expected="layer {}, units and images {}, width {}".format(*mine),
                received="layer {}, units and images {}, width {}".format(*theirs),
            )
        return self._merge_arrays(other.values, other.images, other.flat_positions)

    def _merge_arrays(
        self, values: np.ndarray, images: np.ndarray, flat_positions: np.ndarray
    ) -> TopActivations:
        """Returns the strongest of these activations and (units, m) other ones."""
        candidates = (
            np.concatenate(pair, axis=1)
            for pair in (
                (self.values, values),
                (self.images, images),
                (self.flat_positions, flat_positions),
            )
        )
        values, images, flat_positions = candidates
        order = np.lexsort((images, -values), axis=-1)[:, : self.values.shape[1]]
        values, images, flat_positions = (
            np.take_along_axis(one, order, axis=1) for one in (values, images, flat_positions)
        )
        return TopActivations(self.layer, values, images, flat_positions, self.width)

    def _update(self, values: np.ndarray, images: np.ndarray, flat_positions: np.ndarray) -> None:
        """Merges a batch's (units, m) activations in place; (m,) images."""
        # Most batches change few units, so the other units are not sorted.
        units = np.flatnonzero(values.max(axis=1) >= self.values[:, -1])
        current = TopActivations(
            self.layer,
            self.values[units],
            self.images[units],
            self.flat_positions[units],
            self.width,
        )
        merged = current._merge_arrays(
            values[units], np.tile(images, (len(units), 1)), flat_positions[units]
        )
        self.values[units] = merged.values
        self.images[units] = merged.images
        self.flat_positions[units] = merged.flat_positions


@renamed_argument("part", "shard")
def find_top_activations(
    model: keras.Model | Graph,
    source: Dataset | Split | np.ndarray,
    layers: Sequence[str],
    k: int = 9,
    *,
    image_size: int | None = None,
    batch_size: int = 16,
    shard: tuple[int, int] = (0, 1),
    progress: Callable[[int], object] | None = None,
    first_image: int = 0,
    observe: Callable[[np.ndarray, dict[str, np.ndarray]], object] | None = None,
) -> dict[str, TopActivations]:
    """Finds the images with the strongest activation of each unit.

    Args:
        model: A functional or sequential model over images.
        source: A split, a dataset (its `test` split), or images (n, h, w, 3) as the model takes
            them.
        layers: Names of layers. At a softmax, fused or not, the activations are the logits.
        k: Images for each unit.
        image_size: Side of a dataset's images, for a model that takes images of any size.
        batch_size: Images at a time.
        shard: (i, n): search only shard i of n of the images. `TopActivations.merge` merges shards.
        progress: Called after every batch with its number of images.
        first_image: Index of the first image, if the source is part of a larger one.
        observe: Called after every batch with the indices of its images, (n,) int64, and by layer
            the largest activation of each unit in each image, (n, units) float32.

    Returns:
        By layer, the strongest activations of all units.

    Raises:
        UsageError: If a layer does not exist, `k` or `shard` is out of its range, the images do not
            fit, or `image_size` is missing.
        DataError: If there are no images, or pixels, weights or activations are not finite.

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
    check_whole_number("k", k)
    check_batch_size(batch_size)
    check_names("layers", layers)
    graph = build_graph(model)
    wanted = [graph.node(layer) for layer in layers]
    nodes = graph.ancestors(*wanted)
    check_weights(nodes)
    number, count = shard
    if not 0 <= number < count:
        raise UsageError("`shard` must be (i, n) with 0 <= i < n", received=shard)

    @tf.function(autograph=False)
    def search(images: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
        outputs = forward_to(nodes, images, wanted, logits=softmaxes(wanted))
        return [_strongest_positions(maps) for maps in outputs]

    if isinstance(source, Dataset):
        source = source.splits["test"]
    first, last = (len(source) * i // count for i in (number, number + 1))
    start = first_image + first
    found: dict[str, TopActivations] = {}
    for images, size in _batches(source, first, last, graph, image_size, batch_size):
        check_image_shape(graph, images.shape)
        index = np.arange(start, start + size)
        largest: dict[str, np.ndarray] = {}
        for layer, (values, flat_positions, width) in zip(layers, search(images), strict=True):
            # (units, images), without the rows that fill up the last batch.
            values, flat_positions = values.numpy()[:size].T, flat_positions.numpy()[:size].T
            if not np.isfinite(values).all():
                raise non_finite_error(layer, index[~np.isfinite(values).all(axis=0)][0])
            if layer not in found:
                found[layer] = _empty_activations(layer, len(values), k, int(width))
            found[layer]._update(values, index, flat_positions)
            largest[layer] = values.T
        start += size
        if observe is not None:
            observe(index, largest)
        if progress is not None:
            progress(size)
    if not found:
        raise DataError("`source` must hold at least one image", received=f"{len(source)} images")
    return found


def _strongest_positions(maps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the largest values (n, units), their flat positions, and the width of the map."""
    if len(maps.shape) == 2:
        return tf.cast(maps, tf.float32), tf.zeros_like(maps, tf.int32), tf.constant(0)
    count, height, width, units = tf.unstack(tf.shape(maps))
    # The maps are read once, by a reduction, which is fast over inner axes. TensorFlow's argmax is
    # slow, so it runs over the rows' maxima first, and then over the columns of one row.
    row_maxima = tf.reduce_max(maps, axis=2)
    row = tf.argmax(row_maxima, axis=1, output_type=tf.int32)
    first = (tf.range(count)[:, None] * height + row) * width * units + tf.range(units)
    line = tf.gather(tf.reshape(maps, (-1,)), first[..., None] + tf.range(width) * units)
    flat_positions = row * width + tf.argmax(line, axis=2, output_type=tf.int32)
    return tf.cast(tf.reduce_max(row_maxima, axis=1), tf.float32), flat_positions, width


def _empty_activations(layer: str, units: int, k: int, width: int) -> TopActivations:
    # The largest index, so that a real image with an equal value comes first.
    images = np.full((units, k), np.iinfo(np.int64).max)
    values = np.full((units, k), -np.inf, np.float32)
    return TopActivations(layer, values, images, np.zeros((units, k), np.int32), width)


def resize_augmentation(graph: Graph, image_size: int | None) -> Augmentation:
    """Returns the augmentation that only resizes the images of a dataset.

    Args:
        graph: The network. From the square images a rectangle is cut by `fit_images`.
        image_size: Side of the images, for a network that takes images of any size.

    Raises:
        UsageError: If the size is not known.
    """
    height, width, _ = graph.image_shape
    if image_size is None and height is not None and width is not None:
        image_size = max(height, width)
    if image_size is None:
        raise UsageError(
            "`image_size` is required for a dataset and a model that takes images of any size"
        )
    return Augmentation(image_size)


def _batches(
    source: Split | np.ndarray,
    first: int,
    last: int,
    graph: Graph,
    image_size: int | None,
    batch_size: int,
) -> Iterator[tuple[tf.Tensor, int]]:
    """Yields batches of one size, and how many of their rows are images."""
    if isinstance(source, Split):
        resize = resize_augmentation(graph, image_size)
        with report_undecodable(source):
            order = np.arange(first, last)
            for batch in batches(source, augmentation=resize, batch_size=batch_size, order=order):
                images = fit_images(batch["images"], graph.image_shape)
                yield images, int(batch["weights"].numpy().sum())
        return
    for start in range(first, last, batch_size):
        images = np.asarray(source[start : min(start + batch_size, last)], np.float32)
        for row in np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3))):
            # Checked here: a ReLU or a pooling may hide it in the forward pass.
            raise DataError(f"Image {start + row} of the source has pixels that are not finite")
        missing = batch_size - len(images) if start > first else 0
        padding = ((0, missing), (0, 0), (0, 0), (0, 0))
        yield tf.constant(np.pad(images, padding)), len(images)
