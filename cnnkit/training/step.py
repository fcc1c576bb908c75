"""One step of training and one of validation, the same on one replica and on many."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from cnnkit.models import logits_tensor
from cnnkit.training._kernels.conv_gradients import fast_conv_gradients
from cnnkit.training.distribute import shard_batch
from cnnkit.training.optimizer import SGD


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


class StepRunner:
    """The network and its optimizer, and the functions that use them on a batch.

    The gradient of a step is that of the mean loss over the images of the whole batch, however
    the batch is divided among the replicas and into parts. Made inside `strategy.scope()`.

    Args:
        model: The network.
        optimizer: Its optimizer.
        strategy: Where it runs.
        gradient_accumulation_steps: Parts of a batch that are computed one after the other.
        loss_scale: Scaling of the loss for float16, or None.
        jit_compile: Whether XLA compiles the network; for one replica.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: SGD,
        strategy: tf.distribute.Strategy,
        *,
        gradient_accumulation_steps: int = 1,
        loss_scale: LossScale | None = None,
        jit_compile: bool = False,
    ):
        self.optimizer = optimizer
        self.strategy = strategy
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.loss_scale = loss_scale
        self.jit_compile = jit_compile
        # Cross-entropy from the logits: exact where a softmax has underflowed.
        self.network = keras.Model(model.input, logits_tensor(model))
        self.variables = self.network.trainable_variables
        optimizer.build(self.variables)
        self.state = [*model.variables, *optimizer.variables]
        if loss_scale is not None:
            self.state += loss_scale.variables
        self._gradients_compiled = (
            tf.function(self._gradients, jit_compile=True) if jit_compile else self._gradients
        )
        self._sums = [
            _local_sum(variable) for variable in self.variables if gradient_accumulation_steps > 1
        ]

    @property
    def parts(self) -> int:
        """Parts that the rows of a batch have to be divisible by."""
        return self.strategy.num_replicas_in_sync * self.gradient_accumulation_steps

    def train(self, batch, images: int, rate: float) -> tf.Tensor:
        """Takes one step.

        Args:
            batch: {`images`, `labels`, `weights`}, this process's rows of the batch.
            images: Images of the whole batch, on all replicas of all processes.
            rate: The learning rate.

        Returns:
            (2,) float32, the sum of the losses and the number of images classified rightly.
        """
        count, rate = tf.constant(images, tf.float32), tf.constant(rate, tf.float32)
        if self.gradient_accumulation_steps == 1:
            return self._train(shard_batch(batch, self.strategy), count, rate)
        parts = {
            name: tf.split(rows, self.gradient_accumulation_steps) for name, rows in batch.items()
        }
        counts = [
            self._accumulate(
                shard_batch({name: rows[i] for name, rows in parts.items()}, self.strategy), count
            )
            for i in range(self.gradient_accumulation_steps)
        ]
        self._apply_sums(rate)
        return tf.add_n(counts)

    def validate(self, batch) -> tf.Tensor:
        """Counts the losses and the right answers of a batch as `train` does."""
        return self._validate(shard_batch(batch, self.strategy))

    @tf.function
    def _train(self, batch, images, rate):
        gradients, counts = self.strategy.run(self._gradients_compiled, args=(batch, images))
        self._apply(gradients, rate)
        return self._total(counts)

    @tf.function
    def _accumulate(self, batch, images):
        def add(batch, images):
            gradients, counts = self._gradients_compiled(batch, images)
            for total, gradient in zip(self._sums, gradients, strict=True):
                total.assign_add(gradient)
            return counts

        return self._total(self.strategy.run(add, args=(batch, images)))

    @tf.function
    def _apply_sums(self, rate):
        def take():
            gradients = [tf.identity(total) for total in self._sums]
            with tf.control_dependencies(gradients):
                for total in self._sums:
                    total.assign(tf.zeros_like(total))
            return gradients

        self._apply(self.strategy.run(take), rate)

    @tf.function
    def _validate(self, batch):
        return self._total(
            self.strategy.run(lambda batch: self._forward(batch, False)[1], (batch,))
        )

    def _forward(self, batch, training: bool):
        labels, weights = batch["labels"], batch["weights"]
        logits = tf.cast(self.network(batch["images"], training=training), tf.float32)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        # Rows of weight 0 fill up the batch; whatever they give must not reach the sum.
        loss = tf.reduce_sum(tf.where(weights > 0, losses * weights, 0))
        right = tf.cast(tf.argmax(logits, axis=-1, output_type=labels.dtype) == labels, tf.float32)
        return loss, tf.stack([loss, tf.reduce_sum(right * weights)])

    def _gradients(self, batch, images):
        scale = 1.0 if self.loss_scale is None else self.loss_scale.value()
        faster = fast_conv_gradients(jit_compile=self.jit_compile)
        with tf.GradientTape() as tape, faster as fast:
            loss, counts = self._forward(batch, True)
            # The replicas' gradients are summed, so each divides by the images of all.
            loss = loss * (scale / images)
        if fast:
            return tf.gradients(loss, [variable.value for variable in self.variables]), counts
        return tape.gradient(loss, self.variables), counts

    def _total(self, counts):
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, counts, axis=None)

    def _apply(self, gradients, rate) -> None:
        """Sums the replicas' gradients and updates every copy of the variables with the sum."""
        targets = [variable.value for variable in self.variables]
        gradients = self.strategy.extended.batch_reduce_to(
            tf.distribute.ReduceOp.SUM, list(zip(gradients, targets, strict=True))
        )

        def update(variable, gradient, rate):
            self.optimizer.update_step(gradient, variable, rate)

        def step(unscale) -> None:
            for target, gradient in zip(targets, gradients, strict=True):
                self.strategy.extended.update(
                    target,
                    lambda variable, gradient: update(variable, unscale(gradient), rate),
                    args=(gradient,),
                )
            self.optimizer.iterations.assign_add(1)

        if self.loss_scale is None:
            step(lambda gradient: gradient)
        else:
            self.loss_scale.apply(gradients, step, self.strategy)


def _local_sum(variable: keras.Variable) -> tf.Variable:
    """Returns a sum that every replica keeps for itself, at 0."""
    return tf.Variable(
        tf.zeros(variable.shape, tf.float32),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )
