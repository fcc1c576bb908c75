"""Stochastic gradient descent with the papers' update rule.

This is the only file that uses the parts of Keras's optimizers that are private or low-level:
`update_step`, `momentums`, `_get_variable_index`, and TensorFlow's `raw_ops` behind them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import keras
from keras import ops

from cnnkit._network_names import check_multipliers

# Arguments of version 0.1.0, which saved models hold, and their names today.
_RENAMED = {
    "decay_biases": "weight_decay_on_biases",
    "rate_multipliers": "lr_multipliers",
    "decay_multipliers": "weight_decay_multipliers",
}


@keras.saving.register_keras_serializable(package="cnnkit")
class SGD(keras.optimizers.SGD):
    """SGD with momentum and weight decay inside the momentum (Krizhevsky et al. 2012, section 5).

    v <- momentum * v - learning_rate * (gradient + decay * w);  w <- w + v

    The `weight_decay` of Keras shrinks the weights outside the momentum, which is about ten times
    weaker at a momentum of 0.9, and shrinks biases too. Here biases do not decay by default, as in
    the authors' later code; the paper writes the rule for a weight.

    Args:
        learning_rate: Step size.
        momentum: Fraction of the last step that is kept, 0..1.
        decay: Weight decay.
        weight_decay_on_biases: Whether biases decay too.
        lr_multipliers: Factors of the learning rate by pattern of `LAYER/VARIABLE`, for example
            `{"*/bias": 2}` for the biases of cuda-convnet and Caffe. The first matching pattern
            counts.
        weight_decay_multipliers: Factors of the weight decay in the same form.
        max_filter_rms: Largest root mean square of a convolution's filter, over height, width and
            input channels; a larger filter is scaled down to it after the step (Zeiler & Fergus
            2013, section 3.1: 0.1).
        **kwargs: Other arguments of `keras.optimizers.SGD`.

    Example:
        >>> from cnnkit.training import SGD
        >>> SGD(0.01, momentum=0.9, decay=5e-4).decay
        0.0005
    """

    def __init__(
        self,
        learning_rate: float = 0.01,
        momentum: float = 0.9,
        decay: float = 0.0,
        weight_decay_on_biases: bool = False,
        lr_multipliers: Mapping[str, float] | None = None,
        weight_decay_multipliers: Mapping[str, float] | None = None,
        max_filter_rms: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, momentum=momentum, **kwargs)
        self.decay = decay
        self.weight_decay_on_biases = weight_decay_on_biases
        self.lr_multipliers = dict(lr_multipliers or {})
        self.weight_decay_multipliers = dict(weight_decay_multipliers or {})
        self.max_filter_rms = max_filter_rms

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the momentum of each variable.

        Raises:
            UsageError: If a pattern of the multipliers matches no variable.
        """
        # Computed here: `update_step` receives TensorFlow's variable, whose name is another one.
        names = ["/".join(variable.path.split("/")[-2:]) for variable in variables]
        biases = [variable.name == "bias" for variable in variables]
        self._rates = _multipliers("lr_multipliers", self.lr_multipliers, names)
        factors = _multipliers("weight_decay_multipliers", self.weight_decay_multipliers, names)
        self._decays = [
            0.0 if bias and not self.weight_decay_on_biases else self.decay * factor
            for bias, factor in zip(biases, factors, strict=True)
        ]
        self._are_filters = [
            variable.name == "kernel" and len(variable.shape) == 4 for variable in variables
        ]
        super().build(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable.

        Args:
            gradient: Gradient of the loss.
            variable: A variable that `build` received, or TensorFlow's variable behind it.
            learning_rate: The learning rate, before its multiplier.
        """
        index = self._get_variable_index(variable)
        decay = self._decays[index]
        if self._rates[index] != 1:
            learning_rate = learning_rate * self._rates[index]
        in_place = self.momentum and keras.backend.backend() == "tensorflow"
        # Nesterov's step applies the decay a second time, outside the velocity.
        if decay and (self.nesterov or not in_place):
            gradient, decay = gradient + decay * ops.cast(variable, gradient.dtype), 0.0
        if in_place:
            velocity = self.momentums[index]
            self._apply_momentum(gradient, variable, velocity, learning_rate, decay)
        else:
            super().update_step(gradient, variable, learning_rate)
        if self.max_filter_rms is not None and self._are_filters[index]:
            self.assign(variable, clip_filter_rms(variable, self.max_filter_rms))

    def _apply_momentum(
        self, gradient: Any, variable: Any, velocity: Any, learning_rate: Any, decay: float
    ) -> None:
        """Do Keras's step in place, in one pass over the memory and another one for the decay.

        With the 61 million weights of AlexNet, separate operations take twice as long and hold
        copies of the weights.
        """
        import tensorflow as tf

        dtype = variable.dtype
        if decay:
            # Divided by the momentum, which multiplies the velocity in the next operation.
            tf.raw_ops.ResourceApplyGradientDescent(
                var=_resource_handle(velocity),
                alpha=tf.cast(learning_rate * (decay / self.momentum), dtype),
                delta=tf.convert_to_tensor(variable),
            )
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=_resource_handle(variable),
            accum=_resource_handle(velocity),
            lr=tf.cast(learning_rate, dtype),
            grad=tf.cast(gradient, dtype),
            momentum=tf.cast(self.momentum, dtype),
            use_nesterov=self.nesterov,
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "decay": self.decay,
            "weight_decay_on_biases": self.weight_decay_on_biases,
            "lr_multipliers": self.lr_multipliers,
            "weight_decay_multipliers": self.weight_decay_multipliers,
            "max_filter_rms": self.max_filter_rms,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> SGD:
        """Return an optimizer from the result of `get_config`, of version 0.1.0 too."""
        renamed = {_RENAMED.get(name, name): value for name, value in config.items()}
        return super().from_config(renamed, custom_objects)


def _resource_handle(variable: Any) -> Any:
    """Return the resource handle of a variable, of the local copy if it is replicated."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle


def clip_filter_rms(kernel: Any, limit: float) -> Any:
    """Scale the filters of a convolution down to a root mean square of at most `limit`.

    Args:
        kernel: (height, width, input channels, filters).
        limit: Largest root mean square of a filter.

    Returns:
        The kernel; filters within the limit keep their bits.

    Example:
        >>> import numpy as np
        >>> float(clip_filter_rms(np.full((7, 7, 3, 1), 0.4, "float32"), 0.1)[0, 0, 0, 0])
        0.10000000149011612
    """
    kernel = ops.convert_to_tensor(kernel)
    rms = ops.sqrt(ops.mean(ops.square(kernel), axis=(0, 1, 2)))
    # A filter within the limit is divided by exactly 1.
    return kernel / ops.maximum(rms / limit, 1)


def _multipliers(field: str, patterns: Mapping[str, float], names: list[str]) -> list[float]:
    check_multipliers(field, patterns, names)
    return [
        next((factor for pattern, factor in patterns.items() if fnmatchcase(name, pattern)), 1.0)
        for name in names
    ]
