"""Signatures of an exported model: what each one takes, computes and returns.

`SIGNATURES` is the only list of them. Selection, tracing, reference outputs and warm-up requests
all read it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from cnnkit.data import Augmentation, Decoding
from cnnkit.errors import UsageError, unknown_name
from cnnkit.export.classifier import ServedClassifier
from cnnkit.export.image_header import ImageLimits
from cnnkit.export.signature_context import (
    IMAGE_BYTES,
    DeconvnetFunction,
    Outputs,
    SignatureContext,
)
from cnnkit.wire.pixels import IMAGES

DEFAULT = "serving_default"
EXPLAIN, LOCALIZE = "explain_bytes", "localize_bytes"


def _predict_images(context: SignatureContext, images: tf.Tensor) -> Outputs:
    scores = context.score_map(context.check_images(images))
    return {"probabilities": context.mean_over_positions(scores), **context.output_map(scores)}


def _predict_bytes(context: SignatureContext, image_bytes: tf.Tensor) -> Outputs:
    return {"probabilities": context.probabilities(context.decode(image_bytes))}


def _classify_bytes(context: SignatureContext, image_bytes: tf.Tensor) -> Outputs:
    probabilities = context.probabilities(context.decode(image_bytes))
    scores, index = tf.math.top_k(probabilities, context.top)
    return {"labels": tf.gather(context.labels, index), "scores": scores}


def _localize_bytes(context: SignatureContext, image_bytes: tf.Tensor) -> Outputs:
    images = context.decode(image_bytes)
    scores, index = tf.math.top_k(context.probabilities(images), context.top)
    return {
        "labels": tf.gather(context.labels, index),
        "scores": scores,
        "boxes": context.boxes(image_bytes, images, index),
    }


def _features_of_images(context: SignatureContext, images: tf.Tensor) -> Outputs:
    return {"features": context.features(context.check_images(images))}


def _features_of_bytes(context: SignatureContext, image_bytes: tf.Tensor) -> Outputs:
    return {"features": context.features(context.decode(image_bytes))}


def _explain_class(context: SignatureContext, image_bytes: tf.Tensor) -> Outputs:
    images = context.decode(image_bytes)
    found = context.deconvnet()(images)
    scores = context.probabilities(images)
    return {
        "labels": tf.gather(context.labels, found["unit"]),
        "scores": tf.gather(scores, found["unit"], batch_dims=1),
        "projection": found["projection"],
        "image": tf.cast(tf.round(images), tf.uint8),
    }


def _explain_layer(layer: str) -> Callable[[SignatureContext, tf.Tensor], Outputs]:
    def explain(context: SignatureContext, image_bytes: tf.Tensor) -> Outputs:
        images = context.decode(image_bytes)
        return {**context.deconvnet(layer)(images), "image": tf.cast(tf.round(images), tf.uint8)}

    return explain


def _accept(network: ServedClassifier) -> None:
    """Accepts every network."""


def _require_features(network: ServedClassifier) -> None:
    network.find_features_layer()


def _require_boxes(network: ServedClassifier) -> None:
    if network.boxes is None:
        raise UsageError(
            f"Model {network.model.name!r} has no boxes for {LOCALIZE}",
            expected="a network that was trained with `TrainingConfig.task='localize'`, for images"
            " of one size",
        )


def _require_deconvnet(network: ServedClassifier) -> None:
    DeconvnetFunction(network.graph, None)


@dataclass(frozen=True)
class SignatureSpec:
    """One function of an exported model.

    Attributes:
        input_name: Name of its only input: `"images"`, (n, h, w, c) float32, or `"image_bytes"`,
            (n,) string, encoded image files.
        outputs: Names of its outputs. A fully convolutional `serving_default` also returns
            `"probability_map"`.
        function: Computes the outputs from a context and the input.
        check: Raises a UsageError for a network that cannot have the signature.
    """

    input_name: str
    outputs: tuple[str, ...]
    function: Callable[[SignatureContext, tf.Tensor], Outputs]
    check: Callable[[ServedClassifier], None] = _accept

    def is_offered(self, network: ServedClassifier) -> bool:
        """Returns True if a network can have the signature."""
        try:
            self.check(network)
        except UsageError:
            return False
        return True


# Signatures of an export by name, without those of single layers (`explain_bytes_LAYER`).
SIGNATURES: Mapping[str, SignatureSpec] = {
    DEFAULT: SignatureSpec(IMAGES, ("probabilities",), _predict_images),
    "serving_bytes": SignatureSpec(IMAGE_BYTES, ("probabilities",), _predict_bytes),
    "classify_bytes": SignatureSpec(IMAGE_BYTES, ("labels", "scores"), _classify_bytes),
    "features": SignatureSpec(IMAGES, ("features",), _features_of_images, _require_features),
    "features_bytes": SignatureSpec(
        IMAGE_BYTES, ("features",), _features_of_bytes, _require_features
    ),
    EXPLAIN: SignatureSpec(
        IMAGE_BYTES, ("labels", "scores", "projection", "image"), _explain_class, _require_deconvnet
    ),
    LOCALIZE: SignatureSpec(
        IMAGE_BYTES, ("labels", "scores", "boxes"), _localize_bytes, _require_boxes
    ),
}


def explain_signature_name(layer: str) -> str:
    """Returns the name of the signature that explains a layer: `explain_bytes_LAYER`."""
    return f"{EXPLAIN}_{layer}"


def explained_layer(name: str) -> str | None:
    """Returns the layer that a signature `explain_bytes_LAYER` explains; None for the others."""
    return name.removeprefix(f"{EXPLAIN}_") if name.startswith(f"{EXPLAIN}_") else None


def get_signature(name: str) -> SignatureSpec:
    """Returns a signature of the table, or the one that explains a layer.

    Raises:
        UsageError: If there is no such signature.

    Example:
        >>> from cnnkit.export.signatures import get_signature
        >>> get_signature("explain_bytes_conv5").outputs
        ('projection', 'unit', 'activation', 'position', 'image')
    """
    layer = explained_layer(name)
    if layer is not None:
        outputs = ("projection", "unit", "activation", "position", "image")
        return SignatureSpec(IMAGE_BYTES, outputs, _explain_layer(layer), _require_deconvnet)
    if name not in SIGNATURES:
        raise unknown_name("signature", name, SIGNATURES)
    return SIGNATURES[name]


def select_signatures(network: ServedClassifier, names: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the signatures to export: those named, or all that the network can have.

    Args:
        network: The classifier.
        names: Names out of `SIGNATURES`; None for all. `serving_default` is always added.

    Raises:
        UsageError: If there is no such signature, or the network cannot have it.
    """
    if names is None:
        return tuple(
            name for name, signature in SIGNATURES.items() if signature.is_offered(network)
        )
    for name in names:
        if name not in SIGNATURES:
            raise unknown_name("signature", name, SIGNATURES)
        SIGNATURES[name].check(network)
    return tuple(name for name in SIGNATURES if name in {DEFAULT, *names})


