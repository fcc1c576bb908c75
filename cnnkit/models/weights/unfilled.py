"""Kernels that are going to be filled from a file need no random numbers first."""

from __future__ import annotations

import keras

from cnnkit.models.weights.memory import aligned, handed_over


class Unfilled(keras.initializers.Initializer):
    """Zeros in place of another initializer, which `restore` puts back.

    Random numbers for VGG-16 cost seconds and more than twice its memory, only to be overwritten.

    Args:
        original: The initializer that the layer is to have in its configuration.
    """

    def __init__(self, original) -> None:
        self.original = keras.initializers.get(original)

    def __call__(self, shape, dtype=None):
        """Returns zeros."""
        if keras.backend.standardize_dtype(dtype or keras.config.floatx()) != "float32":
            return keras.ops.zeros(shape, dtype)
        return keras.ops.convert_to_tensor(handed_over(aligned(tuple(shape))))


def unfilled(options: dict) -> dict:
    """Returns a layer's initializer arguments with zeros for its kernel."""
    return {
        **options,
        "kernel_initializer": Unfilled(options.get("kernel_initializer", "glorot_uniform")),
    }


def restore(model: keras.Model) -> None:
    """Gives every layer its own initializer back."""
    for layer in model.layers:
        initializer = getattr(layer, "kernel_initializer", None)
        if isinstance(initializer, Unfilled):
            layer.kernel_initializer = initializer.original
