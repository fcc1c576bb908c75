"""Decoding of the formats of image files, as TensorFlow graph functions.

TensorFlow's decoders drop transparency, the palette of BMP files and the orientation in EXIF data,
and invert some JPEG files of four colors. The functions here read these from the files.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from cnnkit._untrusted.json_documents import JsonFields
from cnnkit.config import TrainingConfig
from cnnkit.config_values import parse_color
from cnnkit.data.animation import StillImage, first_gif_frame, first_webp_frame
from cnnkit.data.bmp import decode_bmp
from cnnkit.data.file_functions import (
    OfBytes,
    call_function,
    contains,
    jpeg_check,
    png_check,
    split_scans,
)
from cnnkit.data.graph_checks import (
    assert_or_invalid_argument,
    check_sides,
    fits,
    read_head,
    with_dependencies,
)
from cnnkit.data.orientation import (
    EXIF_PREFIX,
    UPRIGHT,
    jpeg_orientation,
    png_orientation,
    upright,
    webp_orientation,
)
from cnnkit.data.png import has_one_chunk, png_sides
from cnnkit.errors import UsageError

FORMATS = "JPEG, PNG, BMP, GIF or WebP"
# A JPEG segment as Adobe writes it into files of four colors, whose values are inverted.
# TensorFlow inverts them only in files that have it. A later segment of the file counts instead.
ADOBE_SEGMENT = b"\xff\xee\0\x0eAdobe\0\x64" + bytes(5)
CMYK_CHANNELS = 4
# Offset of the byte that says which channels a PNG file has.
PNG_COLOR_TYPE = 25
WHITE = (255, 255, 255)
# Pixels that are blended with the background at once.
BLENDED_PIXELS = 1 << 18


@dataclass(frozen=True)
class Decoding:
    """How image files become RGB, in training, evaluation and exported models alike.

    Attributes:
        background: RGB in 0..255 behind transparent and half-transparent pixels. None ignores the
            opacity: every pixel has the color that is stored with it.
        exif_orientation: Whether an image is turned upright as the EXIF data in its file say.

    Raises:
        UsageError: If `background` is not a color.

    Example:
        >>> import tensorflow as tf
        >>> from cnnkit.data import Decoding, decode_image
        >>> glass = tf.io.encode_png(tf.zeros((1, 1, 4), tf.uint8))
        >>> decode_image(glass, Decoding(background=(0, 128, 0)))[0, 0].numpy().tolist()
        [0, 128, 0]
    """

    background: tuple[int, int, int] | None = WHITE
    exif_orientation: bool = True

    def __post_init__(self) -> None:
        color = self.background
        if color is not None and not (
            isinstance(color, tuple)
            and len(color) == 3
            and all(isinstance(level, int) and 0 <= level <= 255 for level in color)
        ):
            raise UsageError(
                "`background` must be None or three integers of 0 to 255", received=repr(color)
            )

    @classmethod
    def from_config(cls, config: TrainingConfig) -> Decoding:
        """Return the decoding of a training run."""
        return cls(parse_color(config.background), config.exif_orientation)

    @classmethod
    def from_dict(
        cls, stored: Mapping[str, Any] | None, origin: str | Path = "`stored`"
    ) -> Decoding:
        """Return what `to_dict` wrote; None stands for a file of version 0.1.0.

        Args:
            stored: The entries.
            origin: Where they were read, for the error message.

        Raises:
            DataError: If an entry is missing, of another type or out of range.
        """
        if stored is None:
            return DECODING_OF_0_1_0
        fields = JsonFields(stored, origin)
        color = fields.integers("background", maximum=255, default=None)
        if color is not None and len(color) != 3:
            raise fields.wrong("background", "null or three integers")
        return cls(color and (color[0], color[1], color[2]), fields.boolean("exif_orientation"))

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes by name, for JSON."""
        background = None if self.background is None else list(self.background)
        return {"background": background, "exif_orientation": self.exif_orientation}


DEFAULT_DECODING = Decoding()
# Version 0.1.0 dropped the opacity and ignored EXIF data, and did not record that.
DECODING_OF_0_1_0 = Decoding(background=None, exif_orientation=False)


