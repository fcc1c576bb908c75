"""Decoding of image files, as TensorFlow graph functions.

Training, evaluation and the exported model call the same functions, so that they get the same
pixels. `augment_bytes` decodes no more of a JPEG file than its crop needs. Without `fast_decode`
the pixels are those of decoding the whole file first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from cnnkit._untrusted.images import IMAGE_STARTS, check_image_file, max_image_pixels
from cnnkit.data.animation import first_gif_frame
from cnnkit.data.augmentation import PARAMETERS, Augmentation
from cnnkit.data.crops import (
    ReadWindow,
    array_window_reader,
    augment_image,
    crop_image,
    crop_window,
    flip_and_color,
)
from cnnkit.data.file_functions import TRACED_FUNCTIONS, OfBytes, call_traced, contains
from cnnkit.data.formats import (
    CMYK_CHANNELS,
    DEFAULT_DECODING,
    FORMATS,
    Decoding,
    decode_other,
    inspect_jpeg,
)
from cnnkit.data.graph_checks import failed_check
from cnnkit.data.orientation import (
    UPRIGHT,
    jpeg_orientation,
    png_orientation,
    stored_window,
    upright,
    upright_sides,
    webp_orientation,
)
from cnnkit.errors import DataError

# Fractions of its sides at which a JPEG decoder returns an image for less work than the whole.
REDUCTIONS = (1, 2, 4, 8)


def decode_image(
    data: tf.Tensor,
    decoding: Decoding = DEFAULT_DECODING,
    *,
    portable: bool = True,
    max_pixels: int | None = None,
) -> tf.Tensor:
    """Decode one encoded image to RGB.

    Gray becomes three equal channels, and an animation is reduced to its first frame. What happens
    to the orientation in EXIF data and to transparency is in `decoding`.

    Args:
        data: () string, the bytes of a JPEG, PNG, BMP, GIF or WebP file.
        decoding: Background and orientation; by default images are turned upright, and white is
            behind transparent pixels.
        portable: Whether a graph that calls this function can be saved and run without Python.
            False makes it much smaller, which suits an input pipeline.
        max_pixels: Largest number of pixels, from the header of the file. None is 50 million, or
            the value of the environment variable CNNKIT_MAX_IMAGE_PIXELS.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        tf.errors.InvalidArgumentError: If the bytes are not such an image, or it is too large.

    Example:
        >>> import tensorflow as tf
        >>> from cnnkit.data import decode_image
        >>> png = tf.io.encode_png(tf.zeros((4, 6, 1), tf.uint8))
        >>> decode_image(png).shape
        TensorShape([4, 6, 3])
    """
    file = _inspect(data, decoding, portable, max_pixels)
    image = tf.cond(
        file.is_jpeg,
        lambda: upright(tf.io.decode_jpeg(file.data, channels=3), file.orientation),
        lambda: file.image,
    )
    return tf.ensure_shape(image, (None, None, 3))


# What `find_traits` looks for in a file.
TRAITS = ("with EXIF orientation", "with transparency", "of four colors (CMYK)", "animated")


def find_traits(data: tf.Tensor, max_pixels: int | None = None) -> tf.Tensor:
    """Find what a file holds besides upright, opaque pixels of one picture, (4,) bool: `TRAITS`.

    Args:
        data: () string, the bytes of a file that `decode_image` can decode.
        max_pixels: As in `decode_image`.
    """

    def of_jpeg() -> tf.Tensor:
        turned = jpeg_orientation(data) != UPRIGHT
        four_colors = tf.io.extract_jpeg_shape(data)[2] == CMYK_CHANNELS
        return tf.stack([turned, tf.constant(False), four_colors, tf.constant(False)])

    def of_other() -> tf.Tensor:
        on_white, on_black = (
            decode_image(data, Decoding((level,) * 3), max_pixels=max_pixels) for level in (255, 0)
        )
        is_webp = tf.strings.substr(data, 0, 4) == b"RIFF"
        is_png = tf.strings.substr(data, 0, 4) == b"\x89PNG"
        turned = (is_webp & (webp_orientation(data) != UPRIGHT)) | (
            is_png & (png_orientation(data) != UPRIGHT)
        )
        animated = (
            (is_webp & contains(data, b"ANMF"))
            | (is_png & contains(data, b"acTL"))
            | tf.cond(
                tf.strings.substr(data, 0, 3) == b"GIF",
                lambda: contains(first_gif_frame(data).rest, b"\x21\xf9\x04"),
                lambda: tf.constant(False),
            )
        )
        transparent = tf.reduce_any(on_white != on_black)
        return tf.stack([turned, transparent, tf.constant(False), animated])

    return tf.cond(tf.io.is_jpeg(data), of_jpeg, of_other)


def resize_shorter_side(image: tf.Tensor, size: int) -> tf.Tensor:
    """Rescale the shorter side to `size` and crop the center (Krizhevsky 2012, section 2).

    Bilinear with antialiasing; the papers do not name their filter.

    Args:
        image: (h, w, 3), any number type, RGB 0..255.
        size: Side of the result in pixels.

    Returns:
        (size, size, 3) float32 RGB 0..255.

    Example:
        >>> resize_shorter_side(tf.zeros((40, 60, 3)), 32).shape
        TensorShape([32, 32, 3])
    """
    return augment_image(image, Augmentation(size), {})


def augment_bytes(
    data: tf.Tensor,
    augmentation: Augmentation,
    parameters: Mapping[str, tf.Tensor],
    decoding: Decoding = DEFAULT_DECODING,
    *,
    portable: bool = False,
    max_pixels: int | None = None,
) -> tf.Tensor:
    """Decode, rescale, crop, mirror and tint one image.

    Args:
        data: () string, the bytes of a file that `cnnkit.data.decode_image` can decode.
        augmentation: The settings.
        parameters: One row of the result of `cnnkit.data.augmentation.sample_augmentation`.
        decoding: As in `decode_image`.
        portable: As in `decode_image`.
        max_pixels: As in `decode_image`.

    Returns:
        (size, size, 3) float32 RGB, 0..255 plus any color noise.

    Raises:
        tf.errors.InvalidArgumentError: If the bytes are not an image, or it is too large.

    Example:
        >>> from cnnkit.data import Augmentation
        >>> file = tf.io.encode_jpeg(tf.zeros((40, 60, 3), tf.uint8))
        >>> augment_bytes(file, Augmentation(32), {}).shape
        TensorShape([32, 32, 3])
    """
    return _augment(_inspect(data, decoding, portable, max_pixels), augmentation, parameters)


def _augment(
    file: _ImageFile, augmentation: Augmentation, parameters: Mapping[str, tf.Tensor]
) -> tf.Tensor:
    scaled, offset = crop_window(file.sides, augmentation, parameters)
    reduction, sides = tf.constant(0), file.sides
    if augmentation.fast_decode:
        fits = tf.constant(REDUCTIONS[1:]) * tf.reduce_min(scaled) <= tf.reduce_min(sides)
        reduction = tf.reduce_sum(tf.cast(file.is_jpeg & fits, tf.int32))
        # The decoder rounds up a side that the reduction does not divide.
        sides = -(-sides // tf.gather(REDUCTIONS, reduction))
    size, fast = augmentation.image_size, augmentation.fast_decode
    read = _window_reader(
        file, sides, lambda window: _decode_window(file.data, window, reduction, fast)
    )
    crop = crop_image(read, sides, scaled, offset, size, fast=fast)
    return flip_and_color(tf.ensure_shape(crop, (size, size, 3)), parameters)


def traced_augment_bytes(
    data: tf.Tensor,
    augmentation: Augmentation,
    parameters: Mapping[str, tf.Tensor],
    decoding: Decoding = DEFAULT_DECODING,
) -> list[tf.Tensor]:
    """Return `augment_bytes`, and height and width of the whole image, in one operation.

    Other entries of `parameters` are ignored.
    """
    names = tuple(name for name in PARAMETERS if name in parameters)
    function = _augmenter(augmentation, names, decoding, max_image_pixels())
    return call_traced(function, data, *(parameters[name] for name in names))


@functools.lru_cache(TRACED_FUNCTIONS)
def _augmenter(
    how: Augmentation, names: tuple[str, ...], decoding: Decoding, max_pixels: int
) -> Callable[..., tuple[tf.Tensor, ...]]:
    def augment(data: tf.Tensor, *values: tf.Tensor) -> tuple[tf.Tensor, ...]:
        file = _inspect(data, decoding, False, max_pixels)
        return _augment(file, how, dict(zip(names, values, strict=True))), file.sides

    return augment


def traced_decode_image(data: tf.Tensor, decoding: Decoding = DEFAULT_DECODING) -> tf.Tensor:
    """Do as `decode_image` in one operation, for an input pipeline."""
    return call_traced(_image_decoder(decoding, max_image_pixels()), data)[0]


@functools.lru_cache(TRACED_FUNCTIONS)
def _image_decoder(decoding: Decoding, max_pixels: int) -> OfBytes:
    return functools.partial(decode_image, decoding=decoding, portable=False, max_pixels=max_pixels)


def file_window_reader(
    data: tf.Tensor,
    decoding: Decoding = DEFAULT_DECODING,
    *,
    portable: bool = False,
    max_pixels: int | None = None,
) -> tuple[tf.Tensor, ReadWindow]:
    """Return the size of an encoded image and a function that decodes its windows.

    Args:
        data: () string, the bytes of a file that `cnnkit.data.decode_image` can decode.
        decoding: As in `decode_image`.
        portable: As in `decode_image`.
        max_pixels: As in `decode_image`.

    Returns:
        Height and width, (2,) int32, and the reader of windows.

    Raises:
        tf.errors.InvalidArgumentError: If the bytes are not an image, or it is too large.
    """
    file = _inspect(data, decoding, portable, max_pixels)
    decode_window = functools.partial(tf.io.decode_and_crop_jpeg, file.data, channels=3)
    return file.sides, _window_reader(file, file.sides, decode_window)


def read_image_file(
    file: str | Path | bytes, decoding: Decoding = DEFAULT_DECODING, *, name: str | None = None
) -> tf.Tensor:
    """Decode an image file.

    Args:
        file: The file, or its bytes.
        decoding: As in `decode_image`.
        name: Name of the image in errors; None for the path.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        DataError: If it is too large, or not an image.
    """
    if not isinstance(file, bytes):
        check_image_file(file)
        file, name = Path(file).read_bytes(), name or str(file)
    try:
        return decode_image(tf.constant(file), decoding)
    except tf.errors.InvalidArgumentError as error:
        damaged = file.startswith(IMAGE_STARTS)
        name = name or "The file"
        raise DataError(
            f"{name} is damaged or incomplete" if damaged else f"{name} must be an image",
            expected=f"a {'whole ' if damaged else ''}{FORMATS} file",
            received=failed_check(error),
        ) from error


class _ImageFile(NamedTuple):
    """An encoded image before its pixels are needed.

    Attributes:
        is_jpeg: () bool.
        data: () string, the bytes to decode.
        image: (h, w, 3) uint8, the upright pixels of a file that is no JPEG.
        sides: (2,) int32, height and width of the upright image.
        orientation: () int32, EXIF orientation of the pixels of a JPEG file.
    """

    is_jpeg: tf.Tensor
    data: tf.Tensor
    image: tf.Tensor
    sides: tf.Tensor
    orientation: tf.Tensor


def _inspect(
    data: tf.Tensor, decoding: Decoding, portable: bool, max_pixels: int | None = None
) -> _ImageFile:
    data = tf.convert_to_tensor(data, tf.string)
    limit = max_image_pixels() if max_pixels is None else max_pixels

    def inspect_other() -> tuple[tf.Tensor, ...]:
        # Other formats have to be decoded to learn their size.
        image = decode_other(data, decoding, limit, portable=portable)
        return data, image, tf.shape(image)[:2], tf.constant(UPRIGHT)

    def inspect_jpeg_file() -> tuple[tf.Tensor, ...]:
        decodable, stored, orientation = inspect_jpeg(data, decoding, limit, portable=portable)
        pixels = tf.zeros((0, 0, 3), tf.uint8)
        return decodable, pixels, upright_sides(stored, orientation), orientation

    is_jpeg = tf.io.is_jpeg(data)
    return _ImageFile(is_jpeg, *tf.cond(is_jpeg, inspect_jpeg_file, inspect_other))


def _window_reader(
    file: _ImageFile, sides: tf.Tensor, decode_window: Callable[[tf.Tensor], tf.Tensor]
) -> ReadWindow:
    """Return a function that reads windows of an upright image of these sides."""

    def read(begin: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        def read_jpeg() -> tf.Tensor:
            window = tf.concat(stored_window(begin, size, sides, file.orientation), axis=0)
            return upright(decode_window(window), file.orientation)

        return tf.cond(
            file.is_jpeg, read_jpeg, lambda: array_window_reader(file.image)(begin, size)
        )

    return read


def _decode_window(
    data: tf.Tensor, window: tf.Tensor, reduction: tf.Tensor, fast: bool
) -> tf.Tensor:
    """Decode a window, (4,) int32, of a JPEG file, at a reduced size if `fast`."""
    if not fast:
        return tf.io.decode_and_crop_jpeg(data, window, channels=3)

    def decode_reduced(ratio: int) -> Callable[[], tf.Tensor]:
        return lambda: tf.io.decode_and_crop_jpeg(
            data,
            window,
            channels=3,
            ratio=ratio,
            dct_method="INTEGER_FAST",
            fancy_upscaling=False,
        )

    return tf.switch_case(reduction, [decode_reduced(ratio) for ratio in REDUCTIONS])
