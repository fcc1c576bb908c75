"""Preprocessing inside a network."""

import numpy as np

from cnnkit import alexnet


def test_the_mean_is_subtracted_inside(rng):
    options = {"input_shape": (64, 64, 3), "include_top": False, "pooling": "max"}
    inside = alexnet(mean=(10, 20, 30), **options)
    outside = alexnet(include_preprocessing=False, **options)
    outside.set_weights(inside.get_weights())
    image = rng.uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    np.testing.assert_allclose(
        inside(image), outside(image - np.array([10, 20, 30], "float32")), rtol=1e-5, atol=1e-6
    )