def read_orientation(
    data: tf.Tensor, has_exif: tf.Tensor, function: OfBytes, decoding: Decoding, *, portable: bool
) -> tf.Tensor:
    """Return the EXIF orientation of a file, () int32; 1 if it does not count.

    Args:
        data: () string.
        has_exif: () bool, whether the bytes are there that mark EXIF data. Most files do not have
            them, and looking for them takes a fifth of the time of reading the parts of the file.
        function: Reads the orientation.
        decoding: Says whether the orientation counts.
        portable: As in `call_function`.
    """
    if not decoding.exif_orientation:
        return tf.constant(UPRIGHT)
    return tf.cond(
        has_exif,
        lambda: call_function(function, data, portable=portable),
        lambda: tf.constant(UPRIGHT),
    )


def inspect_jpeg(
    data: tf.Tensor, decoding: Decoding, max_pixels: int, *, portable: bool
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return what is needed to decode a JPEG file.

    Args:
        data: () string.
        decoding: Whether the orientation counts.
        max_pixels: Largest number of pixels.
        portable: As in `call_function`.

    Returns:
        The bytes that TensorFlow decodes to the right colors, () string; height and width as they
        are stored, (2,) int32; and the orientation, () int32.

    Raises:
        tf.errors.InvalidArgumentError: If the file is no JPEG file or has too many pixels or
            scans.
    """
    shape = tf.io.extract_jpeg_shape(data)
    scans = split_scans(data)
    pixels = tf.reduce_prod(tf.cast(shape[:2], tf.int64))
    # Most files: one scan, no EXIF data (they are before it), not four colors. The operations for
    # the others are in a branch of their own, so that these files do not wait for them.
    plain = (pixels >= 1) & (pixels <= max_pixels) & (tf.size(scans) == 2)
    plain &= shape[2] != CMYK_CHANNELS
    if decoding.exif_orientation:
        plain &= ~contains(scans[0], EXIF_PREFIX)

    def inspect() -> tuple[tf.Tensor, tf.Tensor]:
        file = call_function(jpeg_check(max_pixels), data, portable=portable)
        decodable = tf.cond(
            shape[2] == CMYK_CHANNELS,
            lambda: tf.strings.join(
                [tf.strings.substr(file, 0, 2), ADOBE_SEGMENT, tf.strings.substr(file, 2, -1)]
            ),
            lambda: file,
        )
        # With several marks of scans the first may be a thumbnail's.
        has_exif = contains(file, EXIF_PREFIX)
        orientation = read_orientation(
            file, has_exif, jpeg_orientation, decoding, portable=portable
        )
        return decodable, orientation

    decodable, orientation = tf.cond(plain, lambda: (data, tf.constant(UPRIGHT)), inspect)
    return decodable, shape[:2], orientation


def decode_other(
    data: tf.Tensor, decoding: Decoding, max_pixels: int, *, portable: bool
) -> tf.Tensor:
    """Decode a file of any format but JPEG, (h, w, 3) uint8 RGB.

    Args:
        data: () string.
        decoding: Background and orientation.
        max_pixels: Largest number of pixels.
        portable: As in `call_function`.

    Raises:
        tf.errors.InvalidArgumentError: If the bytes are not such a file, or it has too many pixels.
    """
    image = tf.cond(
        tf.strings.substr(data, 0, 4) == b"\x89PNG",
        lambda: call_function(_png_decoder(decoding, max_pixels, portable), data, portable=True),
        lambda: call_function(_decoder(decoding, max_pixels), data, portable=portable),
    )
    return tf.ensure_shape(image, (None, None, 3))


@functools.cache
def _png_decoder(decoding: Decoding, max_pixels: int, portable: bool) -> OfBytes:
    """Return a decoder of PNG files."""
    return lambda data: tf.ensure_shape(
        _decode_png(data, decoding, max_pixels, portable=portable), (None, None, 3)
    )


@functools.cache
def _decoder(decoding: Decoding, max_pixels: int) -> OfBytes:
    """Return a decoder of BMP, GIF and WebP files."""

    def decode(data: tf.Tensor) -> tf.Tensor:
        header = read_head(data, 0, 12)
        is_webp = header.matches(0, b"RIFF") & header.matches(8, b"WEBP")
        image = tf.case(
            [
                (
                    header.matches(0, b"BM"),
                    lambda: _flatten(decode_bmp(data, max_pixels), decoding),
                ),
                (header.matches(0, b"GIF"), lambda: _decode_gif(data, decoding, max_pixels)),
                (is_webp, lambda: _decode_webp(data, decoding, max_pixels)),
            ],
            default=_refuse,
        )
        return tf.ensure_shape(image, (None, None, 3))

    return decode


def _refuse() -> tf.Tensor:
    refused = assert_or_invalid_argument(tf.constant(False), f"the file is no {FORMATS} file")
    return with_dependencies(refused, tf.zeros((0, 0, 3), tf.uint8))[0]


def _decode_png(
    data: tf.Tensor, decoding: Decoding, max_pixels: int, *, portable: bool
) -> tf.Tensor:
    file = data
    data = tf.cond(
        fits(png_sides(file), max_pixels) & has_one_chunk(file),
        lambda: file,
        lambda: call_function(png_check(max_pixels), file, portable=portable),
    )

    def decode_color() -> tf.Tensor:
        return tf.io.decode_png(data, channels=3)

    # With fewer channels TensorFlow drops a transparent color of gray and RGB files.
    def decode_opacity() -> tf.Tensor:
        return _flatten(tf.io.decode_png(data, channels=4), decoding)

    if decoding.background is None:
        image = decode_color()
    else:
        # Gray and RGB with opacity, or a color or palette entry that is transparent.
        color_type = tf.strings.substr(data, PNG_COLOR_TYPE, 1)
        has_opacity = (color_type == b"\x04") | (color_type == b"\x06") | contains(data, b"tRNS")
        image = tf.cond(has_opacity, decode_opacity, decode_color)
    return upright(
        image,
        read_orientation(
            data, contains(data, b"eXIf"), png_orientation, decoding, portable=portable
        ),
    )


def _decode_gif(data: tf.Tensor, decoding: Decoding, max_pixels: int) -> tf.Tensor:
    still = first_gif_frame(data, decoding.background)
    [file] = with_dependencies(check_sides(still.canvas, max_pixels), still.data)
    return _on_canvas(tf.io.decode_gif(file)[0], still, decoding)


def _decode_webp(data: tf.Tensor, decoding: Decoding, max_pixels: int) -> tf.Tensor:
    still = first_webp_frame(data)
    [file] = with_dependencies(check_sides(still.canvas, max_pixels), still.data)
    # Servers on TensorFlow 2.19 cannot load a graph with `decode_webp`.
    frame = tf.io.decode_image(file, expand_animations=False)
    image = _on_canvas(_flatten(frame, decoding), still, decoding)
    return upright(image, webp_orientation(data)) if decoding.exif_orientation else image


def _flatten(image: tf.Tensor, decoding: Decoding) -> tf.Tensor:
    """Return (h, w, 3 or 4) uint8 pixels on the background, (h, w, 3) uint8."""
    color = image[..., :3]
    if decoding.background is None:
        return color

    def blend(rows: tf.Tensor) -> tf.Tensor:
        # 16 bits are enough for the products; the sums divide by 255 and round to the nearest.
        opacity = tf.cast(rows[..., 3:], tf.uint16)
        background = tf.constant(decoding.background, tf.uint16)
        sums = tf.cast(rows[..., :3], tf.uint16) * opacity + background * (255 - opacity) + 128
        return tf.cast((sums + sums // 256) // 256, tf.uint8)

    def blend_all() -> tf.Tensor:
        # Some rows at a time: the numbers of the blending need 20 bytes a pixel.
        height, width = tf.unstack(tf.shape(image)[:2])
        rows = tf.maximum(1, BLENDED_PIXELS // tf.maximum(width, 1))
        count = -(-height // rows)
        blended = tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=(None, None, 3))
        _, blended = tf.while_loop(
            lambda i, blended: i < count,
            lambda i, blended: (i + 1, blended.write(i, blend(image[i * rows : (i + 1) * rows]))),
            (tf.constant(0), blended),
            parallel_iterations=1,
        )
        return blended.concat()

    opaque = tf.reduce_all(image[..., 3:] == 255)
    return tf.cond(opaque, lambda: color, blend_all)


def _on_canvas(frame: tf.Tensor, still: StillImage, decoding: Decoding) -> tf.Tensor:
    """Return the image, (h, w, 3) uint8, of which a frame may cover a part only."""

    def pad() -> tf.Tensor:
        before, after = still.offset, still.canvas - still.offset - still.size
        background = tf.constant(decoding.background or (0, 0, 0), tf.uint8)
        padding = tf.concat([tf.stack([before, after], axis=1), [[0, 0]]], axis=0)
        # The zeros of the padding become the background. Bytes wrap around, which does no harm.
        return tf.pad(frame - background, padding) + background

    return tf.cond(tf.reduce_all(still.size == still.canvas), lambda: frame, pad)
