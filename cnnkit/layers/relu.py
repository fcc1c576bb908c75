"""ReLU with a backward pass that can follow the deconvnet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from cnnkit.layers.backward_rules import current_rule


@keras.saving.register_keras_serializable(package="cnnkit")
class ReLU(keras.layers.Layer):
    """Rectified linear unit, max(x, 0) (Krizhevsky et al. 2012, section 3.1).

    The backward pass follows `cnnkit.layers.backward_rule`: by default the gradient, otherwise the
    rule of the deconvnet (Zeiler & Fergus 2013, section 2.1) or of guided back-propagation. An
    instance can be the `activation=` of another layer.

    Input and output: any shape, any float dtype; the dtype of the input is kept.

    Example:
        >>> import numpy as np
        >>> from cnnkit.layers import ReLU
        >>> ReLU()(np.array([-1.0, 2.0], "float32")).numpy()
        array([0., 2.], dtype=float32)
    """

    def __init__(self, **kwargs: Any) -> None:
        # max(x, 0) is exact in every dtype, so the input is not cast.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.supports_masking = True
        # Like Keras's layers without weights: what fuses a layer counts as built once it exists.
        self._build_at_init()

    def call(self, inputs: Any) -> Any:
        return relu_with_rule(inputs)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def compute_output_spec(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        # Keras would take the compute dtype of the policy.
        return keras.KerasTensor(inputs.shape, inputs.dtype)


def relu_with_rule(inputs: Any) -> Any:
    """Return max(x, 0), with the backward pass of `ReLU`.

    Args:
        inputs: Any shape, any float dtype.

    Example:
        >>> import numpy as np
        >>> from cnnkit.layers.relu import relu_with_rule
        >>> relu_with_rule(np.array([-1.0, 2.0], "float32")).numpy()
        array([0., 2.], dtype=float32)
    """
    rule = current_rule()
    if rule == "gradient":
        return ops.relu(inputs)

    @ops.custom_gradient
    def forward(x: Any) -> tuple[Any, Callable[..., Any]]:
        def backward(*args: Any, upstream: Any = None) -> Any:
            # TensorFlow and JAX pass the signal by position, PyTorch by keyword.
            signal = ops.relu(args[0] if upstream is None else upstream)
            return ops.where(x > 0, signal, ops.zeros_like(signal)) if rule == "guided" else signal

        return ops.relu(x), backward

    return forward(inputs)
