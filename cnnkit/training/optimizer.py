"""Stochastic gradient descent as the papers write it."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="cnnkit")
class SGD(keras.optimizers.SGD):
    """SGD with momentum and weight decay inside the momentum (Krizhevsky et al. 2012, section 5).

    v <- momentum * v - learning_rate * (gradient + decay * w);  w <- w + v

    Keras's own `weight_decay` shrinks the weights beside the momentum, which is about ten times
    weaker at a momentum of 0.9, and shrinks biases too. Here biases are left alone, as in the
    authors' later code; the paper writes the rule for a weight.

    Args:
        learning_rate: Step size.
        momentum: Part of the last step that is kept.
        decay: Weight decay.

    Example:
        >>> from cnnkit.training import SGD
        >>> SGD(0.01, momentum=0.9, decay=5e-4).decay
        0.0005
    """

    def __init__(self, learning_rate=0.01, momentum=0.9, decay=0.0, **kwargs):
        super().__init__(learning_rate=learning_rate, momentum=momentum, **kwargs)
        self.decay = decay

    def build(self, variables):
        # TensorFlow hands `update_step` its own variable, whose name is not the field's.
        self._decays = [variable.name != "bias" for variable in variables]
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate):
        if self.decay and self._decays[self._get_variable_index(variable)]:
            gradient = gradient + self.decay * ops.cast(variable, gradient.dtype)
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        return {**super().get_config(), "decay": self.decay}
