"""Copy weights from one network to another."""

from __future__ import annotations

import keras

from cnnkit.errors import UsageError, unknown_name
from cnnkit.models.surgery.sequential import SurgeryResult, layers_with_weights, weight_shapes

COPY_RULES = ("by-name", "features", "vgg-staged")

# Simonyan & Zisserman 2014, section 3.1: the deeper columns start from the first four convolutions
# and the last three dense layers of column A. Counted from the input, A's second convolution
# (64 -> 128) does not fit B's (64 -> 64), so layers are matched by their number in the block.
STAGED_CONVOLUTIONS = ("block1_conv1", "block2_conv1", "block3_conv1", "block3_conv2")
STAGED_DENSE = ("fc1", "fc2", "predictions")


def copy_weights(source: keras.Model, target: keras.Model, rule: str = "by-name") -> SurgeryResult:
    """Copy weights of `source` to `target`.

    `target` itself is changed. All checks come first, so an error leaves it unchanged.

    Args:
        source: The network whose weights are read.
        target: The network whose weights are written.
        rule: `"by-name"`: every layer of the same name and shapes; others stay unchanged.
            `"features"`: the same without the last layer of `target`, for other classes.
            `"vgg-staged"`: the initialization of the deeper VGG networks (Simonyan & Zisserman
            2014, section 3.1): `block1_conv1 block2_conv1 block3_conv1 block3_conv2`, and those of
            `fc1 fc2 predictions` that both networks have. Shapes must be equal.

    Returns:
        A `SurgeryResult` with `target` itself. Its `reinitialized` lists the unchanged layers.

    Raises:
        UsageError: If the rule is unknown or a network is not built; under `"vgg-staged"` also if
            a convolution of the four is missing or a shape differs.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.models.surgery import copy_weights
        >>> source = alexnet(input_shape=(64, 64, 3), classes=3)
        >>> copy_weights(source, alexnet(input_shape=(64, 64, 3), classes=5)).reinitialized
        ('fc8',)
    """
    if rule not in COPY_RULES:
        raise unknown_name("rule", rule, COPY_RULES)
    for model in (source, target):
        if not model.built:
            raise UsageError(
                f"Model {model.name!r} has no weights yet", expected="a model that has been built"
            )
    sources = {layer.name: layer for layer in layers_with_weights(source.layers)}
    targets = {layer.name: layer for layer in layers_with_weights(target.layers)}
    fitting = [name for name in targets if name in sources]
    if rule == "vgg-staged":
        fitting = _staged(source, target, sources, targets)
    else:
        fitting = [
            name for name in fitting if weight_shapes(sources[name]) == weight_shapes(targets[name])
        ]
        if rule == "features":
            fitting = [name for name in fitting if name != list(targets)[-1]]
    values = [(targets[name], sources[name].get_weights()) for name in fitting]
    for layer, weights in values:
        layer.set_weights(weights)
    unchanged = tuple(name for name in targets if name not in fitting)
    return SurgeryResult(target, tuple(fitting), unchanged)


def _staged(
    source: keras.Model,
    target: keras.Model,
    sources: dict[str, keras.layers.Layer],
    targets: dict[str, keras.layers.Layer],
) -> list[str]:
    """Return the names of the layers that "vgg-staged" copies, in the order of the target."""
    for model, layers in ((source, sources), (target, targets)):
        missing = [name for name in STAGED_CONVOLUTIONS if name not in layers]
        if missing:
            raise UsageError(
                f"Model {model.name!r} is not a VGG network",
                expected=f"layers {', '.join(STAGED_CONVOLUTIONS)}",
                received=f"none called {', '.join(missing)}",
            )
    staged = (*STAGED_CONVOLUTIONS, *STAGED_DENSE)
    names = [name for name in targets if name in staged and name in sources]
    for name in names:
        wanted, given = weight_shapes(targets[name]), weight_shapes(sources[name])
        if wanted != given:
            raise UsageError(
                f"The weights of layer {name!r} do not fit {target.name!r}",
                expected=wanted,
                received=f"{given} in {source.name!r}",
                hint="Give both networks the same image size and classes (resize_input and"
                " replace_head do that), or copy by-name, which leaves the layer as it is",
            )
    return names
