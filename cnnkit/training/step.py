"""Train and validate one batch, on one replica or on many with the same result."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from cnnkit.errors import UsageError
from cnnkit.models import logits_tensor
from cnnkit.models.logits import output_activation
from cnnkit.training._kernels.conv_gradients import conv_gradient_mode, fast_conv_gradients
from cnnkit.training.distribute import (
    local_results,
    shard_batch,
    sum_over_replicas,
    update_replicas,
)
from cnnkit.training.objectives import Objective, classification
from cnnkit.training.optimizer import SGD

Batch = Mapping[str, tf.Tensor]


class ValidationRunner:
    """Compiled validation step of a network. Create it inside `strategy.scope()`.

    Args:
        model: The network.
        strategy: The distribution strategy.
        rest: The upper part of the network, from `FrozenPart.rest`, if the batches hold the outputs
            of the part below it in place of images.
        objective: The loss, and what counts as right.
    """

    def __init__(
        self,
        model: keras.Model,
        strategy: tf.distribute.Strategy,
        *,
        rest: keras.Model | None = None,
        objective: Objective = classification,
    ) -> None:
        self.strategy, self.objective = strategy, objective
        if output_activation(model) == "sigmoid":
            raise UsageError(
                "`classifier_activation` must be a softmax, or None, for a training",
                expected="one label for every image: the loss is the cross-entropy of a softmax",
                received="sigmoid",
            )
        # Cross-entropy from the logits: exact where a softmax has underflowed.
        self.network = rest or keras.Model(model.input, logits_tensor(model))

    def validate(self, batch: Batch) -> tf.Tensor:
        """Return the loss and the correct images of a batch, as `StepRunner.train` does."""
        return self._validate(shard_batch(batch, self.strategy))

    @tf.function
    def _validate(self, batch: Batch) -> tf.Tensor:
        return self._total(
            self.strategy.run(lambda batch: self._forward(batch, False)[1], (batch,))
        )

    def _forward(self, batch: Batch, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        weights = batch["weights"]
        outputs = tf.cast(self.network(batch["images"], training=training), tf.float32)
        losses, correct = self.objective(outputs, batch)
        # Rows of weight 0 pad the batch. `where`, not a product: 0 times infinity is NaN.
        loss = tf.reduce_sum(tf.where(weights > 0, losses * weights, 0))
        counts = [loss, tf.reduce_sum(correct * weights)]
        if "stop" in batch:
            counts.append(tf.reduce_sum(batch["stop"]))
        return loss, tf.stack(counts)

    def _total(self, counts: Any) -> tf.Tensor:
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, counts, axis=None)


class StepRunner(ValidationRunner):
    """Compiled training and validation steps of a network.

    The gradient of a step is that of the mean loss over all images of the batch, whatever the
    number of replicas and of accumulation steps. Create it inside `strategy.scope()`.

    Args:
        model: The network.
        optimizer: Its optimizer.
        strategy: The distribution strategy.
        gradient_accumulation_steps: Number of parts of a batch that are computed one after the
            other.
        loss_scale: Loss scaling for float16, or None.
        jit_compile: Whether XLA compiles the network; for one replica only.
        frozen: Names of the layers whose weights do not change.
        rest: As for `ValidationRunner`.
        objective: As for `ValidationRunner`.

    Attributes:
        checkpoint_variables: Every variable that a checkpoint has to hold, in a fixed order.
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
        frozen: Collection[str] = (),
        rest: keras.Model | None = None,
        objective: Objective = classification,
    ) -> None:
        conv_gradient_mode()  # An error here is clearer than one while TensorFlow traces a step.
        super().__init__(model, strategy, rest=rest, objective=objective)
        self.optimizer = optimizer
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.loss_scale = loss_scale
        self.jit_compile = jit_compile
        self.trainable_variables = [
            variable
            for layer in self.network.layers
            if layer.name not in frozen
            for variable in layer.trainable_variables
        ]
        optimizer.build(self.trainable_variables)
        self.checkpoint_variables = [*model.variables, *optimizer.variables]
        if loss_scale is not None:
            self.checkpoint_variables += loss_scale.variables
        self._gradients_compiled = (
            tf.function(self._gradients, jit_compile=True) if jit_compile else self._gradients
        )
        self._accumulators = [
            _replica_accumulator(variable)
            for variable in self.trainable_variables
            if gradient_accumulation_steps > 1
        ]

    @property
    def batch_divisor(self) -> int:
        """Number that the rows of a batch have to be divisible by."""
        return self.strategy.num_replicas_in_sync * self.gradient_accumulation_steps

    def train(self, batch: Batch, images: int, learning_rate: float) -> tf.Tensor:
        """Train on a batch.

        Args:
            batch: {`images`, `labels`, `weights`}, and `boxes` of a localizer: this process's rows
                of the batch. With `stop`, (n,) float32, its sum over all processes is returned too.
            images: Number of images of the whole batch, on all replicas of all processes.
            learning_rate: The learning rate.

        Returns:
            (2,) or (3,) float32: the sum of the losses, the number of correctly classified images,
            and the sum of `stop`.
        """
        count, rate = tf.constant(images, tf.float32), tf.constant(learning_rate, tf.float32)
        if self.gradient_accumulation_steps == 1:
            return self.train_on_replicas(shard_batch(batch, self.strategy), count, rate)
        parts = {
            name: tf.split(rows, self.gradient_accumulation_steps) for name, rows in batch.items()
        }
        counts = [
            self._accumulate(
                shard_batch({name: rows[i] for name, rows in parts.items()}, self.strategy), count
            )
            for i in range(self.gradient_accumulation_steps)
        ]
        self._apply_accumulated(rate)
        return tf.add_n(counts)

    @tf.function
    def train_on_replicas(
        self, batch: Batch, images: tf.Tensor, learning_rate: tf.Tensor
    ) -> tf.Tensor:
        """Train on a batch that is already divided among the replicas.

        Args:
            batch: What `shard_batch` returned.
            images: () float32, as in `train`.
            learning_rate: () float32.

        Returns:
            As `train`.
        """
        gradients, counts = self.strategy.run(self._gradients_compiled, args=(batch, images))
        self._apply(gradients, learning_rate)
        return self._total(counts)

    @tf.function
    def _accumulate(self, batch: Batch, images: tf.Tensor) -> tf.Tensor:
        def add(batch: Batch, images: tf.Tensor) -> tf.Tensor:
            gradients, counts = self._gradients_compiled(batch, images)
            for total, gradient in zip(self._accumulators, gradients, strict=True):
                total.assign_add(gradient)
            return counts

        return self._total(self.strategy.run(add, args=(batch, images)))

    @tf.function
    def _apply_accumulated(self, learning_rate: tf.Tensor) -> None:
        def take() -> list[tf.Tensor]:
            gradients = [tf.identity(total) for total in self._accumulators]
            with tf.control_dependencies(gradients):
                for total in self._accumulators:
                    total.assign(tf.zeros_like(total))
            return gradients

        self._apply(self.strategy.run(take), learning_rate)

    def _gradients(self, batch: Batch, images: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        scale = 1.0 if self.loss_scale is None else self.loss_scale.value()
        kernels = fast_conv_gradients(jit_compile=self.jit_compile)
        with tf.GradientTape() as tape, kernels as are_fast:
            loss, counts = self._forward(batch, True)
            # The replicas' gradients are summed, so each divides by the images of all.
            loss = loss * (scale / images)
        if are_fast:
            variables = [variable.value for variable in self.trainable_variables]
            return tf.gradients(loss, variables), counts
        return tape.gradient(loss, self.trainable_variables), counts

    def _apply(self, gradients: Sequence[tf.Tensor], learning_rate: tf.Tensor) -> None:
        """Sum the replicas' gradients and update every copy of the variables with the sum."""
        targets = [variable.value for variable in self.trainable_variables]
        gradients = sum_over_replicas(self.strategy, gradients, targets)

        def update(unscale: Callable[[tf.Tensor], tf.Tensor]) -> None:
            for target, gradient in zip(targets, gradients, strict=True):
                update_replicas(
                    self.strategy,
                    target,
                    lambda variable, gradient: self.optimizer.update_step(
                        unscale(gradient), variable, learning_rate
                    ),
                    gradient,
                )
            self.optimizer.iterations.assign_add(1)

        if self.loss_scale is None:
            update(lambda gradient: gradient)
        else:
            self.loss_scale.apply(gradients, update, self.strategy)


class LossScale:
    """Dynamic loss scaling for float16 (Micikevicius et al. 2018, section 3.2).

    If a gradient is not finite, the step is skipped and the factor halved. After `growth_steps`
    successful steps in a row the factor is doubled. The sum of the gradients over all replicas is
    tested, so that either all replicas take the step or none does.

    Args:
        initial: Initial factor.
        growth_steps: Number of successful steps before the factor is doubled.

    Example:
        >>> float(LossScale(initial=1024.0).value())
        1024.0
    """

    def __init__(self, initial: float = 2.0**15, growth_steps: int = 2000) -> None:
        self.growth_steps = growth_steps
        self.factor = keras.Variable(initial, dtype="float32", trainable=False, name="loss_scale")
        self.good_steps = keras.Variable(0, dtype="int32", trainable=False, name="good_steps")

    @property
    def variables(self) -> list[keras.Variable]:
        """Variables that a checkpoint has to hold."""
        return [self.factor, self.good_steps]

    def value(self) -> tf.Tensor:
        """Return the factor, () float32."""
        return tf.convert_to_tensor(self.factor.value)

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        update: Callable[[Callable[[tf.Tensor], tf.Tensor]], None],
        strategy: tf.distribute.Strategy,
    ) -> None:
        """Update the weights if the gradients are finite, then update the factor.

        Args:
            gradients: Gradients of the scaled loss, summed over the replicas.
            update: Updates the weights; its argument is the function that undoes the scaling.
            strategy: The distribution strategy.
        """
        own = [local_results(strategy, gradient)[0] for gradient in gradients]
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in own])
        factor = self.value()

        def good() -> tf.Tensor:
            update(lambda gradient: gradient / factor)
            return tf.constant(True)

        tf.cond(finite, good, lambda: tf.constant(False))
        steps = tf.where(finite, tf.convert_to_tensor(self.good_steps.value) + 1, 0)
        grown = steps >= self.growth_steps
        changed = tf.where(finite, tf.where(grown, factor * 2, factor), factor / 2)
        self.factor.assign(changed)
        self.good_steps.assign(tf.where(grown, 0, steps))


def _replica_accumulator(variable: keras.Variable) -> tf.Variable:
    """Return a variable of zeros that every replica updates by itself."""
    return tf.Variable(
        tf.zeros(variable.shape, tf.float32),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )
