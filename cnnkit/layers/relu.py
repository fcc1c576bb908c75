"""The rectifier whose backward pass can follow the deconvnet."""

from __future__ import annotations

import keras
from keras import ops

from cnnkit.layers.backward_rules import current_rule


@keras.saving.register_keras_serializable(package="cnnkit")
class ReLU(keras.layers.Layer):
    """Rectified linear unit, max(x, 0) (Krizhevsky et al. 2012, section 3.1).

    Its backward pass follows the rule of `cnnkit.layers.backward_rule`: the derivative when
    training, the deconvnet's or guided back-propagation's rectifier when looking inside
    (Zeiler & Fergus 2013, section 2.1). An instance serves as the `activation=` of another layer.

    Input and output: any shape, any float dtype; the dtype of the input is kept.

    Example:
        >>> import numpy as np
        >>> from cnnkit.layers import ReLU
        >>> ReLU()(np.array([-1.0, 2.0], "float32")).numpy()
        array([0., 2.], dtype=float32)
    """

    def __init__(self, **kwargs):
        # The rectifier is exact in every dtype, so it takes what the layer before it computes.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs):
        return rectify(inputs)

    def compute_output_shape(self, input_shape):
        return input_shape


def rectify(inputs):
    """Returns max(x, 0), whose backward pass follows the rule in force, as that of `ReLU`.

    Args:
        inputs: Any shape, any float dtype.

    Example:
        >>> import numpy as np
        >>> from cnnkit.layers.relu import rectify
        >>> rectify(np.array([-1.0, 2.0], "float32")).numpy()
        array([0., 2.], dtype=float32)
    """
    rule = current_rule()
    if rule == "gradient":
        return ops.relu(inputs)

    @ops.custom_gradient
    def forward(x):
        def backward(*args, upstream=None):
            # TensorFlow and JAX hand the signal over by position, PyTorch by keyword.
            signal = ops.relu(args[0] if upstream is None else upstream)
            return ops.where(x > 0, signal, ops.zeros_like(signal)) if rule == "guided" else signal

        return ops.relu(x), backward

    return forward(inputs)
