"""Dropout that differs on every replica."""

from __future__ import annotations

import keras

# Spreads the replicas' seeds: the golden ratio of 2^32, as in Knuth's multiplicative hashing.
_SPREAD = 2654435769


@keras.saving.register_keras_serializable(package="cnnkit")
class Dropout(keras.layers.Dropout):
    """Dropout (Krizhevsky et al. 2012, section 4.2), with its own mask on every replica.

    The state of Keras's seed generator is mirrored, so `keras.layers.Dropout` drops the same
    units on all replicas of a distribution strategy. This one folds the replica's number into the
    seed. Outputs are scaled while training, so nothing is scaled at test time. The seed and the
    number of calls so far decide the mask; both are saved with the model.

    Input and output: any shape.

    Args:
        rate: Fraction of the units that is dropped, in [0, 1].

    Example:
        >>> import numpy as np
        >>> from cnnkit.layers import Dropout
        >>> Dropout(0.5)(np.ones((1, 4), "float32"), training=False).numpy()
        array([[1., 1., 1., 1.]], dtype=float32)
    """

    def call(self, inputs, training=False):
        if not training or self.rate == 0 or keras.backend.backend() != "tensorflow":
            return super().call(inputs, training=training)
        import tensorflow as tf

        seed = tf.cast(self.seed_generator.next(), tf.uint32)
        context = tf.distribute.get_replica_context()
        replica = 0 if context is None else context.replica_id_in_sync_group
        seed += tf.stack([tf.zeros((), tf.uint32), tf.cast(replica, tf.uint32) * _SPREAD])
        shape = [
            tf.shape(inputs)[axis] if size is None else size
            for axis, size in enumerate(self.noise_shape or [None] * len(inputs.shape))
        ]
        kept = tf.random.stateless_uniform(shape, tf.bitcast(seed, tf.int32)) >= self.rate
        return tf.where(kept, inputs / tf.cast(1 - self.rate, inputs.dtype), 0)
