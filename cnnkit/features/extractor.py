"""Feature extractor: a network as a function from images to vectors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cnnkit._network_names import check_crop_side
from cnnkit.data.crops import fit_images
from cnnkit.errors import UsageError
from cnnkit.features.spec import FeatureSpec
from cnnkit.models.feature_extractor import feature_extractor, with_variable_input_size

# Config keys that do not change the output, or that the weights imply. Keras numbers the names.
IGNORED_KEYS = ("name", "trainable", "dtype", "batch_shape", "seed", "autocast", "layers")
IGNORED_SUFFIXES = ("initializer", "regularizer", "constraint", "layers", "config")
# Class names in the digests of version 0.1, so that the features stored then stay valid.
FORMER_CLASS_NAMES = {"ClassProbabilities": "Probabilities"}


def model_identity(model: keras.Model) -> str:
    """Return a digest of a network's layer classes, settings and weights.

    The digest does not depend on names, on the input size or on layers above the output. The same
    network loaded from a run, from a `.keras` file or from third-party weights has the same digest.

    Args:
        model: The network up to the layer whose output is the feature.

    Returns:
        SHA-256 as 64 hexadecimal digits.

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
    _update_digest(model, digest)
    return digest.hexdigest()


def _update_digest(model: keras.Model, digest: hashlib._Hash) -> None:
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        kind = type(layer).__name__
        digest.update(f"{FORMER_CLASS_NAMES.get(kind, kind)} {_settings_json(layer)}\n".encode())
        if isinstance(layer, keras.Model):
            _update_digest(layer, digest)
            continue
        for weight in layer.weights:
            values = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
            digest.update(f"{values.dtype} {values.shape}\n".encode())
            digest.update(values.view(np.uint8).data if values.size else b"")


def _settings_json(layer: keras.layers.Layer) -> str:
    try:
        config = layer.get_config()
    except NotImplementedError:
        config = {}
    kept = {
        key: _json_value(value)
        for key, value in config.items()
        if key not in IGNORED_KEYS and not key.endswith(IGNORED_SUFFIXES)
    }
    return json.dumps({**kept, "dtype": getattr(layer, "compute_dtype", None)}, sort_keys=True)


