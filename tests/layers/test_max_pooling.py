"""Max pooling whose last window may overhang."""

import numpy as np

from cnnkit.layers import CeilMaxPooling2D


def test_ceil_pooling_is_pooling_over_a_map_continued_by_minus_infinity(rng):
    for side in (5, 6, 7, 110, 55):
        x = -rng.uniform(1, 2, (1, side, side, 2)).astype("float32")
        outputs = np.asarray(CeilMaxPooling2D(3, 2)(x))
        positions = 1 + -(-(side - 3) // 2)
        assert outputs.shape == CeilMaxPooling2D(3, 2).compute_output_shape(x.shape)
        assert outputs.shape[1] == positions
        for r, c in [(0, 0), (positions - 1, 0), (positions - 1, positions - 1)]:
            window = x[0, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3]
            np.testing.assert_array_equal(outputs[0, r, c], window.max(axis=(0, 1)))
