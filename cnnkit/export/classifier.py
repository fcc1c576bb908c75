"""Prepare a trained classifier for export: probabilities, features, dtype."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from cnnkit.data import Augmentation
from cnnkit.errors import UsageError, unknown_name
from cnnkit.layers import SubtractMean
from cnnkit.layers.class_boxes import BOX_VALUES
from cnnkit.models import get_layer, to_fully_convolutional
from cnnkit.models.class_names import class_count, is_localizer
from cnnkit.models.graph import Graph, build_graph, read_nodes
from cnnkit.models.localizer import box_part, class_part
from cnnkit.models.logits import output_layer
from cnnkit.models.preprocessing import Preprocessing
from cnnkit.models.surgery.sequential import layers_with_weights

# Types that the weights of an export can have.
DTYPES = ("float32", "bfloat16")
_WITH_KERNEL = (keras.layers.Conv2D, keras.layers.Dense)


@dataclass(frozen=True)
class ServedClassifier:
    """A classifier that is ready for export.

    Attributes:
        graph: The graph of `model`, read once.
        image_size: Side of the square images that it was trained on, in pixels.
        variable_size: Whether it takes images of every height and width from `image_size` on.
        dtype: What it computes in: one of `DTYPES`.
        features_layer: Name of the layer whose output the logits are computed from, or None.
        boxes: From images to (n, boxes, 4), x and y of the center, width and height as fractions of
            the side; None for a network without boxes.
    """

    graph: Graph
    image_size: int
    variable_size: bool
    dtype: str
    features_layer: str | None
    boxes: keras.Model | None = None

    @property
    def model(self) -> keras.Model:
        """Model of probabilities: (n, classes), or (n, rows, columns, classes) if convolutional."""
        return self.graph.model

    @property
    def preprocessing(self) -> Preprocessing | None:
        """The normalization inside the network, or None if it has no such layer."""
        for layer in self.model.layers:
            if isinstance(layer, SubtractMean):
                return Preprocessing(layer.mean, layer.std)
        return None

    def find_features_layer(self) -> keras.layers.Layer:
        """Returns the layer of features.

        Raises:
            UsageError: If the network has none.
        """
        if self.features_layer is None:
            raise UsageError(
                f"Model {self.model.name!r} has no layer of features before its logits",
                hint="Leave features and features_bytes out of the signatures",
            )
        return get_layer(self.model, self.features_layer)

    def features_model(self) -> keras.Model:
        """Returns the model from the input to the layer of features."""
        return keras.Model(self.model.inputs[0], self.find_features_layer().output)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all parameters."""
        return sum(
            variable.value.shape.num_elements() * variable.value.dtype.size
            for variable in self.weights
        )

    @property
    def weights(self) -> list[keras.Variable]:
        """All parameters, each once."""
        of_boxes = [] if self.boxes is None else self.boxes.get_layer("boxes").weights
        return [*self.model.weights, *of_boxes]