def _json_value(value: Any) -> Any:
    """Return a config value as JSON can hold it; an object becomes the name of its class."""
    if isinstance(value, dict):
        return value.get("class_name") or {str(key): _json_value(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(one) for one in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__


# Sides that are tried when an error names the smallest one that works.
MAX_TRIED_SIDE = 1024


class FeatureExtractor:
    """Feature vectors of one or several layers of a network.

    Args:
        model: A functional or sequential Keras model over RGB or gray images in 0..255.
        spec: How an image becomes a vector of its layer.
        extra_layers: Names of other layers, extracted in the same pass with the same spec.

    Attributes:
        spec: The spec.
        layers: The spec's layer, then the extra layers.
        sides: Shorter sides in pixels of the images that the network takes: the scales, or the
            side of the center crop.
        name: Name of the network.
        identity: Digest of the network up to the spec's layer, from `model_identity`.
        dimensions: Length of the vectors of each layer.

    Raises:
        UsageError: If a layer does not exist, the network does not take images of this size, or
            the size is not known.
    """

    def __init__(
        self, model: keras.Model, spec: FeatureSpec, extra_layers: Sequence[str] = ()
    ) -> None:
        self.spec = spec
        self.layers = (spec.layer, *extra_layers)
        self.name = model.name
        self.identity = model_identity(feature_extractor(model, spec.layer))
        if spec.scales:
            self.sides = spec.scales
            submodel = with_variable_input_size(model, *self.layers)
        else:
            self.sides = (_crop_side(model, spec),)
            submodel = feature_extractor(model, *self.layers)
        for side in self.sides:
            _check_side(submodel, side, spec)
        signature = [tf.TensorSpec((None, None, None, 3), tf.float32)]
        self._compute_traced = tf.function(self._compute, input_signature=signature)
        self._submodel = submodel
        blank = [np.zeros((1, side, side, 3), np.float32) for side in self.sides]
        self.dimensions = tuple(vectors.shape[1] for vectors in self(blank))

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the vectors of a batch, (n, dimension) float32, for each layer.

        Args:
            images: The batch at each of the `sides`, (n, h, w, 3) float32 RGB 0..255. A gray
                network gets the luminance of the images, and one whose input is not square the
                center of the square.

        Raises:
            UsageError: If the images have another shape.
        """
        for one, side in zip(images, self.sides, strict=True):
            height, width = ("h", "w") if self.spec.scales else (side, side)
            shape = tuple(one.shape)
            if len(shape) != 4 or shape[3] != 3 or (height == side and shape[1:3] != (side, side)):
                raise UsageError(
                    "`images` must be batches of RGB images at the sides of the extractor",
                    expected=f"(n, {height}, {width}, 3)",
                    received=shape,
                )
        outputs = [self._compute_traced(tf.convert_to_tensor(one)) for one in images]
        return [
            self._combine_scales([vectors.numpy() for vectors in of_layer])
            for of_layer in zip(*outputs, strict=True)
        ]

    def _combine_scales(self, vectors: list[np.ndarray]) -> np.ndarray:
        if self.spec.aggregate == "stack":
            combined = np.concatenate(vectors, axis=1)
        else:
            combine = np.mean if self.spec.aggregate == "average" else np.max
            combined = combine(vectors, axis=0)
        return l2_normalize(combined) if self.spec.l2 else combined

    def _compute(self, images: tf.Tensor) -> list[tf.Tensor]:
        if not self.spec.scales:
            images = tf.ensure_shape(images, (None, *self.sides, *self.sides, 3))
        vectors = self._vectors(images)
        if self.spec.flip:
            mirrored = self._vectors(tf.reverse(images, [2]))
            vectors = [(one + other) / 2 for one, other in zip(vectors, mirrored, strict=True)]
        return vectors

    def _vectors(self, images: tf.Tensor) -> list[tf.Tensor]:
        fitted = fit_images(images, self._submodel.input_shape[1:])
        output = self._submodel(fitted, training=False)
        return [self._pooled(maps) for maps in (output if len(self.layers) > 1 else [output])]

    def _pooled(self, maps: tf.Tensor) -> tf.Tensor:
        maps = tf.cast(maps, tf.float32)
        if len(maps.shape) == 2:
            return maps
        if self.spec.pool == "flatten":
            return tf.reshape(maps, (tf.shape(maps)[0], np.prod(maps.shape[1:])))
        axes = list(range(1, len(maps.shape) - 1))
        pool = tf.reduce_mean if self.spec.pool == "average" else tf.reduce_max
        return pool(maps, axis=axes)


def l2_normalize(vectors: np.ndarray) -> np.ndarray:
    """Divide vectors (n, d) by their Euclidean lengths; zero vectors stay zero.

    Non-finite values stay in place; callers check for them.

    Returns:
        (n, d) float32.
    """
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)


def _crop_side(model: keras.Model, spec: FeatureSpec) -> int:
    height, width = model.input_shape[1:3]
    if (height is None) != (width is None):
        raise UsageError(
            f"Model {model.name!r} must have a fixed input size, or none",
            received=f"{height} x {width}",
        )
    # A rectangle is cut from the center of the square crop.
    longer = None if height is None else max(height, width)
    side: int | None = longer or spec.image_size
    if side is None:
        raise UsageError(
            f"`image_size` must be given: model {model.name!r} takes images of any size",
            hint="Or give `scales`, to see whole images",
        )
    if longer is not None:
        check_crop_side(longer, spec.image_size)
    return side


def _check_side(submodel: keras.Model, side: int, spec: FeatureSpec) -> None:
    """Check that images of this shorter side leave at least one position in the layers' maps."""
    if _fits(submodel, side):
        return
    least = next((s for s in range(side + 1, MAX_TRIED_SIDE) if _fits(submodel, s)), None)
    if least is None:
        raise UsageError(
            f"{spec.layer} of {submodel.name!r} cannot be computed from images of this size",
            received=f"a shorter side of {side}",
            hint="A model inside it, or a layer, may take images of one size only",
        )
    raise UsageError(
        f"The image size is too small for {spec.layer} of {submodel.name!r}",
        expected=f"a shorter side of at least {least}",
        received=side,
    )


def _fits(submodel: keras.Model, side: int) -> bool:
    try:
        height, width, channels = submodel.input_shape[1:]
        shape = (1, side if height is None else height, side if width is None else width, channels)
        shapes = submodel.compute_output_shape(shape)
    except ValueError:
        # Keras raises it where a window does not fit into the map.
        return False
    shapes = [shapes] if len(submodel.outputs) == 1 else shapes
    return all(one is None or one >= 1 for shape in shapes for one in shape)
