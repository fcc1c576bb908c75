"""Stochastic gradient descent as the papers write it."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import keras
from keras import ops

from cnnkit.errors import UsageError


@keras.saving.register_keras_serializable(package="cnnkit")
class SGD(keras.optimizers.SGD):
    """SGD with momentum and weight decay inside the momentum (Krizhevsky et al. 2012, section 5).

    v <- momentum * v - learning_rate * (gradient + decay * w);  w <- w + v

    Keras's own `weight_decay` shrinks the weights beside the momentum, which is about ten times
    weaker at a momentum of 0.9, and shrinks biases too. Here biases are left alone by default, as
    in the authors' later code; the paper writes the rule for a weight.

    Args:
        learning_rate: Step size.
        momentum: Part of the last step that is kept.
        decay: Weight decay.
        weight_decay_on_biases: Whether biases decay too.
        lr_multipliers: Factors of the learning rate by pattern of `LAYER/VARIABLE`, for example
            `{"*/bias": 2}`: cuda-convnet's and Caffe's biases. The first pattern that fits counts.
        weight_decay_multipliers: The same for the decay.
        max_filter_rms: Root mean square, over height, width and input channels, above which a
            filter of a convolution is scaled back to it after the step (Zeiler & Fergus 2013,
            section 3.1: 0.1).

    Example:
        >>> from cnnkit.training import SGD
        >>> SGD(0.01, momentum=0.9, decay=5e-4).decay
        0.0005
    """

    def __init__(
        self,
        learning_rate=0.01,
        momentum=0.9,
        decay=0.0,
        weight_decay_on_biases=False,
        lr_multipliers: Mapping[str, float] | None = None,
        weight_decay_multipliers: Mapping[str, float] | None = None,
        max_filter_rms: float | None = None,
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, momentum=momentum, **kwargs)
        self.decay = decay
        self.weight_decay_on_biases = weight_decay_on_biases
        self.lr_multipliers = dict(lr_multipliers or {})
        self.weight_decay_multipliers = dict(weight_decay_multipliers or {})
        self.max_filter_rms = max_filter_rms

    def build(self, variables):
        """Makes the momenta of `variables`.

        Raises:
            UsageError: If a pattern of a multiplier fits no variable.
        """
        # TensorFlow hands `update_step` its own variable, whose name is not the field's.
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

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        decay = self._decays[index]
        if self._rates[index] != 1:
            learning_rate = learning_rate * self._rates[index]
        in_place = self.momentum and keras.backend.backend() == "tensorflow"
        # Nesterov's step adds the decay once more, beside the velocity.
        if decay and (self.nesterov or not in_place):
            gradient, decay = gradient + decay * ops.cast(variable, gradient.dtype), 0.0
        if in_place:
            velocity = self.momentums[index]
            self._apply_momentum(gradient, variable, velocity, learning_rate, decay)
        else:
            super().update_step(gradient, variable, learning_rate)
        if self.max_filter_rms is not None and self._are_filters[index]:
            self.assign(variable, clip_filter_rms(variable, self.max_filter_rms))

    def _apply_momentum(self, gradient, variable, velocity, learning_rate, decay: float) -> None:
        """Does what Keras's step does, in place, in one pass over the memory and one for decay.

        With AlexNet's 61 million weights separate operations take twice as long, and hold copies
        of them.
        """
        import tensorflow as tf

        dtype = variable.dtype
        if decay:
            # What the momentum will shrink, as it shrinks all that is in the velocity.
            tf.raw_ops.ResourceApplyGradientDescent(
                var=_handle(velocity),
                alpha=tf.cast(learning_rate * (decay / self.momentum), dtype),
                delta=tf.convert_to_tensor(variable),
            )
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=_handle(variable),
            accum=_handle(velocity),
            lr=tf.cast(learning_rate, dtype),
            grad=tf.cast(gradient, dtype),
            momentum=tf.cast(self.momentum, dtype),
            use_nesterov=self.nesterov,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "decay": self.decay,
            "weight_decay_on_biases": self.weight_decay_on_biases,
            "lr_multipliers": self.lr_multipliers,
            "weight_decay_multipliers": self.weight_decay_multipliers,
            "max_filter_rms": self.max_filter_rms,
        }


def _handle(variable):
    """Returns TensorFlow's own variable behind one of Keras's; a copy's where it has copies."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle


def clip_filter_rms(kernel, limit: float):
    """Returns a convolution's kernel with no filter's root mean square above `limit`.

    Args:
        kernel: (height, width, input channels, filters).
        limit: Root mean square of a filter at most.

    Example:
        >>> import numpy as np
        >>> float(clip_filter_rms(np.full((7, 7, 3, 1), 0.4, "float32"), 0.1)[0, 0, 0, 0])
        0.10000000149011612
    """
    kernel = ops.convert_to_tensor(kernel)
    rms = ops.sqrt(ops.mean(ops.square(kernel), axis=(0, 1, 2)))
    # A filter within the limit is divided by exactly 1 and keeps its bits.
    return kernel / ops.maximum(rms / limit, 1)


def _multipliers(field: str, patterns: Mapping[str, float], names: list[str]) -> list[float]:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(
                f"The pattern {pattern!r} of {field} fits no weights",
                expected=f"a pattern of {', '.join(names)}",
            )
    return [
        next((factor for pattern, factor in patterns.items() if fnmatchcase(name, pattern)), 1.0)
        for name in names
    ]
