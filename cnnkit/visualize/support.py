"""Which layers a rule-aware backward pass can go through."""

from __future__ import annotations

import keras

from cnnkit.errors import UsageError
from cnnkit.layers import LocalResponseNormalization, ReLU, SubtractMean

# Linear layers, whose transpose is their derivative; max-pooling, whose derivative is the unpooling
# with switches; and our own, which follow the rule.
FOLLOWING = (
    keras.layers.AveragePooling2D,
    keras.layers.Conv2D,
    keras.layers.Dense,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.InputLayer,
    keras.layers.MaxPooling2D,
    keras.layers.ZeroPadding2D,
    LocalResponseNormalization,
    ReLU,
    SubtractMean,
)


def check_rule_aware(network: keras.Model, rule: str) -> None:
    """Makes sure that every layer of `network` follows `rule` on the way down.

    Raises:
        UsageError: If one would pass down its plain derivative instead; the layer is named.
    """
    if rule == "gradient":
        return
    for layer in network.layers:
        activation = getattr(layer, "activation", keras.activations.linear)
        follows = isinstance(activation, ReLU) or activation is keras.activations.linear
        if isinstance(layer, FOLLOWING) and follows:
            continue
        kind = type(layer).__name__
        name = getattr(activation, "__name__", type(activation).__name__)
        raise UsageError(
            f"Layer {layer.name!r} does not follow the rule {rule!r} on the way down",
            expected="convolutions, dense layers, pooling and cnnkit.layers.ReLU as the activation",
            received=kind if follows else f"{kind} with activation {name}",
        )
