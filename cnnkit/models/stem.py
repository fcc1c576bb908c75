"""What every network begins with: an input that fits, and the mean subtracted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np

from cnnkit.errors import UsageError
from cnnkit.layers import SubtractMean
from cnnkit.models.preprocessing import IMAGENET_MEAN, Preprocessing

TRAINING_SIZE = 224
LARGEST_LEAST_SIZE = 1024


class ImageTooSmall(UsageError):
    """The network leaves no position of the image before its head.

    Attributes:
        least_side: The smallest side that leaves one.
    """

    def __init__(self, network: str, least_side: int, received: str) -> None:
        self.least_side = least_side
        super().__init__(
            f"The image is too small for {network}: no position is left before the head",
            expected=f"height and width of at least {least_side}",
            received=received,
        )


def begin(
    network: str,
    input_shape: Sequence[int | None] | None,
    *,
    size: int = TRAINING_SIZE,
    include_top: bool,
    include_preprocessing: bool,
    mean: Sequence[float] | np.ndarray | None,
    side_after: Callable[[int], int],
):
    """Returns the input tensor and the tensor that the first convolution takes.

    Args:
        network: Name for the error text.
        input_shape: (height, width, 3), or None for the training size.
        size: The training size.
        include_top: Whether a dense head follows, which needs a known height and width.
        include_preprocessing: Whether the model subtracts `mean` itself.
        mean: RGB mean in 0..255, (3,) or at least (height, width, 3); None is ImageNet's colour.
        side_after: Maps a side of the input to the side of the last feature map.

    Raises:
        UsageError: If the shape is none of an RGB image, or smaller than the network can take.
    """
    if input_shape is None:
        side = size if include_top else None
        input_shape = (side, side, 3)
    shape = tuple(input_shape)
    if len(shape) != 3 or shape[2] != 3:
        raise UsageError(
            "The networks take RGB images",
            expected="input_shape=(height, width, 3)",
            received=shape,
        )
    sides = shape[:2]
    if include_top and None in sides:
        raise UsageError(
            "The dense head needs a known image size",
            expected="a height and a width in input_shape",
            received=shape,
            hint="Give both, or pass include_top=False",
        )
    least = least_side(side_after)
    if any(side is not None and side < least for side in sides):
        raise ImageTooSmall(network, least, f"{shape[0]} x {shape[1]}")
    inputs = keras.Input(shape, name="images")
    if not include_preprocessing:
        return inputs, inputs
    mean = Preprocessing(IMAGENET_MEAN if mean is None else mean).for_size(*sides).mean
    return inputs, SubtractMean(mean, name="preprocessing")(inputs)


def least_side(side_after: Callable[[int], int]) -> int:
    """Returns the smallest side of an image that leaves one position before the head."""
    return next(side for side in range(1, LARGEST_LEAST_SIZE) if side_after(side) >= 1)
