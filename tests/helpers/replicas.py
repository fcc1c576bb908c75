"""Two replicas on the CPU, shared by all tests of a process.

TensorFlow splits the CPU only before its first use, so this module is imported before any test
module that may use TensorFlow: see `pytest_collectstart` in tests/conftest.py.

The functions of input pipelines keep the setting of TensorFlow's optimizer of graphs from that
first use. It is off for them, and so is that of the pipelines themselves: both take 0.1 seconds for
each of a thousand iterators, most of which read forty images. All other graphs are optimized, and
so are the pipelines of the commands that tests start.
"""

import tensorflow as tf

from cnnkit.data import pipeline
from cnnkit.training import get_strategy

options_of_pipelines = pipeline.fixed_parallelism


def unoptimized_pipelines() -> tf.data.Options:
    options = options_of_pipelines()
    options.experimental_optimization.apply_default_optimizations = False
    return options


pipeline.fixed_parallelism = unoptimized_pipelines

tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
MIRRORED = get_strategy("mirrored", 2)
tf.zeros(())
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
