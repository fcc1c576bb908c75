"""Boxes of classes in an image: by a network's box regression, or by an attribution method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cnnkit._network_names import REGRESSIONS, without_boxes
from cnnkit.data import Augmentation
from cnnkit.data.boxes import corners, image_boxes
from cnnkit.data.crops import array_window_reader, augment_image, crop_window
from cnnkit.data.multi_crop import CropSpec, extract_crops
from cnnkit.errors import UsageError, unknown_name
from cnnkit.evaluation.image_classifier import ImageClassifier, check_scores, open_classifier
from cnnkit.evaluation.merge_boxes import merge_boxes
from cnnkit.layers.class_boxes import BOX_VALUES, PER_CLASS
from cnnkit.models.logits import logits_tensor, output_layer
from cnnkit.models.receptive_field import receptive_field
from cnnkit.models.surgery import to_fully_convolutional
from cnnkit.visualize import EXPLANATION_METHODS
from cnnkit.visualize.attribution.attribution_box import attribution_box

# The methods: regression at the center crop, or at all places of the image; and those that explain.
CROP, DENSE = REGRESSIONS
CENTER = "center"
BOX_METHODS = (*REGRESSIONS, CENTER, *EXPLANATION_METHODS)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class LocatedObject:
    """A class in an image, and where it is.

    Attributes:
        label: Name of the class.
        index: Its number.
        probability: Its probability, 0..1.
        box: Left, top, right and bottom in pixels of the image, which contains the box.
    """

    label: str
    index: int
    probability: float
    box: Box


class Localizer:
    """Finds classes in images, and the box of each.

    The methods are

    - `"crop"`: the boxes that a network which was trained with `task="localize"` returns for the
      crop of its held-out images;
    - `"dense"`: the same network at all places of the whole image, at one or several scales; the
      boxes of a class are merged, and the one with the largest sum of probabilities is taken
      (Simonyan & Zisserman 2014, appendix A);
    - `"center"`: a box in the center, `center_size` as large as the image, whatever it shows: the
      baseline;
    - a method of `cnnkit.visualize.explain_class`, for any classifier: the box around the part of
      the crop that speaks for the class.

    Args:
        model: A network, or the path of a run folder or of a file of a model.
        method: Name of the method; None takes `"crop"` for a network with boxes, else `"gradcam"`.
        scales: Shorter sides of the image for `"dense"`; None takes that of the held-out images.
        classifier: Network whose class probabilities are used in place of its own, as in the paper.
        center_size: Width and height of the box of `"center"`, as fractions of the image.
        options: Arguments of `cnnkit.evaluation.open_classifier`, such as `image_size`.

    Raises:
        UsageError: If there is no such method, the network has no boxes for it, or the classes of
            the two networks differ.
    """

    def __init__(
        self,
        model: keras.Model | ImageClassifier | str | Path,
        *,
        method: str | None = None,
        scales: Sequence[int] | None = None,
        classifier: keras.Model | ImageClassifier | str | Path | None = None,
        center_size: tuple[float, float] = (0.5**0.5, 0.5**0.5),
        **options: Any,
    ) -> None:
        self.network = _open(model, **options)
        self.classifier = self.network if classifier is None else _open(classifier)
        self.class_names = self.network.class_names
        has_boxes = self.network.localizer is not None
        self.method = method or (CROP if has_boxes else "gradcam")
        if self.method not in BOX_METHODS:
            raise unknown_name("method", self.method, BOX_METHODS)
        if self.method in REGRESSIONS and not has_boxes:
            raise without_boxes(self.method)
        if scales is not None and self.method != DENSE:
            raise UsageError("`scales` are for the method dense", received=self.method)
        if self.classifier.class_names != self.class_names:
            raise UsageError(
                "`classifier` must have the classes of the network, in their order",
                expected=", ".join(self.class_names[:3]),
                received=", ".join(self.classifier.class_names[:3]),
            )
        crop = self.network.augmentation
        self.scales = tuple(scales or (crop.scales[0],))
        if min(self.scales) < crop.image_size:
            raise UsageError(
                "`scales` must be as large as the images of the network",
                expected=f"at least {crop.image_size}",
                received=min(self.scales),
            )
        self.center_size = center_size

    def locate(self, image: np.ndarray, *, top: int = 1, name: str = "") -> list[LocatedObject]:
        """Return the most probable classes of an image with their boxes.

        Args:
            image: (h, w, 3) RGB, 0..255.
            top: Number of classes, at most all.
            name: Name of the image, for errors.

        Raises:
            RunError: If the network gives no finite scores.
        """
        probabilities = self.probabilities(image, name)
        order = np.argsort(-probabilities, kind="stable")[:top].tolist()
        boxes = self.boxes(image, order)
        return [
            LocatedObject(self.class_names[i], i, float(probabilities[i]), box)
            for i, box in zip(order, boxes, strict=True)
        ]

    def probabilities(self, image: np.ndarray, name: str = "") -> np.ndarray:
        """Return the probabilities of the classes, (classes,).

        They are those of the center crop; those of `"dense"` are means over the places.
        """
        if self.method == DENSE and self.classifier is self.network:
            found = np.concatenate([outputs for outputs, _ in self._places(image)])
            row = found[:, : len(self.class_names)].mean(axis=0)
        else:
            crop = augment_image(tf.constant(image), self.classifier.augmentation, {})
            row = self.classifier.probabilities(crop.numpy()[None])[0]
        check_scores(row[None], [name])
        return np.asarray(row)

    def boxes(self, image: np.ndarray, classes: Sequence[int]) -> list[Box]:
        """Return a box for each class, in pixels of the image, within it.

        Args:
            image: (h, w, 3) RGB, 0..255.
            classes: Numbers of the classes.
        """
        height, width = image.shape[:2]
        if self.method == CENTER:
            found = [_centered(width, height, self.center_size)] * len(classes)
        elif self.method == DENSE:
            found = self._dense_boxes(image, classes)
        else:
            found = self._crop_boxes(image, classes)
        return [_within(box, width, height) for box in found]

    def _crop_boxes(self, image: np.ndarray, classes: Sequence[int]) -> list[np.ndarray]:
        crop = self.network.augmentation
        pixels = augment_image(tf.constant(image), crop, {})[None]
        if self.method == CROP:
            outputs = self._forward(self.network.localizer, pixels)
            boxes = self._boxes_of_classes(outputs, classes)[0]
        else:
            boxes = np.stack(
                [
                    np.array(attribution_box(one)) / crop.image_size
                    for i in classes
                    for one in self.network.explain(pixels.numpy(), [b""], self.method, i)
                ]
            ).astype(np.float32)
        sides = tf.constant(image.shape[:2])
        return list(image_boxes(tf.constant(boxes), sides, crop).numpy())

    def _dense_boxes(self, image: np.ndarray, classes: Sequence[int]) -> list[np.ndarray]:
        found = []
        places = self._places(image)
        for i in classes:
            scores = np.concatenate([outputs[:, i] for outputs, _ in places])
            boxes = np.concatenate(
                [
                    # A window's corner, then the fractions of its side, in pixels of the image.
                    window[:, [0, 1, 0, 1]]
                    + self._boxes_of_classes(outputs, [i])[:, 0] * window[:, [2, 3, 2, 3]]
                    for outputs, window in places
                ]
            )
            merged, _ = merge_boxes(boxes, scores)
            found.append(merged[0])
        return found

    def _places(self, image: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return outputs (n, units) and windows (n, 4) of the places, for each scale.

        A window is left, top, width and height in pixels of the image.
        """
        classes, results = len(self.class_names), []
        sides = tf.constant(image.shape[:2])
        model, stride = self._everywhere
        for scale in self.scales:
            pixels = extract_crops(array_window_reader(tf.constant(image)), sides, CropSpec(scale))
            outputs = np.asarray(self._forward(model, pixels)[0])
            shape = outputs.shape[:2]
            rows = outputs.reshape(-1, outputs.shape[-1])
            rows = np.concatenate([tf.nn.softmax(rows[:, :classes]), rows[:, classes:]], axis=1)
            scaled, _ = crop_window(sides, Augmentation(scale), {})
            factor = (np.array(image.shape[:2]) / scaled.numpy())[::-1]
            y, x = np.divmod(np.arange(len(rows)), shape[1])
            start = np.stack([x * stride[1], y * stride[0]], axis=1) * factor
            size = np.broadcast_to(self.network.augmentation.image_size * factor, start.shape)
            results.append((rows, np.concatenate([start, size], axis=1)))
        return results

    @cached_property
    def _everywhere(self) -> tuple[keras.Model, tuple[int, int]]:
        """The network for images of any size, up to its logits and boxes, and its stride."""
        whole: Any = self.network.localizer
        logits = keras.Model(whole.inputs[0], logits_tensor(whole), name=whole.name)
        model = to_fully_convolutional(logits)
        side = 2 * self.network.augmentation.image_size
        return model, receptive_field(model, model.layers[-1].name, (side, side)).stride

    def _forward(self, model: keras.Model, images: tf.Tensor) -> np.ndarray:
        return np.asarray(model(images, training=False))

    def _boxes_of_classes(self, outputs: np.ndarray, classes: Sequence[int]) -> np.ndarray:
        """Return the corners of the boxes of classes, (n, len(classes), 4), of outputs."""
        boxes = outputs[:, len(self.class_names) :].reshape(len(outputs), -1, BOX_VALUES)
        last: Any = output_layer(self.network.localizer)
        chosen = list(classes) if last.regression == PER_CLASS else [0] * len(classes)
        return corners(tf.constant(boxes[:, chosen])).numpy()


def _open(model: keras.Model | ImageClassifier | str | Path, **options: Any) -> ImageClassifier:
    if isinstance(model, ImageClassifier):
        return model
    if isinstance(model, str | Path):
        return open_classifier(model, **options)
    return ImageClassifier(model, **options)


def _centered(width: int, height: int, size: tuple[float, float]) -> np.ndarray:
    half = np.array(size) / 2
    fractions = np.concatenate([0.5 - half, 0.5 + half])
    return fractions * [width, height, width, height]


def _within(box: np.ndarray, width: int, height: int) -> Box:
    left, top, right, bottom = np.clip(box, 0, [width, height, width, height]).tolist()
    return left, top, right, bottom
