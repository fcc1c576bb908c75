"""The layerwise figure: switches are drawn where they are."""

import keras
import matplotlib.image
import numpy as np
import pytest
from keras import layers

from cnnkit.errors import UsageError
from cnnkit.figures import draw_layerwise
from cnnkit.visualize import forward_steps


def test_stack_is_drawn_with_its_switches(tmp_path, rng):
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(2, 3, activation="relu", name="a")(inputs)
    x = layers.Conv2D(2, 3, name="b")(layers.MaxPooling2D(2, name="pool")(x))
    steps = forward_steps(keras.Model(inputs, x), rng.uniform(0, 255, (1, 16, 16, 3)), "b")
    signal = np.zeros_like(steps[-1].output)
    signal[0, 1, 1, 0] = 1
    draw_layerwise(steps, signal, tmp_path / "stack.png")
    pixels = matplotlib.image.imread(tmp_path / "stack.png")[..., :3]
    red = (pixels[..., 0] > 0.9) & (pixels[..., 1:].max(axis=-1) < 0.1)
    # In both columns, and only in the row of the pooling: the second of four.
    rows, columns = np.nonzero(red)
    height, width = red.shape
    assert (columns < width / 2).any()
    assert (columns > width / 2).any()
    assert height / 4 < rows.min() < rows.max() < height / 2
    with pytest.raises(
        UsageError, match="`signal` must reach the image: the signal that comes back is zero"
    ):
        draw_layerwise(steps, 0 * signal, tmp_path / "none.png")
