"""How many threads read images, fixed in one place.

TensorFlow's own tuning of that number is switched off. Its thread sleeps for 10 ms, then twice as
long each time, and now and then (TensorFlow 2.21) an iterator that has come to its end waits for it
to wake up: an epoch of 5.1 seconds took 10.2, 20.5 or 41.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import tensorflow as tf

WORKERS = os.cpu_count() or 1
BATCHES_AHEAD = 2


def untuned() -> tf.data.Options:
    """Returns the options that switch TensorFlow's tuning off."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def parallel_map(dataset: tf.data.Dataset, function: Callable) -> tf.data.Dataset:
    """Maps a dataset in its order on all cores, without TensorFlow's tuning.

    The function is a graph function as it stands: AutoGraph does not rewrite it.
    """
    function = tf.autograph.experimental.do_not_convert(function)
    mapped = dataset.map(function, num_parallel_calls=WORKERS, deterministic=True)
    return mapped.with_options(untuned())
