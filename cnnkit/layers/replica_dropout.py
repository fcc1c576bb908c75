"""Dropout with a different mask on every replica."""

from __future__ import annotations

from typing import Any

import keras

# Spreads the seeds of the replicas: 2^32 divided by the golden ratio, as in Knuth's multiplicative
# hashing.
_SPREAD = 2654435769


# The class keeps its name: Keras 3 derives the paths inside a .keras file from it (layers/dropout),
# and the digests of stored features contain it.
@keras.saving.register_keras_serializable(package="cnnkit")
class Dropout(keras.layers.Dropout):
    """Dropout (Krizhevsky et al. 2012, section 4.2) with a different mask on every replica.

    All replicas of a distribution strategy share the state of Keras's seed generator, so
    `keras.layers.Dropout` drops the same units on all of them. This layer mixes the number of the
    replica into the seed. Outputs are divided by 1 - rate in training, so inference needs no
    scaling. The mask depends on the seed and on the number of calls so far. A `.keras` file holds
    the argument `seed` but not the number of calls: a loaded layer starts again (Keras 3.15). The
    checkpoints of a training run hold both.

    Input and output: any shape.

    Args:
        rate: Fraction of the units that is dropped, in [0, 1].

    Example:
        >>> import numpy as np
        >>> from cnnkit.layers import Dropout
        >>> Dropout(0.5)(np.ones((1, 4), "float32"), training=False).numpy()
        array([[1., 1., 1., 1.]], dtype=float32)
    """

    def call(self, inputs: Any, training: bool = False) -> Any:
        if training and self.rate == 1:
            # Dividing by 1 - rate would give zeros with a gradient of NaN.
            return keras.ops.zeros_like(inputs)
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
