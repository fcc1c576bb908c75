"""The nonlinearities by name."""

from __future__ import annotations

import keras

from cnnkit.errors import unknown_name
from cnnkit.layers import ReLU

ACTIVATIONS = ("relu", "tanh", "sigmoid")


def fused(kind: str):
    """Returns what the `activation=` argument of a layer takes.

    Raises:
        UsageError: If there is no such activation.
    """
    if kind not in ACTIVATIONS:
        raise unknown_name("activation", kind, ACTIVATIONS)
    return ReLU() if kind == "relu" else kind


def separate(kind: str, name: str) -> keras.layers.Layer:
    """Returns a layer that is nothing but the activation."""
    return ReLU(name=name) if kind == "relu" else keras.layers.Activation(kind, name=name)
