"""Whether a network relates the same parts of different objects (Zeiler & Fergus 2013, sec. 4.4).

Part of an object is hidden in every image, and the change of the features is looked at: where it
has the same signs in all images, the network treats the part alike wherever it stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import keras
import numpy as np
import tensorflow as tf

from cnnkit.errors import DataError, UsageError
from cnnkit.models.graph import build_graph
from cnnkit.models.receptive_field import Box
from cnnkit.visualize.forward import as_image_batch, check_supports_rule, check_weights, forward_to

GRAY = 128.0
RANDOM = "random"


@dataclass(frozen=True)
class Correspondence:
    """How alike the features of a layer change when the same part is hidden in several images.

    Of two images, the distance is the part of the units, 0..1, whose changes differ in sign, where
    no change is a sign of its own. Lower is a tighter correspondence.

    Attributes:
        layer: Name of the layer.
        parts: Names of the parts, and last `"random"`.
        distances: For every part, the distances of all unordered pairs of images, in the order of
            `itertools.combinations`; for `"random"` those of every draw, one after the other.
        unchanged: For every part the fraction of units, 0..1, that hiding it does not change.
        units: Units of the layer.
    """

    layer: str
    parts: tuple[str, ...]
    distances: tuple[np.ndarray, ...]
    unchanged: tuple[float, ...]
    units: int

    def mean(self, part: str) -> float:
        """Returns the mean over pairs, what Table 1 of the paper seems to hold."""
        return float(self._of(part).mean())

    def std(self, part: str) -> float:
        """Returns the standard deviation over pairs."""
        return float(self._of(part).std())

    def delta(self, part: str) -> float:
        """Returns the sum over ordered pairs i != j, as the paper writes Delta.

        Of the places drawn at random, the mean of each draw's.
        """
        draws = len(self._of(part)) / len(self._of(self.parts[0]))
        return float(2 * self._of(part).sum() / draws)

    def _of(self, part: str) -> np.ndarray:
        return self.distances[self.parts.index(part)]


def correspondence(
    model: keras.Model,
    images: np.ndarray,
    boxes: Mapping[str, Sequence[Box]],
    layers: Sequence[str],
    *,
    fill: float = GRAY,
    draws: int = 10,
    seed: int = 0,
    atol: float = 0.0,
    batch_size: int = 16,
) -> dict[str, Correspondence]:
    """Hides the same part in every image, and tells how alike the features change.

    With x the features of an image and x' those of the image with the part hidden, eps = x - x';
    of every two images the Hamming distance of sign(eps), divided by the number of units.

    Args:
        model: As `cnnkit.visualize.deconvnet.project` takes it.
        images: (n, h, w, 3), n of at least 2, as the model takes them.
        boxes: Where each part is, by its name: one box for every image, in its pixels.
        layers: Names of layers; the paper's are 5 and 7.
        fill: What hides a part, 0..255.
        draws: How often a place is drawn at random in every image instead: of the size of one of
            its parts, anywhere in the image.
        seed: Of these draws.
        atol: Changes up to this count as none.
        batch_size: Images at a time.

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
    _check_boxes(images, boxes)
    wanted = [graph.node(layer) for layer in layers]
    nodes = graph.ancestors(*wanted)
    check_supports_rule(nodes, "gradient")
    check_weights(nodes)
    look = tf.function(lambda shown: forward_to(nodes, shown, wanted), autograph=False)

    hidden = [list(boxes[part]) for part in boxes]
    hidden += _random_places(images.shape[1:3], list(boxes.values()), draws, seed)
    # For every layer and image, (hidden, units): a byte each.
    signs: list[list[np.ndarray]] = [[] for _ in layers]
    for i, image in enumerate(images):
        shown = [_without(image, places[i], fill) for places in hidden]
        changes = _signs(look, image, shown, batch_size, atol)
        for of_layer, layer, change in zip(signs, layers, changes, strict=True):
            if change is None:
                raise DataError(
                    f"Layer {layer!r} answers image {i} with values that are not finite",
                    hint="Look at the image and at the weights up to that layer",
                )
            of_layer.append(change)
    names = tuple(boxes)
    return {
        layer: _compared(layer, names, np.stack(of_layer))
        for layer, of_layer in zip(layers, signs, strict=True)
    }


def _signs(look, image: np.ndarray, shown: list[np.ndarray], batch_size: int, atol: float):
    """Returns for every layer the signs of the changes, (shown, units), or None without sense."""
    # All in batches of one size: a sum's last bit may depend on the size, and the sign of a change
    # that is none would be chance.
    every = [image, *shown]
    every += [image] * (-len(every) % batch_size)
    before, parts = None, []
    for start in range(0, len(every), batch_size):
        answers = look(tf.constant(np.stack(every[start : start + batch_size])))
        flat = [answer.numpy().reshape(len(answer), -1).astype(np.float32) for answer in answers]
        before = [one[:1] for one in flat] if before is None else before
        parts.append([_sign(one, other, atol) for one, other in zip(before, flat, strict=True)])
    whole = []
    for of_layer in zip(*parts, strict=True):
        broken = any(part is None for part in of_layer)
        whole.append(None if broken else np.concatenate(of_layer)[1 : 1 + len(shown)])
    return whole


def _sign(before: np.ndarray, after: np.ndarray, atol: float) -> np.ndarray | None:
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return None
    change = before - after
    return np.sign(np.where(np.abs(change) <= atol, 0, change)).astype(np.int8)


def _compared(layer: str, parts: tuple[str, ...], signs: np.ndarray) -> Correspondence:
    """Compares signs (images, hidden places, units); the places after the parts are random."""
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


def _without(image: np.ndarray, box: Box, fill: float) -> np.ndarray:
    hidden = image.copy()
    hidden[box.slices] = fill
    return hidden


def _random_places(
    sides: Sequence[int], parts: Sequence[Sequence[Box]], draws: int, seed: int
) -> list[list[Box]]:
    """Returns for every draw a box in each image, of the size of one of its parts."""
    random = np.random.default_rng(seed)
    places = []
    for _ in range(draws):
        # One part for all images, as their sizes belong together.
        part = parts[random.integers(len(parts))]
        places.append([])
        for box in part:
            size = box.bottom - box.top, box.right - box.left
            top, left = (
                int(random.integers(side - length + 1))
                for side, length in zip(sides, size, strict=True)
            )
            places[-1].append(Box(top, left, top + size[0], left + size[1]))
    return places


def _check_boxes(images: np.ndarray, boxes: Mapping[str, Sequence[Box]]) -> None:
    if len(images) < 2:
        raise UsageError(
            "Correspondence is between images", expected="at least 2", received=len(images)
        )
    if not boxes:
        raise UsageError("There is no part to hide", expected="boxes by the name of the part")
    height, width = images.shape[1:3]
    for part, places in boxes.items():
        if part == RANDOM:
            raise UsageError(f"No part can be called {RANDOM!r}: so are the places by chance")
        if len(places) != len(images):
            raise UsageError(
                f"Part {part!r} has not one box for every image",
                expected=len(images),
                received=len(places),
            )
        for i, box in enumerate(places):
            inside = 0 <= box.top < box.bottom <= height and 0 <= box.left < box.right <= width
            if not inside:
                raise UsageError(
                    f"Part {part!r} does not lie in image {i}",
                    expected=f"a box within {height} x {width} pixels",
                    received=box,
                )
