"""Which network made the features: a digest of its layers and weights."""

from __future__ import annotations

import hashlib
import json

import keras
import numpy as np

# What does not change the answer, or repeats what the weights tell. Names are numbered by Keras.
IGNORED = ("name", "trainable", "dtype", "batch_shape", "seed", "autocast", "layers")
ENDINGS = ("initializer", "regularizer", "constraint", "layers", "config")


def identity(model: keras.Model) -> str:
    """Returns a digest of what a network computes: the kinds of its layers and their weights.

    Names, dropped parts and the size of the images do not count; equal networks from a run, from a
    `.keras` file and from other people's weights have equal digests.

    Args:
        model: The network up to the layer.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.features.identity import identity
        >>> small = alexnet(include_top=False, input_shape=(64, 64, 3))
        >>> large = alexnet(include_top=False, input_shape=(96, 96, 3))
        >>> large.set_weights(small.get_weights())
        >>> identity(small) == identity(large)
        True
    """
    digest = hashlib.sha256()
    _add(model, digest)
    return digest.hexdigest()


def _add(model: keras.Model, digest) -> None:
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        digest.update(f"{type(layer).__name__} {_settings(layer)}\n".encode())
        if isinstance(layer, keras.Model):
            _add(layer, digest)
            continue
        for weight in layer.weights:
            values = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
            digest.update(f"{values.dtype} {values.shape}\n".encode())
            digest.update(values.view(np.uint8).data if values.size else b"")


def _settings(layer) -> str:
    try:
        config = layer.get_config()
    except NotImplementedError:
        config = {}
    kept = {
        key: _plain(value)
        for key, value in config.items()
        if key not in IGNORED and not key.endswith(ENDINGS)
    }
    return json.dumps({**kept, "dtype": getattr(layer, "compute_dtype", None)}, sort_keys=True)


def _plain(value):
    """Returns what JSON can hold; of an object in a configuration its class."""
    if isinstance(value, dict):
        return value.get("class_name") or {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
