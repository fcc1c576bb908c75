"""Subtraction of the mean inside the network, the only preprocessing of the papers."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from cnnkit.errors import UsageError


# The class keeps its name: Keras 3 derives the paths inside a .keras file from it
# (layers/subtract_mean/vars/mean), so a renamed class would not find the mean of older files.
@keras.saving.register_keras_serializable(package="cnnkit")
class SubtractMean(keras.layers.Layer):
    """Subtract the mean of the training set from RGB images in 0..255.

    Simonyan & Zisserman 2014 (section 2.1) subtract the mean color, Krizhevsky et al. 2012
    (section 2) the mean of every pixel; neither does anything else to an image. PyTorch's networks
    also divide by the standard deviation. The layer saves both with the weights, in `.keras` and in
    `.weights.h5` files. It computes in float32 under every dtype policy: half precision cannot
    distinguish all levels of 0..255.

    Input and output: (n, h, w, 3).

    Args:
        mean: Mean of each channel, (3,), or of each pixel, (h, w, 3), in 0..255. Change it, or
            load weights, before the layer is first traced.
        std: Standard deviation of each channel, (3,), by which the difference is divided; None
            leaves out the division.

    Raises:
        UsageError: If `mean` or `std` has another shape, a deviation is not above zero, or the
            images have another number of channels or another size than a mean image.

    Example:
        >>> import numpy as np
        >>> from cnnkit.layers import SubtractMean
        >>> SubtractMean((100, 110, 120))(np.full((1, 1, 1, 3), 130.0)).numpy().ravel()
        array([30., 20., 10.], dtype=float32)
    """

    def __init__(self, mean: ArrayLike, std: ArrayLike | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.set_statistics(mean, std)
        self._build_at_init()

    def set_statistics(self, mean: ArrayLike, std: ArrayLike | None = None) -> None:
        """Replace the mean and the deviation. Functions traced before keep the old ones.

        Args:
            mean: (3,) or (h, w, 3), in 0..255.
            std: (3,) or None.

        Raises:
            UsageError: If `mean` or `std` has another shape, or a deviation is not above zero.
        """
        self.mean = np.asarray(mean, "float64")
        self.std = None if std is None else np.asarray(std, "float64")
        if self.mean.shape[-1:] != (3,) or self.mean.ndim not in (1, 3):
            raise UsageError(
                "`mean` must be that of RGB images",
                expected="3 values, or (height, width, 3)",
                received=self.mean.shape,
            )
        if not np.isfinite(self.mean).all():
            raise UsageError(
                "`mean` must be finite", received=np.array2string(self.mean, threshold=3)
            )
        if self.std is not None and not (
            self.std.shape == (3,) and np.isfinite(self.std).all() and (self.std > 0).all()
        ):
            raise UsageError(
                "`std` must hold one deviation for each channel",
                expected="3 values above zero",
                received=np.array2string(self.std, threshold=3),
            )

    def call(self, inputs: Any) -> Any:
        self._check_image(tuple(inputs.shape))
        width = inputs.shape[2]
        centered = ops.cast(inputs, "float32") - _tile_row(self.mean, width)
        if self.std is not None:
            centered = centered / _tile_row(self.std, width)
        return ops.cast(centered, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        self._check_image(tuple(input_shape))
        return input_shape

    def _check_image(self, shape: tuple[int | None, ...]) -> None:
        """Refuse what NumPy's rules would stretch: one channel, or one row, to the mean's."""
        expected = (None, *(self.mean.shape if self.mean.ndim == 3 else (None, None, 3)))
        if len(shape) != 4 or any(
            None not in (side, wanted) and side != wanted
            for side, wanted in zip(shape, expected, strict=True)
        ):
            raise UsageError(
                f"The input of {self.name!r} must be RGB images of the size of the mean image"
                if self.mean.ndim == 3
                else f"The input of {self.name!r} must be RGB images",
                expected=f"(n, {', '.join(str(side or '*') for side in expected[1:])})",
                received=shape,
            )

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        store["mean"] = self.mean
        if self.std is not None:
            store["std"] = self.std

    def load_own_variables(self, store: MutableMapping[str, Any]) -> None:
        # Files without a stored mean have it in the configuration.
        if "mean" in store:
            std = store["std"] if "std" in store else None  # noqa: SIM401  Keras's store has no get
            self.set_statistics(store["mean"], std)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "mean": self.mean.tolist(),
            "std": None if self.std is None else self.std.tolist(),
        }


def _tile_row(values: np.ndarray, width: int | None) -> Any:
    """Return a color repeated over a row of pixels: a CPU then takes a third of the time."""
    if values.ndim == 1 and width is not None:
        values = np.tile(values, (width, 1))
    return ops.convert_to_tensor(values, "float32")