class ExportedModule(tf.Module):
    """The traced signatures of a model. They share its variables, so each is saved once.

    Args:
        network: The classifier.
        labels: Names of the classes.
        augmentation: Rescaling and crop of encoded images.
        signatures: Names of signatures, `explain_bytes_LAYER` included.
        top: Number of classes that `classify_bytes` returns.
        limits: Sizes that are refused.
        decoding: Background and orientation of encoded images.
        assets: Files stored with the model.

    Raises:
        UsageError: If there is no such signature or layer, or a layer cannot be explained.
    """

    def __init__(
        self,
        network: ServedClassifier,
        labels: Sequence[str],
        augmentation: Augmentation,
        signatures: Sequence[str],
        top: int,
        limits: ImageLimits,
        decoding: Decoding,
        assets: Sequence[Path],
    ) -> None:
        super().__init__()
        self._weights = [variable.value for variable in network.weights]
        self._assets = [tf.saved_model.Asset(str(file)) for file in assets]
        context = SignatureContext(network, labels, augmentation, top, limits, decoding)
        # Traced here, once: saving and describing the module use the same graphs.
        self.concrete_functions: Mapping[str, tf.types.experimental.ConcreteFunction] = {
            name: _trace(get_signature(name), context) for name in signatures
        }


def _trace(
    signature: SignatureSpec, context: SignatureContext
) -> tf.types.experimental.ConcreteFunction:
    spec = context.inputs[signature.input_name]
    traced = tf.function(
        lambda value: signature.function(context, value), input_signature=[spec], autograph=False
    )
    return traced.get_concrete_function()
