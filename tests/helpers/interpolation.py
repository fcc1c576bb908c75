"""Enlarging an array with NumPy, one axis after the other."""

import numpy as np


def interpolated(values, size):
    """Interpolates linearly, with the first and last values on the first and last pixels."""
    for axis, (have, want) in enumerate(zip(values.shape, size, strict=True)):
        places = np.linspace(0, have - 1, want)
        values = np.apply_along_axis(
            lambda v, places=places: np.interp(places, np.arange(len(v)), v), axis, values
        )
    return values
