"""A network as a function from images to vectors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from cnnkit.errors import UsageError
from cnnkit.features.spec import FeatureSpec
from cnnkit.models.feature_extractor import feature_extractor, with_variable_input_size

# What does not change the answer, or repeats what the weights tell. Names are numbered by Keras.
IGNORED = ("name", "trainable", "dtype", "batch_shape", "seed", "autocast", "layers")
ENDINGS = ("initializer", "regularizer", "constraint", "layers", "config")


def model_identity(model: keras.Model) -> str:
    """Returns a digest of what a network computes: the kinds of its layers and their weights.

    Names, dropped parts and the size of the images do not count; equal networks from a run, from a
    `.keras` file and from other people's weights have equal digests.

    Args:
        model: The network up to the layer.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.features.extractor import model_identity
        >>> small = alexnet(include_top=False, input_shape=(64, 64, 3))
        >>> large = alexnet(include_top=False, input_shape=(96, 96, 3))
        >>> large.set_weights(small.get_weights())
        >>> model_identity(small) == model_identity(large)
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


LARGEST_LEAST_SIDE = 1024


class FeatureExtractor:
    """The vectors of a network by a protocol, of one layer or of several in one pass.

    Args:
        model: The network.
        protocol: How an image becomes a vector of its layer.
        more: Names of other layers that are described in the same way.

    Attributes:
        protocol: The protocol.
        layers: The protocol's layer and the others.
        sides: Shorter sides of what the network sees: its scales, or the side of the center.
        name: Name of the network.
        identity: Digest of the network up to the protocol's layer.
        dimensions: Length of the vectors of each layer.

    Raises:
        UsageError: If the layer does not exist, the network takes no images of this size, or no
            size is known.
    """

    def __init__(self, model: keras.Model, protocol: FeatureSpec, more: Sequence[str] = ()) -> None:
        self.protocol = protocol
        self.layers = (protocol.layer, *more)
        self.name = model.name
        self.identity = model_identity(feature_extractor(model, protocol.layer))
        if protocol.scales:
            self.sides = protocol.scales
            part = with_variable_input_size(model, *self.layers)
        else:
            self.sides = (_side(model, protocol),)
            part = feature_extractor(model, *self.layers)
        for side in self.sides:
            _check_not_too_small(part, side, protocol)
        signature = [tf.TensorSpec((None, None, None, 3), tf.float32)]
        self._answer = tf.function(self._compute, input_signature=signature)
        self._part = part
        blank = [np.zeros((1, side, side, 3), np.float32) for side in self.sides]
        self.dimensions = tuple(vectors.shape[1] for vectors in self(blank))

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the vectors of a batch, (n, dimension) float32, of each layer.

        Args:
            images: For each of the `sides` the batch, (n, h, w, 3) float32 RGB 0..255.
        """
        answers = [self._answer(tf.convert_to_tensor(one)) for one in images]
        return [
            self._together([vectors.numpy() for vectors in of_layer])
            for of_layer in zip(*answers, strict=True)
        ]

    def _together(self, vectors: list[np.ndarray]) -> np.ndarray:
        if self.protocol.aggregate == "stack":
            together = np.concatenate(vectors, axis=1)
        else:
            combine = np.mean if self.protocol.aggregate == "average" else np.max
            together = combine(vectors, axis=0)
        return l2_normalize(together) if self.protocol.l2 else together

    def _compute(self, images):
        if not self.protocol.scales:
            images = tf.ensure_shape(images, (None, *self.sides, *self.sides, 3))
        vectors = self._vectors(images)
        if self.protocol.flip:
            mirrored = self._vectors(tf.reverse(images, [2]))
            vectors = [(one + other) / 2 for one, other in zip(vectors, mirrored, strict=True)]
        return vectors

    def _vectors(self, images) -> list:
        answer = self._part(images, training=False)
        return [self._pooled(maps) for maps in (answer if len(self.layers) > 1 else [answer])]

    def _pooled(self, maps):
        maps = tf.cast(maps, tf.float32)
        if len(maps.shape) == 2:
            return maps
        if self.protocol.pool == "flatten":
            return tf.reshape(maps, (tf.shape(maps)[0], np.prod(maps.shape[1:])))
        axes = list(range(1, len(maps.shape) - 1))
        pool = tf.reduce_mean if self.protocol.pool == "average" else tf.reduce_max
        return pool(maps, axis=axes)


def l2_normalize(vectors: np.ndarray) -> np.ndarray:
    """Returns vectors (n, d) divided by their Euclidean lengths; zeros stay zero."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    # What is not finite stays so, for whoever looks at the vectors to tell of.
    with np.errstate(invalid="ignore"):
        return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)


def _side(model: keras.Model, protocol: FeatureSpec) -> int:
    height, width = model.input_shape[1:3]
    if height != width:
        raise UsageError(
            f"Model {model.name!r} takes images that are no squares",
            expected="height equal to width",
            received=f"{height} x {width}",
        )
    asked = protocol.image_size
    if height is None and asked is None:
        raise UsageError(
            f"Model {model.name!r} takes images of any size",
            expected="the side of the images",
            hint="Give an image size, or scales to see whole images",
        )
    if None not in (height, asked) and height != asked:
        raise UsageError(
            f"Model {model.name!r} takes images of one size",
            expected=f"image size {height}, or scales",
            received=f"image size {asked}",
        )
    return height or asked


def _check_not_too_small(part: keras.Model, side: int, protocol: FeatureSpec) -> None:
    if _fits(part, side):
        return
    least = next((s for s in range(side + 1, LARGEST_LEAST_SIDE) if _fits(part, s)), None)
    if least is None:
        raise UsageError(
            f"{protocol.layer} of {part.name!r} cannot be had of images of this size",
            received=f"a shorter side of {side}",
            hint="A model inside it, or a layer, may take images of one size only",
        )
    raise UsageError(
        f"An image is too small for {protocol.layer} of {part.name!r}: no position is left",
        expected=f"a shorter side of at least {least}",
        received=side,
    )


def _fits(part: keras.Model, side: int) -> bool:
    try:
        shapes = part.compute_output_shape((1, side, side, 3))
    except ValueError:
        # How Keras says that a window does not fit into the map.
        return False
    shapes = [shapes] if len(part.outputs) == 1 else shapes
    return all(one is None or one >= 1 for shape in shapes for one in shape)
