"""Read an image file for a command."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnkit.config_values import parse_color
from cnnkit.errors import UsageError
from cnnkit.run_folder import RunFolder

if TYPE_CHECKING:
    import keras

    from cnnkit.data import Decoding


# Set once for a command.
_DECODING: ContextVar[Decoding | None] = ContextVar("decoding", default=None)


def add_decoding_arguments(parser: argparse._ActionsContainer) -> None:
    """Declare the options of transparency and orientation."""
    parser.add_argument(
        "--background",
        type=background,
        metavar="COLOR",
        help="behind transparent pixels: white, black or #RRGGBB; none ignores the opacity "
        "(default: the run's, else white)",
    )
    parser.add_argument(
        "--exif-orientation",
        action=argparse.BooleanOptionalAction,
        help="turn images upright as their EXIF data say (default: the run's, else yes)",
    )


def background(text: str) -> str:
    """Return the name of a color behind transparent pixels.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    try:
        parse_color(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(
            f"must be white, black, none or a color as in #ff8000, received {text}"
        ) from error
    return text


def set_decoding(args: argparse.Namespace) -> Decoding:
    """Decode the images of a command as its options say, or else as the run that is its network.

    Raises:
        UsageError: If the background is no color.
    """
    from cnnkit.data import Decoding

    network = getattr(args, "network", None)
    run = RunFolder(Path(network)) if isinstance(network, str) and Path(network).is_dir() else None
    decoding = Decoding.from_config(run.config) if run and run.exists() else Decoding()
    if args.background is not None:
        decoding = dataclasses.replace(decoding, background=parse_color(args.background))
    if args.exif_orientation is not None:
        decoding = dataclasses.replace(decoding, exif_orientation=args.exif_orientation)
    use_decoding(decoding)
    return decoding


def use_decoding(decoding: Decoding) -> None:
    """Decode the images of this command so."""
    _DECODING.set(decoding)


def command_decoding() -> Decoding:
    """Return the decoding of the command that runs."""
    from cnnkit.data import Decoding

    return _DECODING.get() or Decoding()


def read_image(path: str, size: int | Sequence[int] | None, channels: int | None = 3) -> np.ndarray:
    """Read an image file in the size of a network.

    Args:
        path: The file.
        size: Side of the crop in pixels, or its height and width: the largest center crop of this
            shape is rescaled. None leaves the image as it is.
        channels: 3 for RGB; 1 for gray, by the luminance of ITU-R BT.601.

    Returns:
        The image, (height, width, channels) float32 in 0..255.

    Raises:
        UsageError: If there is no such file, or the network takes no RGB or gray images.
        DataError: If it is too large or cannot be decoded.
    """
    import tensorflow as tf

    from cnnkit.data import resize_shorter_side
    from cnnkit.data.crops import array_window_reader, crop_image, fit_images
    from cnnkit.data.decode import read_image_file

    if not Path(path).is_file():
        raise UsageError(f"No image file {path}")
    image = read_image_file(path, command_decoding())
    sides = np.array([size, size] if isinstance(size, int) else size)
    if size is None:
        image = tf.cast(image, tf.float32)
    elif sides[0] == sides[1]:
        image = resize_shorter_side(image, int(sides[0]))
    else:
        given = np.array(image.shape[:2], np.int32)
        window = (given, *center_window(given, sides), sides)
        image = crop_image(
            array_window_reader(image), *(tf.constant(one, tf.int32) for one in window)
        )
    return np.asarray(fit_images(image, (None, None, channels)).numpy())


def center_window(image_sides: np.ndarray, sides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the size of an image rescaled to cover a window, and the offset of the window in it.

    Args:
        image_sides: (2,) height and width of the image.
        sides: (2,) height and width of the window, which lies in the center.
    """
    scaled = np.maximum(np.rint(image_sides * (sides / image_sides).max()), sides).astype(int)
    return scaled, (scaled - sides) // 2


def read_image_for(path: str, model: keras.Model) -> np.ndarray:
    """Read an image file at the input size and with the channels of a network.

    Raises:
        UsageError: As `read_image`, or if one side of the input is free and the other is not.
        DataError: If it cannot be decoded.
    """
    _, height, width, channels = model.input_shape
    if (height is None) != (width is None):
        raise UsageError(
            f"Model {model.name!r} must have a fixed input size, or none",
            received=f"{height} x {width}",
        )
    return read_image(path, None if height is None else (height, width), channels)
