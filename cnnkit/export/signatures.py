"""The functions that a server runs: what each takes, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from cnnkit.data import Augmentation
from cnnkit.data.decode import augment_bytes
from cnnkit.errors import UsageError, unknown_name
from cnnkit.export.classifier import ServedClassifier
from cnnkit.export.graph_checks import ImageLimits, assert_or_invalid_argument, with_dependencies
from cnnkit.export.image_header import validate_image_bytes
from cnnkit.layers import backward_rule
from cnnkit.models import get_layer
from cnnkit.models.graph import Graph
from cnnkit.visualize.forward import check_supports_rule, forward_pass

RULE = "deconvnet"


class DeconvnetFunction:
    """Projects the strongest unit of a layer down to the pixels, as `cnnkit.visualize.deconvnet.project`.

    The way down is a part of the graph that it is called in, so a saved graph needs nothing of ours
    to take it.

    Args:
        graph: Of the network.
        layer: Name of a layer, or None for the end of the network: its classes.

    Raises:
        UsageError: If there is no such layer, or one on the way cannot follow the deconvnet's rule.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.export.signatures import DeconvnetFunction
        >>> from cnnkit.models.graph import build_graph
        >>> graph = build_graph(alexnet(input_shape=(64, 64, 3), classes=2))
        >>> sorted(DeconvnetFunction(graph, "conv5")(tf.zeros((1, 64, 64, 3))))
        ['activation', 'position', 'projection', 'unit']
    """

    def __init__(self, graph: Graph, layer: str | None) -> None:
        last = graph.output if layer is None else graph.node(layer)
        self.layer = last.layer.name
        self._calls = graph.ancestors(last)
        with backward_rule(RULE):
            check_supports_rule(self._calls, RULE)

    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the projections of the strongest units, and where they are.

        Args:
            images: (n, h, w, 3) float32, as the network takes them.

        Returns:
            `projection` (n, h, w, 3) float32, not rectified; `unit` (n,) int64; `activation` (n,)
            float32; `position` (n, 2) int64, row and column in the feature map, (n, 0) for a dense
            layer.
        """
        with backward_rule(RULE), tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            maps = forward_pass(self._calls, images)
            flat = tf.reshape(maps, (-1, tf.reduce_prod(tf.shape(maps)[1:])))
            strongest = tf.argmax(flat, axis=1)
            activations = tf.gather(flat, strongest, batch_dims=1)
        projection = tape.gradient(activations, images)
        shape = tf.cast(tf.shape(maps), tf.int64)
        places = []
        rest = strongest // shape[-1]
        for axis in range(len(maps.shape) - 2, 0, -1):
            places.insert(0, rest % shape[axis])
            rest = rest // shape[axis]
        return {
            "projection": tf.cast(projection, tf.float32),
            "unit": strongest % shape[-1],
            "activation": tf.cast(activations, tf.float32),
            "position": tf.stack(places, axis=1)
            if places
            else tf.zeros((tf.shape(maps)[0], 0), tf.int64),
        }


def can_explain(graph: Graph) -> bool:
    """Returns True if the deconvnet can project the classes of a network to the pixels."""
    try:
        DeconvnetFunction(graph, None)
    except UsageError:
        return False
    return True


DEFAULT = "serving_default"
# Names of the signatures that an export can hold.
SIGNATURES = (
    DEFAULT,
    "serving_bytes",
    "classify_bytes",
    "features",
    "features_bytes",
    "explain_bytes",
)
# Files that are decoded at a time: each may take 150 MB of pixels.
DECODED_AT_ONCE = 4


