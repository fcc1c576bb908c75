"""Loss scaling, which keeps small gradients within the range of float16."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf


class LossScale:
    """A factor of the loss that follows the gradients (Micikevicius et al. 2018, section 3.2).

    Gradients that are not finite skip their step and halve the factor; after `growth_steps` good
    steps in a row it doubles. Whether they are finite is asked of the sum over all replicas, so
    that all of them take the step or none does.

    Args:
        initial: Factor at the beginning.
        growth_steps: Good steps after which it doubles.

    Example:
        >>> float(LossScale(initial=1024.0).value())
        1024.0
    """

    def __init__(self, initial: float = 2.0**15, growth_steps: int = 2000):
        self.growth_steps = growth_steps
        self.factor = keras.Variable(initial, dtype="float32", trainable=False, name="loss_scale")
        self.good_steps = keras.Variable(0, dtype="int32", trainable=False, name="good_steps")

    @property
    def variables(self) -> list[keras.Variable]:
        """What a checkpoint has to hold."""
        return [self.factor, self.good_steps]

    def value(self) -> tf.Tensor:
        """Returns the factor, () float32."""
        return tf.convert_to_tensor(self.factor.value)

    def apply(
        self,
        gradients: Sequence,
        step: Callable[[Callable], None],
        strategy: tf.distribute.Strategy,
    ) -> None:
        """Takes a step if the gradients are finite, and moves the factor.

        Args:
            gradients: Gradients of the scaled loss, summed over the replicas.
            step: Takes the step; it is given the function that undoes the scaling.
            strategy: Where the gradients are.
        """
        own = [strategy.experimental_local_results(gradient)[0] for gradient in gradients]
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in own])
        factor = self.value()

        def good() -> tf.Tensor:
            step(lambda gradient: gradient / factor)
            return tf.constant(True)

        tf.cond(finite, good, lambda: tf.constant(False))
        steps = tf.where(finite, tf.convert_to_tensor(self.good_steps.value) + 1, 0)
        grown = steps >= self.growth_steps
        changed = tf.where(finite, tf.where(grown, factor * 2, factor), factor / 2)
        self.factor.assign(changed)
        self.good_steps.assign(tf.where(grown, 0, steps))
