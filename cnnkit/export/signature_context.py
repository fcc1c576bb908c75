"""The steps that the signatures of an exported model are composed of."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from cnnkit.data import Augmentation, Decoding
from cnnkit.data.boxes import corners, image_boxes
from cnnkit.data.decode import augment_bytes, file_window_reader
from cnnkit.data.graph_checks import (
    assert_or_invalid_argument,
    checked_row,
    with_dependencies,
)
from cnnkit.export.classifier import ServedClassifier
from cnnkit.export.image_header import ImageLimits, validate_image_bytes
from cnnkit.layers import backward_rule
from cnnkit.models.graph import Graph
from cnnkit.visualize.forward import forward_pass
from cnnkit.visualize.rule_support import check_supports_rule
from cnnkit.wire.pixels import IMAGES, INVALID_PIXEL, LARGEST_PIXEL, LEAST_PIXEL

RULE = "deconvnet"
IMAGE_BYTES = "image_bytes"
# Image files decoded at the same time: each may take 150 MB of pixels.
PARALLEL_DECODES = 4

Outputs = dict[str, tf.Tensor]


class DeconvnetFunction:
    """Projects the strongest unit of a layer like `cnnkit.visualize.deconvnet.project`.

    The projection is computed by operations of TensorFlow alone, so that a saved graph can hold it.

    Args:
        graph: Graph of the network.
        layer: Name of a layer, or None for the last one: the classes.

    Raises:
        UsageError: If there is no such layer, or a layer before it does not follow the deconvnet's
            rule.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.export.signature_context import DeconvnetFunction
        >>> from cnnkit.models.graph import build_graph
        >>> graph = build_graph(alexnet(input_shape=(64, 64, 3), classes=2))
        >>> sorted(DeconvnetFunction(graph, "conv5")(tf.zeros((1, 64, 64, 3))))
        ['activation', 'position', 'projection', 'unit']
    """

    def __init__(self, graph: Graph, layer: str | None) -> None:
        self._nodes = graph.ancestors(graph.output if layer is None else graph.node(layer))
        with backward_rule(RULE):
            check_supports_rule(self._nodes, RULE)

    def __call__(self, images: tf.Tensor) -> Outputs:
        """Returns the projection of the strongest unit of each image, and its position.

        Args:
            images: (n, h, w, 3) float32, as the network takes them.

        Returns:
            `projection` (n, h, w, 3) float32, not rectified; `unit` (n,) int64; `activation` (n,)
            float32; `position` (n, 2) int64, row and column in the feature map, (n, 0) for a dense
            layer.
        """
        with backward_rule(RULE), tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            maps = forward_pass(self._nodes, images)
            flat = tf.reshape(maps, (-1, tf.reduce_prod(tf.shape(maps)[1:])))
            strongest = tf.argmax(flat, axis=1)
            activations = tf.gather(flat, strongest, batch_dims=1)
        projection = tape.gradient(activations, images)
        shape = tf.cast(tf.shape(maps), tf.int64)
        coordinates: list[tf.Tensor] = []
        rest = strongest // shape[-1]
        for axis in range(len(maps.shape) - 2, 0, -1):
            coordinates.insert(0, rest % shape[axis])
            rest = rest // shape[axis]
        return {
            "projection": tf.cast(projection, tf.float32),
            "unit": strongest % shape[-1],
            "activation": tf.cast(activations, tf.float32),
            "position": tf.stack(coordinates, axis=1)
            if coordinates
            else tf.zeros((tf.shape(maps)[0], 0), tf.int64),
        }


class SignatureContext:
    """The steps that signatures are composed of: decoding, checks, scores, features.

    Args:
        network: The classifier.
        labels: Names of the classes.
        augmentation: Rescaling and crop of encoded images.
        top: Number of classes that `classify_bytes` returns.
        limits: Sizes that are refused.
        decoding: Background and orientation of encoded images.
    """

    def __init__(
        self,
        network: ServedClassifier,
        labels: Sequence[str],
        augmentation: Augmentation,
        top: int,
        limits: ImageLimits,
        decoding: Decoding,
    ) -> None:
        self.labels = tf.constant(list(labels))
        self.top = top
        self._network = network
        self._augmentation = augmentation
        self._limits = limits
        self._decoding = decoding
        side = None if network.variable_size else network.image_size
        shape = (None, side, side, network.model.input_shape[-1])
        self.inputs = {
            IMAGES: tf.TensorSpec(shape, tf.float32, IMAGES),
            IMAGE_BYTES: tf.TensorSpec((None,), tf.string, IMAGE_BYTES),
        }
        # Functions of their own, so that the file holds their graphs once and not per signature.
        self.decode = tf.function(
            self._decode, input_signature=[tf.TensorSpec((None,), tf.string)], autograph=False
        )
        self.score_map = tf.function(
            self._score_map, input_signature=[self.inputs[IMAGES]], autograph=False
        )

    def check_images(self, images: tf.Tensor) -> tf.Tensor:
        """Returns (n, h, w, 3) images that depend on the checks of their shape and pixels."""
        shape = self.inputs[IMAGES].shape
        # Before anything else: an image of another rank would end the whole server process.
        images = tf.ensure_shape(images, shape)
        given = tf.shape(images, tf.int64)
        checks = [_check_count(given[0], self._limits)]
        if self._network.variable_size:
            checks += self._check_free_size(given)
        [images] = with_dependencies(checks, images)
        images = with_dependencies(_check_pixels(images), images)[0]
        return tf.ensure_shape(images, shape)

    def _check_free_size(self, given: tf.Tensor) -> list[tf.Operation]:
        """Checks the shape (n, h, w, 3) of images of a fully convolutional network."""
        side, most = self._network.image_size, self._limits.free_pixels
        return [
            assert_or_invalid_argument(
                tf.reduce_min(given[1:3]) >= side,
                "images of {} x {} pixels are too small; each side must be at least {}",
                given[1],
                given[2],
                side,
            ),
            assert_or_invalid_argument(
                tf.reduce_prod(given[:3]) <= most,
                "{} x {} x {} pixels (images x height x width) are too many; a request may have {}",
                *tf.unstack(given[:3]),
                most,
            ),
        ]

    def probabilities(self, images: tf.Tensor) -> tf.Tensor:
        """Returns (n, classes) probabilities; the mean over the positions of a score map."""
        return self.mean_over_positions(self.score_map(images))

    def mean_over_positions(self, scores: tf.Tensor) -> tf.Tensor:
        """Returns the mean of (n, rows, columns, k) over rows and columns; (n, k) as it is."""
        return tf.reduce_mean(scores, axis=(1, 2)) if self._network.variable_size else scores

    def boxes(self, image_bytes: tf.Tensor, images: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """Returns the boxes of classes in pixels of the image files, within them.

        Args:
            image_bytes: (n,) the files.
            images: (n, side, side, 3) what `decode` returned for them.
            index: (n, k) numbers of the classes.

        Returns:
            (n, k, 4) float32: left, top, right and bottom.
        """
        model: Any = self._network.boxes
        found = model(images, training=False)
        if found.shape[1] == 1:
            index = tf.zeros_like(index)
        boxes = corners(tf.gather(tf.cast(found, tf.float32), index, batch_dims=1))
        read = functools.partial(
            file_window_reader,
            decoding=self._decoding,
            portable=True,
            max_pixels=self._limits.pixels,
        )

        def to_image(row: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            data, boxes = row
            sides, _ = read(data)
            edge = tf.cast(tf.stack([sides[1], sides[0], sides[1], sides[0]]), tf.float32)
            return tf.clip_by_value(image_boxes(boxes, sides, self._augmentation), 0, edge)

        # Only files that `decode` has checked are looked at.
        with tf.control_dependencies([images]):
            files = tf.identity(image_bytes)
        return tf.map_fn(
            to_image,
            (files, boxes),
            parallel_iterations=PARALLEL_DECODES,
            fn_output_signature=tf.TensorSpec((boxes.shape[1], 4), tf.float32),
        )

    def output_map(self, scores: tf.Tensor) -> Outputs:
        """Returns the output `probability_map` of a fully convolutional network, else none."""
        return {"probability_map": scores} if self._network.variable_size else {}

    def features(self, images: tf.Tensor) -> tf.Tensor:
        """Returns (n, units) features of length 1."""
        found = tf.cast(self._features_model(images, training=False), tf.float32)
        found = self.mean_over_positions(found)
        flat = tf.reshape(found, (-1, found.shape[1:].num_elements()))
        return tf.math.l2_normalize(flat, axis=1, epsilon=1e-24)

    def deconvnet(self, layer: str | None = None) -> DeconvnetFunction:
        """Returns the deconvnet from a layer, by default from the classes."""
        return DeconvnetFunction(self._network.graph, layer)

    @functools.cached_property
    def _features_model(self) -> keras.Model:
        return self._network.features_model()

    def _score_map(self, images: tf.Tensor) -> tf.Tensor:
        return self._network.model(images, training=False)

    def _decode(self, image_bytes: tf.Tensor) -> tf.Tensor:
        """Decodes, rescales and crops (n,) image files to (n, side, side, 3) float32."""
        image_bytes = tf.ensure_shape(image_bytes, (None,))
        count = _check_count(tf.size(image_bytes, tf.int64), self._limits)
        [image_bytes] = with_dependencies(count, image_bytes)
        # The headers of all files before any is decoded, one after the other: of several bad files
        # the first is named.
        files, pixels = tf.map_fn(
            self._check_file,
            (image_bytes, tf.range(tf.size(image_bytes))),
            parallel_iterations=1,
            fn_output_signature=(tf.string, tf.int64),
        )
        together = assert_or_invalid_argument(
            tf.reduce_sum(pixels) <= self._limits.request_pixels,
            "the {} images of a request have {} pixels together, and may have {}",
            tf.size(files),
            tf.reduce_sum(pixels),
            self._limits.request_pixels,
        )
        side = self._augmentation.image_size
        decode = functools.partial(
            augment_bytes,
            augmentation=self._augmentation,
            parameters={},
            decoding=self._decoding,
            portable=True,
            max_pixels=self._limits.pixels,
        )
        return tf.map_fn(
            decode,
            with_dependencies(together, files)[0],
            parallel_iterations=PARALLEL_DECODES,
            fn_output_signature=tf.TensorSpec((side, side, 3), tf.float32),
        )

    def _check_file(self, row: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        data, index = row
        with checked_row(IMAGE_BYTES, index):
            return validate_image_bytes(data, self._limits)


def _check_count(images: tf.Tensor, limits: ImageLimits) -> tf.Operation:
    return assert_or_invalid_argument(
        # Empty batches are refused here: the error of TensorFlow's convolutions is obscure.
        (images >= 1) & (images <= limits.images),
        "a request has {} images, and must have 1 to {}",
        images,
        limits.images,
    )


def _check_pixels(images: tf.Tensor) -> tf.Tensor:
    """Returns True, or fails if an image holds NaN or a value far outside of 0..255."""
    # NaN is in no range.
    valid = (images >= LEAST_PIXEL) & (images <= LARGEST_PIXEL)

    def refuse() -> tf.Tensor:
        row = tf.argmin(tf.reduce_all(valid, axis=(1, 2, 3)), output_type=tf.int32)
        value = tf.boolean_mask(images[row], ~valid[row])[0]
        # "%g", as Python formats it in `find_invalid_pixel`.
        text = tf.strings.as_string(value, shortest=True)
        with checked_row(IMAGES, row):
            failed = assert_or_invalid_argument(tf.constant(False), INVALID_PIXEL, text)
        return with_dependencies(failed, tf.constant(False))[0]

    return tf.cond(tf.reduce_all(valid), lambda: tf.constant(True), refuse)
