"""Switch TensorFlow's deterministic operations on for a block.

TensorFlow 2.21 can switch determinism on through its public API, but neither read the setting nor
switch it off. The functions that do are private; this is the only file that uses them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework import config as framework_config


@contextmanager
def deterministic_operations(seed: int) -> Iterator[None]:
    """Run a block with deterministic operations, then restore the caller's setting.

    TensorFlow's global seed, which deterministic operations require, is restored too. A sequence of
    random numbers that the caller began with that seed starts over.

    Args:
        seed: Global seed of TensorFlow inside the block.

    Example:
        >>> import tensorflow as tf
        >>> with deterministic_operations(seed=0):
        ...     first = float(tf.random.uniform(()))
        >>> with deterministic_operations(seed=0):
        ...     first == float(tf.random.uniform(()))
        True
    """
    enabled_before = framework_config.is_op_determinism_enabled()
    seed_before = context.global_seed()
    tf.config.experimental.enable_op_determinism()
    tf.random.set_seed(seed)
    try:
        yield
    finally:
        tf.random.set_seed(seed_before)
        if not enabled_before:
            framework_config.disable_op_determinism()
