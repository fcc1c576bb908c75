"""Crops at fixed positions of each image, or whole images, for test protocols.

An image is decoded once and rescaled once per scale, and all crops are taken from that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import tensorflow as tf

from cnnkit._untrusted.images import max_image_pixels
from cnnkit.data.augmentation import CORNERS_AND_CENTER as CORNERS_AND_CENTER
from cnnkit.data.augmentation import Augmentation
from cnnkit.data.crops import ReadWindow, array_window_reader, crop_image, crop_window
from cnnkit.data.dataset import Split
from cnnkit.data.decode import decode_image, file_window_reader
from cnnkit.data.file_functions import TRACED_FUNCTIONS, call_traced
from cnnkit.data.formats import Decoding
from cnnkit.data.pipeline import BATCHES_AHEAD, parallel_map
from cnnkit.errors import UsageError

# Top and left of each crop as fractions of the free range.
CENTER = ((0.5, 0.5),)
GRID = tuple(product((0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.25, 0.5, 0.75, 1.0)))


@dataclass(frozen=True)
class CropSpec:
    """Crops to extract from an image at one scale.

    Attributes:
        scale: Shorter side of the rescaled image in pixels.
        size: Side of the crops in pixels; None takes the whole image, uncropped.
        positions: Top and left of each crop as fractions, 0..1, of the free range.
        central_square: Whether the crops stay inside the central square.

    Raises:
        UsageError: If the crops are larger than the rescaled image.

    Example:
        >>> CropSpec(256, 224, CORNERS_AND_CENTER, central_square=True).count
        5
        >>> CropSpec(200, 224)
        Traceback (most recent call last):
        cnnkit.errors.UsageError: `scale` is smaller than the crop. Expected: a shorter side of at
            least 224. Received: 200.
    """

    scale: int
    size: int | None = None
    positions: tuple[tuple[float, float], ...] = CENTER
    central_square: bool = False

    def __post_init__(self) -> None:
        least = self.size or 1
        if self.scale < least:
            raise UsageError(
                "`scale` is smaller than the crop",
                expected=f"a shorter side of at least {least}",
                received=self.scale,
            )

    @property
    def count(self) -> int:
        """Number of crops; a whole image counts as one."""
        return len(self.positions) if self.size else 1


def extract_crops(read: ReadWindow, sides: tf.Tensor, spec: CropSpec) -> tf.Tensor:
    """Extract the crops of one image at one scale.

    The image is rescaled as in `cnnkit.data.resize_shorter_side`, which training uses too.

    Args:
        read: Function that reads windows of the image.
        sides: (2,) int32, height and width of the image.
        spec: The crops.

    Returns:
        (count, size, size, 3) float32 RGB 0..255, or the whole image, (1, h, w, 3).

    Example:
        >>> image = tf.zeros((30, 40, 3), tf.uint8)
        >>> extract_crops(array_window_reader(image), tf.shape(image)[:2], CropSpec(60)).shape
        TensorShape([1, 60, 80, 3])
    """
    if spec.size is None:
        scaled, _ = crop_window(sides, Augmentation(spec.scale), {})
        return crop_image(read, sides, scaled, tf.zeros((2,), tf.int32), scaled)[None]
    augmentation = Augmentation(
        spec.size,
        scale=(spec.scale, spec.scale),
        crop="ten",
        central_square=spec.central_square,
    )
    # All positions at once and a loop in the graph: tracing crop by crop takes seconds.
    positions = {"position": tf.constant(spec.positions, tf.float64)}
    scaled, offsets = crop_window(sides, augmentation, positions)
    # Of the rescaled image only the region that the crops cover together is computed.
    first, last = tf.reduce_min(offsets, axis=0), tf.reduce_max(offsets, axis=0)
    region = array_window_reader(crop_image(read, sides, scaled, first, last - first + spec.size))
    side = (spec.size, spec.size)
    crops = tf.map_fn(
        lambda offset: region(offset, side), offsets - first, fn_output_signature=tf.float32
    )
    return tf.ensure_shape(crops, (spec.count, *side, 3))


def crop_batches(
    split: Split, specs: Sequence[CropSpec], *, batch_size: int, start: int = 0
) -> tf.data.Dataset:
    """Read each image of a split once, in order, and extract its crops.

    Args:
        split: The images.
        specs: The crops; each spec gives one tensor.
        batch_size: Images in a batch; with whole images it is always 1.
        start: Index of the first image; those before it are not read.

    Returns:
        A dataset of tuples with one tensor per spec: (n, count, size, size, 3) float32 RGB 0..255,
        or (1, 1, h, w, 3) for whole images, where n is 1. The last n may be smaller.

    Raises:
        UsageError: If `batch_size` is less than 1.

    Example:
        >>> from cnnkit.data import load_dataset
        >>> digits = load_dataset("digits").splits["test"]
        >>> specs = [CropSpec(10, 8, CORNERS_AND_CENTER), CropSpec(12, 8)]
        >>> at_ten, at_twelve = next(iter(crop_batches(digits, specs, batch_size=4)))
        >>> at_ten.shape, at_twelve.shape
        (TensorShape([4, 5, 8, 8, 3]), TensorShape([4, 1, 8, 8, 3]))
    """
    if batch_size < 1:
        raise UsageError(
            "`batch_size` must be positive", expected="at least 1", received=batch_size
        )

    def load(index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        if split.load_bytes is None:
            return _crops_of_image(split.load_image(index), specs)
        extract = _file_cropper(tuple(specs), split.decoding, max_image_pixels())
        return tuple(call_traced(extract, split.load_bytes(index)))

    dataset = parallel_map(tf.data.Dataset.range(start, len(split)), load)
    has_whole = any(spec.size is None for spec in specs)
    return dataset.batch(1 if has_whole else batch_size).prefetch(BATCHES_AHEAD)


def _crops_of_image(image: tf.Tensor, specs: Sequence[CropSpec]) -> tuple[tf.Tensor, ...]:
    sides, read = tf.shape(image)[:2], array_window_reader(image)
    return tuple(extract_crops(read, sides, spec) for spec in specs)


@functools.lru_cache(TRACED_FUNCTIONS)
def _file_cropper(
    specs: tuple[CropSpec, ...], decoding: Decoding, max_pixels: int
) -> Callable[[tf.Tensor], tuple[tf.Tensor, ...]]:
    def extract(data: tf.Tensor) -> tuple[tf.Tensor, ...]:
        if len(specs) > 1:
            image = decode_image(data, decoding, portable=False, max_pixels=max_pixels)
            return _crops_of_image(image, specs)
        sides, read = file_window_reader(data, decoding, max_pixels=max_pixels)
        return (extract_crops(read, sides, specs[0]),)

    return extract