def prepare_classifier(
    model: keras.Model,
    *,
    dtype: str = "float32",
    fully_convolutional: bool = False,
    features_layer: str | None = None,
) -> ServedClassifier:
    """Returns a classifier that is ready for export; `model` itself stays unchanged.

    Args:
        model: A classifier of square images of one size.
        dtype: What the copy computes in: one of `DTYPES`.
        fully_convolutional: Whether the copy takes larger images too.
        features_layer: Name of the layer of features; None for the one before the logits.

    Raises:
        UsageError: If the model does not take square images of one size, the dtype or the layer is
            unknown, or the model cannot be made fully convolutional.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.export.classifier import prepare_classifier
        >>> prepare_classifier(alexnet(input_shape=(64, 64, 3), classes=2)).features_layer
        'fc7'
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    if len(model.inputs) != 1 or len(model.input_shape) != 4 or len(model.outputs) != 1:
        raise UsageError(
            "`model` must have one input (n, h, w, c) and one output",
            received=f"{len(model.inputs)} of shape {model.input_shape}, {len(model.outputs)}",
        )
    height, width, _ = model.input_shape[1:]
    if height is None or height != width:
        raise UsageError(
            "`model` must be built for one image size, height equal to width",
            received=f"{height} x {width}",
            hint="Build it with a square input_shape, or use cnnkit.models.resize_input",
        )
    whole, model = model, class_part(model)
    if fully_convolutional:
        model = to_fully_convolutional(model)
    if dtype == "bfloat16":
        model = _in_bfloat16(model)
    model = _with_softmax(model)
    features_layer = (
        get_layer(model, features_layer).name if features_layer else _layer_before_logits(model)
    )
    boxes = None if fully_convolutional else _boxes(whole, model)
    return ServedClassifier(
        build_graph(model), height, fully_convolutional, dtype, features_layer, boxes
    )


def check_label_count(model: keras.Model, labels: Sequence[str]) -> None:
    """Checks that there is one label for each class of a model.

    Raises:
        UsageError: If there are more or fewer.
    """
    classes = class_count(model) if is_localizer(model) else model.output_shape[-1]
    if classes != len(labels):
        raise UsageError(
            f"`labels` must hold one name for each of the {classes} classes of the model",
            expected=f"{classes} labels",
            received=len(labels),
        )


def center_crop(network: ServedClassifier, augmentation: Augmentation | None) -> Augmentation:
    """Returns the rescaling and the center crop of encoded images, without random choices.

    Args:
        network: The classifier.
        augmentation: That of its training; None rescales the shorter side to the image size.

    Raises:
        UsageError: If it is for another image size.
    """
    if augmentation is None:
        return Augmentation(network.image_size)
    if augmentation.image_size != network.image_size:
        raise UsageError(
            "`augmentation` must have the image size of the model",
            expected=f"{network.image_size} pixels",
            received=augmentation.image_size,
        )
    # A served network uses no random choices.
    return dataclasses.replace(augmentation, crop="center", flip=False, color=None)


def _boxes(whole: keras.Model, model: keras.Model) -> keras.Model | None:
    """Returns the model of the boxes of a localizer, on the layers of its classifier `model`."""
    if not is_localizer(whole):
        return None
    features = layers_with_weights(model.layers)[-1].input
    boxes = box_part(whole, features)(features)
    return keras.Model(model.inputs[0], keras.layers.Reshape((-1, BOX_VALUES))(boxes))


def _with_softmax(model: keras.Model) -> keras.Model:
    """Returns a model of probabilities; a model may end in its logits, also inside of a model."""
    last = output_layer(model)
    linear = getattr(last, "activation", None) in (None, keras.activations.linear)
    if not (linear and isinstance(last, _WITH_KERNEL)):
        return model
    # One logit is that of class 1 against class 0: a softmax of it would always be 1.
    single = model.outputs[0].shape[-1] == 1
    end = keras.layers.Activation if single else keras.layers.Softmax
    options = {"activation": "sigmoid"} if single else {}
    probabilities = end(**options, name="probabilities", dtype="float32")(model.outputs[0])
    return keras.Model(model.inputs[0], probabilities, name=model.name)


def _layer_before_logits(model: keras.Model) -> str | None:
    """Returns the name of the layer before the logits, for example fc7 or VGG's fc2."""
    weighted = [layer for layer in model.layers if isinstance(layer, _WITH_KERNEL)]
    passed = (keras.layers.Dropout, keras.layers.Flatten)
    if not weighted:
        return None
    nodes = {node.output: node for node in read_nodes(model, expand=False)}
    below = next(node for node in nodes.values() if node.layer is weighted[-1]).inputs[0]
    while below in nodes and isinstance(nodes[below].layer, passed):
        below = nodes[below].inputs[0]
    return nodes[below].layer.name if below in nodes else None


def in_float32(model: keras.Model) -> keras.Model:
    """Returns the model, or a copy in float32 if a layer computes in another type.

    Args:
        model: The model, for example one that was trained in mixed precision.
    """
    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model
    return _in_dtype(model, "float32", set())


def _in_bfloat16(model: keras.Model) -> keras.Model:
    """Returns a copy in bfloat16, except for the logits and the layers after them.

    A thousand probabilities that differ in the third digit would be equal in 8 bits of mantissa.
    """
    weighted = [layer.name for layer in model.layers if isinstance(layer, _WITH_KERNEL)]
    names = [layer.name for layer in model.layers]
    float32 = set(names[names.index(weighted[-1]) :]) if weighted else set()
    return _in_dtype(model, "bfloat16", float32)


def _in_dtype(model: keras.Model, dtype: str, unchanged: set[str]) -> keras.Model:
    """Returns a copy that computes in another type, except for some layers."""

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.name not in unchanged and not isinstance(layer, keras.layers.InputLayer):
            config["dtype"] = dtype
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone)
    for old, new in zip(model.layers, copy.layers, strict=True):
        new.set_weights(old.get_weights())
        if isinstance(old, SubtractMean):
            new.set_statistics(old.mean, old.std)
    return copy
