"""What a test protocol takes of an image: crops at fixed places, or the whole of it.

An image is decoded once, rescaled once for each scale, and all crops are cut out of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import tensorflow as tf

from cnnkit.data.augmentation import CORNERS_AND_CENTER as CORNERS_AND_CENTER
from cnnkit.data.augmentation import Augmentation
from cnnkit.data.crops import ReadWindow, crop_image, crop_window, slice_of
from cnnkit.data.dataset import Split
from cnnkit.data.decode import window_reader
from cnnkit.data.pipeline import BATCHES_AHEAD, parallel_map
from cnnkit.errors import UsageError

# Top and left of each crop as parts of the free play.
CENTER = ((0.5, 0.5),)
GRID = tuple(product((0.0, 0.25, 0.5, 0.75, 1.0), repeat=2))


@dataclass(frozen=True)
class CropSpec:
    """What is taken of an image at one scale.

    Attributes:
        scale: Shorter side of the rescaled image in pixels.
        size: Side of the crops; None takes the whole image, uncropped.
        places: Top and left of each crop as parts, 0..1, of the free play.
        square: Whether the crops stay inside the central square.

    Raises:
        UsageError: If the crops are larger than the rescaled image.

    Example:
        >>> CropSpec(256, 224, CORNERS_AND_CENTER, square=True).count
        5
        >>> CropSpec(200, 224)
        Traceback (most recent call last):
        cnnkit.errors.UsageError: The image is smaller than the network at this scale. Expected: a
            shorter side of at least 224. Received: 200.
    """

    scale: int
    size: int | None = None
    places: tuple[tuple[float, float], ...] = CENTER
    square: bool = False

    def __post_init__(self) -> None:
        least = self.size or 1
        if self.scale < least:
            raise UsageError(
                "The image is smaller than the network at this scale",
                expected=f"a shorter side of at least {least}",
                received=self.scale,
            )

    @property
    def count(self) -> int:
        """The number of crops; the whole image counts as one."""
        return len(self.places) if self.size else 1


def extract_crops(read: ReadWindow, sides: tf.Tensor, view: CropSpec) -> tf.Tensor:
    """Returns a view of an image.

    Rescaled as `cnnkit.data.resize_shorter_side` does it, which is how networks are trained.

    Args:
        read: Gives windows of the image.
        sides: (2,) int32, of the image.
        view: What to take of it.

    Returns:
        (count, size, size, 3) float32 RGB 0..255, or the whole image, (1, h, w, 3).

    Example:
        >>> image = tf.zeros((30, 40, 3), tf.uint8)
        >>> extract_crops(slice_of(image), tf.shape(image)[:2], CropSpec(60)).shape
        TensorShape([1, 60, 80, 3])
    """
    if view.size is None:
        scaled, _ = crop_window(sides, Augmentation(view.scale), {})
        return crop_image(read, sides, scaled, tf.zeros((2,), tf.int32), scaled)[None]
    scale = (view.scale, view.scale)
    how = Augmentation(view.size, scale=scale, crop="ten", square=view.square)
    # All places at once, and a loop in the graph: building it crop by crop takes seconds.
    scaled, offsets = crop_window(sides, how, {"position": tf.constant(view.places, tf.float64)})
    # Of the rescaled image only what the crops cover together is computed.
    first, last = tf.reduce_min(offsets, axis=0), tf.reduce_max(offsets, axis=0)
    region = slice_of(crop_image(read, sides, scaled, first, last - first + view.size))
    side = (view.size, view.size)
    crops = tf.map_fn(
        lambda offset: region(offset, side), offsets - first, fn_output_signature=tf.float32
    )
    return tf.ensure_shape(crops, (view.count, *side, 3))


def crop_batches(
    split: Split, views: Sequence[CropSpec], *, images: int, first: int = 0
) -> tf.data.Dataset:
    """Reads every image of a split once, in its order, and takes the views of it.

    Args:
        split: Where the images come from.
        views: What to take; each gives one tensor.
        images: Images in a batch; whole images come one by one.
        first: Images to leave out at the beginning, without reading them.

    Returns:
        A dataset of tuples with a tensor for each view: (n, count, size, size, 3) float32 RGB
        0..255, or (1, 1, h, w, 3) for whole images, then n is 1; the last n may be smaller.

    Raises:
        UsageError: If a batch would hold no image.

    Example:
        >>> from cnnkit.data import load_dataset
        >>> digits = load_dataset("digits").splits["test"]
        >>> views = [CropSpec(10, 8, CORNERS_AND_CENTER), CropSpec(12, 8)]
        >>> ten, twelve = next(iter(crop_batches(digits, views, images=4)))
        >>> ten.shape, twelve.shape
        (TensorShape([4, 5, 8, 8, 3]), TensorShape([4, 1, 8, 8, 3]))
    """
    if images < 1:
        raise UsageError("A batch holds images", expected="at least 1", received=images)

    def load(index):
        if len(views) == 1 and split.encoded is not None:
            sides, read = window_reader(split.encoded(index))
        else:
            image = split.read(index)
            sides, read = tf.shape(image)[:2], slice_of(image)
        return tuple(extract_crops(read, sides, view) for view in views)

    dataset = parallel_map(tf.data.Dataset.range(first, len(split)), load)
    whole = any(view.size is None for view in views)
    return dataset.batch(1 if whole else images).prefetch(BATCHES_AHEAD)