def select_signatures(network: ServedClassifier, names: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the signatures to be exported: those asked for, or all that the network allows.

    Raises:
        UsageError: If there is no such signature, or the network does not allow it.
    """
    possible = dict.fromkeys(SIGNATURES)
    if network.features is None:
        del possible["features"], possible["features_bytes"]
    if not can_explain(network.graph):
        del possible["explain_bytes"]
    if names is None:
        return tuple(possible)
    for name in names:
        if name not in SIGNATURES:
            raise unknown_name("signature", name, SIGNATURES)
        if name == "explain_bytes" and name not in possible:
            # Raises the error that names the layer.
            DeconvnetFunction(network.graph, None)
        if name not in possible:
            raise UsageError(
                f"{network.model.name!r} has no layer for the signature {name!r}",
                expected=f"some of {', '.join(possible)}",
            )
    return tuple(name for name in SIGNATURES if name in {DEFAULT, *names})


def default_explain_layer(layer: str) -> str:
    """Returns the name of the signature that explains a layer."""
    return f"explain_bytes_{layer}"


class ExportedModule(tf.Module):
    """The functions that a server runs. They share the network's variables, so each is saved once.

    Args:
        network: What is served.
        labels: Names of the classes.
        augmentation: How encoded images become what the network takes.
        signatures: Names out of `SIGNATURES`.
        explain_layers: Layers with a signature of their own.
        top: Classes that `classify_bytes` answers.
        limits: What is refused.
        assets: Files that travel along.

    Raises:
        UsageError: If a layer does not exist or cannot be explained.
    """

    def __init__(
        self,
        network: ServedClassifier,
        labels: Sequence[str],
        augmentation: Augmentation,
        signatures: Sequence[str],
        explain_layers: Sequence[str],
        top: int,
        limits: ImageLimits,
        assets: Sequence[Path],
    ) -> None:
        super().__init__()
        self._weights = [variable.value for variable in network.model.weights]
        self._assets = [tf.saved_model.Asset(str(file)) for file in assets]
        self._network = network
        self._augmentation = augmentation
        self._limits = limits
        # A function of its own, so that the graph of decoding is there once and not per signature.
        self._pixels = tf.function(
            self._decoded, input_signature=[tf.TensorSpec((None,), tf.string)], autograph=False
        )
        names = tf.constant(list(labels))
        model = network.model
        side = None if network.free else network.side
        floats = tf.TensorSpec((None, side, side, model.input_shape[-1]), tf.float32, "images")
        encoded = tf.TensorSpec((None,), tf.string, "image_bytes")

        @tf.function(input_signature=[floats], autograph=False)
        def maps(images):
            return model(images, training=False)

        def mean(scores):
            return tf.reduce_mean(scores, axis=(1, 2)) if network.free else scores

        def answer(images):
            return mean(maps(images))

        def named(image_bytes):
            scores, index = tf.math.top_k(answer(self._pixels(image_bytes)), top)
            return {"labels": tf.gather(names, index), "scores": scores}

        def default(images):
            scores = maps(self._guarded(images))
            map_too = {"probability_map": scores} if network.free else {}
            return {"probabilities": mean(scores), **map_too}

        functions: dict[str, tuple[Callable, tf.TensorSpec]] = {}
        functions[DEFAULT] = default, floats
        functions["serving_bytes"] = (
            lambda image_bytes: {"probabilities": answer(self._pixels(image_bytes))},
            encoded,
        )
        functions["classify_bytes"] = named, encoded
        if network.features is not None:
            features = _features(network)
            functions["features"] = (
                lambda images: {"features": features(self._guarded(images))},
                floats,
            )
            functions["features_bytes"] = (
                lambda image_bytes: {"features": features(self._pixels(image_bytes))},
                encoded,
            )
        functions = {name: pair for name, pair in functions.items() if name in signatures}
        if "explain_bytes" in signatures:
            classes = DeconvnetFunction(network.graph, None)
            functions["explain_bytes"] = self._explaining_class(classes, answer, names), encoded
        for layer in explain_layers:
            functions[default_explain_layer(layer)] = (
                self._explaining(DeconvnetFunction(network.graph, layer)),
                encoded,
            )
        # Traced here, once: who asks for them again gets the same graphs.
        self.endpoints: Mapping[str, tf.types.experimental.ConcreteFunction] = {
            name: tf.function(
                function, input_signature=[spec], autograph=False
            ).get_concrete_function()
            for name, (function, spec) in functions.items()
        }

    def _guarded(self, images: tf.Tensor) -> tf.Tensor:
        network, limits = self._network, self._limits
        # First of all: an image of another rank would end the whole server process.
        side = None if network.free else network.side
        shape = (None, side, side, network.model.input_shape[-1])
        images = tf.ensure_shape(images, shape)
        given = tf.shape(images, tf.int64)
        checks = [_few(given[0], limits)]
        if network.free:
            checks.append(
                assert_or_invalid_argument(
                    (tf.reduce_min(given[1:3]) >= network.side)
                    & (given[1] * given[2] <= limits.free_pixels),
                    "an image has too few or too many pixels; its height, its width, the least "
                    "side, and the pixels it may have:",
                    given[1],
                    given[2],
                    network.side,
                    limits.free_pixels,
                )
            )
        return tf.ensure_shape(with_dependencies(checks, images)[0], shape)

    def _decoded(self, image_bytes: tf.Tensor) -> tf.Tensor:
        """Returns what the network takes of encoded images, (n, side, side, 3) float32."""
        image_bytes = tf.ensure_shape(image_bytes, (None,))
        few = _few(tf.size(image_bytes, tf.int64), self._limits)
        return tf.map_fn(
            lambda data: augment_bytes(
                validate_image_bytes(data, self._limits), self._augmentation, {}
            ),
            with_dependencies(few, image_bytes)[0],
            parallel_iterations=DECODED_AT_ONCE,
            fn_output_signature=tf.TensorSpec(
                (self._augmentation.image_size, self._augmentation.image_size, 3), tf.float32
            ),
        )

    def _explaining_class(
        self, explain: DeconvnetFunction, answer: Callable, names: tf.Tensor
    ) -> Callable:
        def function(image_bytes):
            images = self._pixels(image_bytes)
            found = explain(images)
            return {
                "labels": tf.gather(names, found["unit"]),
                "scores": tf.gather(answer(images), found["unit"], batch_dims=1),
                "projection": found["projection"],
                "image": tf.cast(tf.round(images), tf.uint8),
            }

        return function

    def _explaining(self, explain: DeconvnetFunction) -> Callable:
        def function(image_bytes):
            images = self._pixels(image_bytes)
            return {**explain(images), "image": tf.cast(tf.round(images), tf.uint8)}

        return function


def _few(images: tf.Tensor, limits: ImageLimits) -> tf.Operation:
    return assert_or_invalid_argument(
        # Of none TensorFlow's convolutions make an error that nobody understands.
        (images >= 1) & (images <= limits.images),
        "a request has no image or too many; it has, and may have:",
        images,
        limits.images,
    )


def _features(network: ServedClassifier) -> Callable:
    layer = get_layer(network.model, network.features)
    shortened = keras.Model(network.model.inputs[0], layer.output)

    def features(images):
        found = tf.cast(shortened(images, training=False), tf.float32)
        if network.free:
            found = tf.reduce_mean(found, axis=(1, 2))
        flat = tf.reshape(found, (-1, found.shape[1:].num_elements()))
        return tf.math.l2_normalize(flat, axis=1, epsilon=1e-24)

    return features
