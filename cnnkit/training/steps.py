"""One step of training and one of validation, the same on one replica and on many."""

from __future__ import annotations

import keras
import tensorflow as tf

from cnnkit.models import logits_of
from cnnkit.training.optimizer import SGD


class Steps:
    """The network, its optimizer and its metrics, and the functions that use them on a batch.

    The gradient of a step is that of the mean loss over the images of the whole batch, however
    the batch is divided among the replicas. Made inside `strategy.scope()`.

    Args:
        model: The network.
        optimizer: Its optimizer.
        strategy: Where it runs.
    """

    def __init__(self, model: keras.Model, optimizer: SGD, strategy: tf.distribute.Strategy):
        self.optimizer = optimizer
        self.strategy = strategy
        # Cross-entropy from the logits: exact where a softmax has underflowed.
        self.network = keras.Model(model.input, logits_of(model))
        self.variables = self.network.trainable_variables
        optimizer.build(self.variables)
        self.loss = keras.metrics.Mean(name="loss")
        self.accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        self.state = [*model.variables, *optimizer.variables]

    @tf.function
    def train(self, batch) -> None:
        """Takes one step on a distributed batch and counts its loss and accuracy."""
        self.strategy.run(self._train_replica, args=(batch,))

    @tf.function
    def validate(self, batch) -> None:
        """Counts loss and accuracy on a distributed batch."""
        self.strategy.run(self._count, args=(batch, False))

    def results(self) -> tuple[float, float]:
        """Returns the mean loss and the accuracy since the last call, and starts again."""
        values = float(self.loss.result()), float(self.accuracy.result())
        self.loss.reset_state()
        self.accuracy.reset_state()
        return values

    def _train_replica(self, batch) -> None:
        replica = tf.distribute.get_replica_context()
        images = replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(batch["weights"]))
        with tf.GradientTape() as tape:
            # The optimizer sums the replicas' gradients, so each divides by the images of all.
            loss = self._count(batch, True) / images
        self.optimizer.apply(tape.gradient(loss, self.variables), self.variables)

    def _count(self, batch, training: bool):
        labels, weights = batch["labels"], batch["weights"]
        logits = self.network(batch["images"], training=training)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        self.loss.update_state(losses, weights)
        self.accuracy.update_state(labels, logits, weights)
        return tf.reduce_sum(losses * weights)
