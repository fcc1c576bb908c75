"""Correspondence of object parts between images (Zeiler & Fergus 2013, section 4.3).

The same part of an object is occluded in every image. If the change of the features has the same
signs in all images, the model represents the part in the same way wherever it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import keras
import numpy as np
import tensorflow as tf

from cnnkit.errors import UsageError
from cnnkit.models.graph import build_graph
from cnnkit.models.model_input import gray_level
from cnnkit.models.receptive_field import Box
from cnnkit.visualize.argument_checks import check_batch_size, check_names, check_whole_number
from cnnkit.visualize.forward import as_image_batch, check_weights, forward_to, non_finite_error

RANDOM = "random"


@dataclass(frozen=True)
class Correspondence:
    """Distances between the feature changes of images in which the same part is occluded.

    The distance of two images is the fraction of units, 0..1, whose changes differ in sign; no
    change counts as a third sign. A lower distance is a tighter correspondence.

    Attributes:
        layer: Name of the layer.
        parts: Names of the parts, and `"random"` last.
        distances: For every part, the distances of all unordered pairs of images, in the order of
            `itertools.combinations`; for `"random"` those of every draw, one after the other.
        unchanged: For every part the fraction of units, 0..1, that its occlusion does not change.
        units: Number of units in the layer.
    """

    layer: str
    parts: tuple[str, ...]
    distances: tuple[np.ndarray, ...]
    unchanged: tuple[float, ...]
    units: int

    def mean(self, part: str) -> float:
        """Returns the mean over pairs, apparently the number in Table 1 of the paper."""
        return float(self._pairs(part).mean())

    def std(self, part: str) -> float:
        """Returns the standard deviation over pairs."""
        return float(self._pairs(part).std())

    def delta(self, part: str) -> float:
        """Returns the sum over ordered pairs i != j, the paper's Delta.

        For `"random"` it is the mean over the draws.
        """
        draws = len(self._pairs(part)) / len(self._pairs(self.parts[0]))
        return float(2 * self._pairs(part).sum() / draws)

    def _pairs(self, part: str) -> np.ndarray:
        return self.distances[self.parts.index(part)]


def correspondence(
    model: keras.Model,
    images: np.ndarray,
    boxes: Mapping[str, Sequence[Box]],
    layers: Sequence[str],
    *,
    fill: float | None = None,
    draws: int = 10,
    seed: int = 0,
    atol: float = 0.0,
    batch_size: int = 16,
) -> dict[str, Correspondence]:
    """Occludes the same part in every image, and compares the changes of the features.

    With x the features of an image and x' those of the image with the part occluded, eps = x - x'.
    The distance of two images is the Hamming distance of sign(eps), divided by the number of units.

    Args:
        model: A functional or sequential model over images.
        images: (n, h, w, 3), n of at least 2, as the model takes them.
        boxes: The position of each part by its name: one box for every image, in pixels.
        layers: Names of layers; the paper uses layers 5 and 7.
        fill: Gray value of the occluded part; None takes the middle of the range that the model
            expects, or that the images have: 128, 0.5 or 0.
        draws: Number of random draws. Each draw occludes a box at random in every image, of the
            size of one of its parts.
        seed: Seed of the draws.
        atol: Changes up to this absolute value count as none.
        batch_size: Images at a time.

    Returns:
        By layer, one `Correspondence`.

    Raises:
        UsageError: If there are too few images or no parts, a box does not lie in its image or a
            layer does not exist.
        DataError: If features are not finite.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import Box, correspondence
        >>> images = np.random.default_rng(0).uniform(0, 255, (3, 64, 64, 3))
        >>> model = zfnet(input_shape=(64, 64, 3), include_top=False)
        >>> eyes = [Box(10, 10, 20, 20), Box(12, 8, 22, 18), Box(9, 11, 19, 21)]
        >>> found = correspondence(model, images, {"eye": eyes}, ["conv5"])["conv5"]
        >>> found.parts, len(found.distances[0])
        (('eye', 'random'), 3)
    """
    graph = build_graph(model)
    images = as_image_batch(graph, images)
    gray = gray_level(graph, images) if fill is None else fill
    _check_boxes(images, boxes)
    check_names("layers", layers)
    check_batch_size(batch_size)
    check_whole_number("draws", draws, least=0)
    wanted = [graph.node(layer) for layer in layers]
    nodes = graph.ancestors(*wanted)
    check_weights(nodes)
    forward = tf.function(lambda batch: forward_to(nodes, batch, wanted), autograph=False)

    places = [list(boxes[part]) for part in boxes]
    places += _random_boxes(images.shape[1:3], list(boxes.values()), draws, seed)
    # For every layer and image, (places, units): a byte each.
    signs: list[list[np.ndarray]] = [[] for _ in layers]
    for i, image in enumerate(images):
        occluded = [_occlude(image, place[i], gray) for place in places]
        changes = _change_signs(forward, image, occluded, batch_size, atol)
        for layer_signs, layer, change in zip(signs, layers, changes, strict=True):
            if change is None:
                raise non_finite_error(layer, i)
            layer_signs.append(change)
    names = tuple(boxes)
    return {
        layer: _correspondence_of_signs(layer, names, np.stack(layer_signs))
        for layer, layer_signs in zip(layers, signs, strict=True)
    }


def _change_signs(
    forward: Callable[[tf.Tensor], Sequence[tf.Tensor]],
    image: np.ndarray,
    occluded: Sequence[np.ndarray],
    batch_size: int,
    atol: float,
) -> list[np.ndarray | None]:
    """Returns the signs of each layer's changes, (occluded, units), or None if not finite."""
    # All batches have one size: the last bit of a sum may depend on the batch size, and the sign of
    # a change of zero would become random.
    batch_images = [image, *occluded]
    batch_images += [image] * (-len(batch_images) % batch_size)
    before, batches = None, []
    for start in range(0, len(batch_images), batch_size):
        outputs = forward(tf.constant(np.stack(batch_images[start : start + batch_size])))
        flat = [output.numpy().reshape(len(output), -1).astype(np.float32) for output in outputs]
        before = [one[:1] for one in flat] if before is None else before
        batches.append([_sign(one, other, atol) for one, other in zip(before, flat, strict=True)])
    signs: list[np.ndarray | None] = []
    for layer_signs in zip(*batches, strict=True):
        finite = all(part is not None for part in layer_signs)
        signs.append(np.concatenate(layer_signs)[1 : 1 + len(occluded)] if finite else None)
    return signs


def _sign(before: np.ndarray, after: np.ndarray, atol: float) -> np.ndarray | None:
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return None
    change = before - after
    return np.sign(np.where(np.abs(change) <= atol, 0, change)).astype(np.int8)


def _correspondence_of_signs(
    layer: str, parts: tuple[str, ...], signs: np.ndarray
) -> Correspondence:
    """Compares signs (images, places, units); the places after the parts are random."""
    distances = [
        np.array([(one != other).mean() for one, other in combinations(signs[:, place], 2)])
        for place in range(signs.shape[1])
    ]
    unchanged = (signs == 0).mean(axis=(0, 2))
    count = len(parts)
    if len(distances) > count:
        parts = (*parts, RANDOM)
        distances = [*distances[:count], np.concatenate(distances[count:])]
        unchanged = np.append(unchanged[:count], unchanged[count:].mean())
    return Correspondence(layer, parts, tuple(distances), tuple(unchanged.tolist()), signs.shape[2])


def _occlude(image: np.ndarray, box: Box, fill: float) -> np.ndarray:
    occluded = image.copy()
    occluded[box.slices] = fill
    return occluded


def _random_boxes(
    sides: Sequence[int], parts: Sequence[Sequence[Box]], draws: int, seed: int
) -> list[list[Box]]:
    """Returns for every draw a box in each image, of the size of one of its parts."""
    random = np.random.default_rng(seed)
    boxes: list[list[Box]] = []
    for _ in range(draws):
        # One part for all images, because its sizes belong together.
        part = parts[int(random.integers(len(parts)))]
        boxes.append([])
        for box in part:
            size = box.bottom - box.top, box.right - box.left
            top, left = (
                int(random.integers(side - length + 1))
                for side, length in zip(sides, size, strict=True)
            )
            boxes[-1].append(Box(top, left, top + size[0], left + size[1]))
    return boxes


def _check_boxes(images: np.ndarray, boxes: Mapping[str, Sequence[Box]]) -> None:
    if len(images) < 2:
        raise UsageError("`images` must hold at least 2 images", received=len(images))
    if not boxes:
        raise UsageError("`boxes` must name at least one part")
    height, width = images.shape[1:3]
    for part, places in boxes.items():
        if part == RANDOM:
            raise UsageError(
                f"`boxes` must not name a part {RANDOM!r}: that is the name of the random boxes"
            )
        if len(places) != len(images):
            raise UsageError(
                f"`boxes` must hold one box of part {part!r} for every image",
                expected=len(images),
                received=len(places),
            )
        for i, box in enumerate(places):
            inside = 0 <= box.top < box.bottom <= height and 0 <= box.left < box.right <= width
            if not inside:
                raise UsageError(
                    f"The box of part {part!r} does not lie in image {i}",
                    expected=f"a box within {height} x {width} pixels",
                    received=box,
                )
