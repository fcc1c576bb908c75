"""Weights from one network into another."""

from __future__ import annotations

import keras

from cnnkit.errors import UsageError, unknown_name
from cnnkit.models.surgery.sequential import SurgeryResult, weight_shapes, with_layer_weights

COPY_RULES = ("by-name", "vgg-staged")

# Simonyan & Zisserman 2014, section 3.1: the first four convolutions and the last three dense
# layers of column A begin the deeper columns. Counted from the input, A's second convolution
# (64 -> 128) does not fit B's (64 -> 64): only the place within the block does.
STAGED_CONVOLUTIONS = ("block1_conv1", "block2_conv1", "block3_conv1", "block3_conv2")
STAGED_DENSE = ("fc1", "fc2", "predictions")


def copy_weights(source: keras.Model, target: keras.Model, rule: str = "by-name") -> SurgeryResult:
    """Copies weights of `source` into `target`: all that the rule allows, or nothing on an error.

    It writes into `target`; everything is checked before anything is written.

    Args:
        source: The network whose weights are read.
        target: The network whose weights are written.
        rule: `"by-name"`: every layer of the same name and shapes; another shape stays as it was.
            `"vgg-staged"`: how the deeper VGG networks began (Simonyan & Zisserman 2014, section
            3.1): `block1_conv1 block2_conv1 block3_conv1 block3_conv2`, and of `fc1 fc2
            predictions` those that both networks have. Shapes have to be the same.

    Returns:
        A `SurgeryResult`: `target` itself, and its layers that were filled or stay as they were.

    Raises:
        UsageError: If the rule is unknown or a network is not built; under `"vgg-staged"` also if
            a convolution of the four is missing or a shape differs.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.models.surgery import copy_weights
        >>> source = alexnet(input_shape=(64, 64, 3), classes=3)
        >>> copy_weights(source, alexnet(input_shape=(64, 64, 3), classes=5)).fresh
        ('fc8',)
    """
    if rule not in COPY_RULES:
        raise unknown_name("rule", rule, COPY_RULES)
    for model in (source, target):
        if not model.built:
            raise UsageError(
                f"Model {model.name!r} has no weights yet", expected="a model that has been built"
            )
    givers = {layer.name: layer for layer in with_layer_weights(source.layers)}
    takers = {layer.name: layer for layer in with_layer_weights(target.layers)}
    fitting = [name for name in takers if name in givers]
    if rule == "vgg-staged":
        fitting = _staged(source, target, givers, takers)
    else:
        fitting = [
            name for name in fitting if weight_shapes(givers[name]) == weight_shapes(takers[name])
        ]
    values = [(takers[name], givers[name].get_weights()) for name in fitting]
    for layer, weights in values:
        layer.set_weights(weights)
    fresh = tuple(name for name in takers if name not in fitting)
    return SurgeryResult(target, tuple(fitting), fresh)


def _staged(source: keras.Model, target: keras.Model, givers: dict, takers: dict) -> list[str]:
    """Returns the names that "vgg-staged" copies, in the order of the target."""
    for model, layers in ((source, givers), (target, takers)):
        missing = [name for name in STAGED_CONVOLUTIONS if name not in layers]
        if missing:
            raise UsageError(
                f"Model {model.name!r} is no VGG network",
                expected=f"layers {', '.join(STAGED_CONVOLUTIONS)}",
                received=f"none called {', '.join(missing)}",
            )
    staged = (*STAGED_CONVOLUTIONS, *STAGED_DENSE)
    names = [name for name in takers if name in staged and name in givers]
    for name in names:
        wanted, given = weight_shapes(takers[name]), weight_shapes(givers[name])
        if wanted != given:
            raise UsageError(
                f"The weights of layer {name!r} do not fit {target.name!r}",
                expected=wanted,
                received=f"{given} in {source.name!r}",
                hint="Give both networks the same image size and classes (resize_input and"
                " replace_head do that), or copy by-name, which leaves the layer as it is",
            )
    return names
