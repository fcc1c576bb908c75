"""Localizers: networks that end in the probabilities of classes and in boxes, and their parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from cnnkit.errors import UsageError
from cnnkit.layers import ClassBoxes, ClassProbabilities
from cnnkit.layers.class_boxes import BOX_VALUES, output_units
from cnnkit.models.class_names import is_localizer
from cnnkit.models.logits import logits_tensor, output_layer
from cnnkit.models.registry import build
from cnnkit.models.surgery.sequential import layers_with_weights

# Name of the last layer.
CLASS_BOXES = "class_boxes"
# Center, width and height of a box in the center with half of the area.
START_BOX = (0.5, 0.5, 0.5**0.5, 0.5**0.5)


def build_localizer(
    name: str,
    class_names: Sequence[str],
    regression: str,
    options: Mapping[str, Any] | None = None,
) -> keras.Model:
    """Build a network whose last layer has boxes beside the classes.

    Simonyan & Zisserman 2014, appendix A, whose network has the boxes alone: its classes are those
    of another network.

    Args:
        name: Name of the network.
        class_names: Names of the classes.
        regression: `"per-class"` for a box of each class, `"single"` for one box.
        options: Further arguments of its builder.

    Returns:
        A model from images to (n, classes + 4 * boxes): the probabilities, then x and y of the
        center, width and height of the boxes, as fractions of the side of the images.

    Example:
        >>> from cnnkit.models.localizer import build_localizer
        >>> small = {"input_shape": (64, 64, 3), "hidden_units": 8}
        >>> build_localizer("zfnet", ["cat", "dog"], "per-class", small).output_shape
        (None, 10)
    """
    units = output_units(len(class_names), regression)
    network = build(name, **{**(options or {}), "classes": units})
    boxes = ClassBoxes(class_names, regression, name=CLASS_BOXES)
    model = keras.Model(network.inputs[0], boxes(logits_tensor(network)), name=network.name)
    start_boxes(model)
    return model


def start_boxes(model: keras.Model) -> None:
    """Let the boxes of a localizer begin as one in the center, half as large as the image."""
    last, boxes = layers_with_weights(model.layers)[-1], output_layer(model)
    if not (isinstance(boxes, ClassBoxes) and getattr(last, "use_bias", False)):
        return
    *kernel, bias = last.get_weights()
    classes = len(boxes.class_names)
    bias[classes:] = np.tile(START_BOX, (len(bias) - classes) // BOX_VALUES)
    last.set_weights([*kernel, bias])


def box_part(model: keras.Model, features: keras.KerasTensor) -> keras.layers.Layer:
    """Return a dense layer of the boxes of a localizer, with a copy of its weights.

    Args:
        model: The localizer, which `class_part` accepts.
        features: What the layer takes: the input of the last layer with weights.
    """
    boxes: Any = output_layer(model)
    last, classes = layers_with_weights(model.layers)[-1], len(boxes.class_names)
    layer = keras.layers.Dense(
        last.units - classes, name="boxes", use_bias=last.use_bias, dtype="float32"
    )
    layer(features)
    layer.set_weights([np.asarray(weight)[..., classes:] for weight in last.get_weights()])
    return layer


def class_part(model: keras.Model) -> keras.Model:
    """Return the classifier in a localizer, with a copy of its last layer; others are returned.

    Args:
        model: The localizer, or any model.

    Raises:
        UsageError: If the last layer with weights does not return the logits and the boxes.
    """
    if not is_localizer(model):
        return model
    boxes: Any = output_layer(model)
    classes = len(boxes.class_names)
    last = layers_with_weights(model.layers)[-1]
    outputs = logits_tensor(model)
    if not isinstance(last, keras.layers.Dense) or last.output is not outputs:
        raise UsageError(
            f"Model {model.name!r} must return its boxes by its last layer",
            expected="a dense layer",
            received=f"{type(last).__name__} {last.name!r}",
        )
    logits = keras.layers.Dense(classes, name=last.name, use_bias=last.use_bias)
    tensor = ClassProbabilities(class_names=boxes.class_names, name="probabilities")(
        logits(last.input)
    )
    logits.set_weights([np.asarray(weight)[..., :classes] for weight in last.get_weights()])
    return keras.Model(model.inputs[0], tensor, name=model.name)
