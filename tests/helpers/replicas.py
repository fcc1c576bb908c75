"""Two replicas on the CPU, shared by all tests of a process.

TensorFlow splits the CPU only before its first use, so this module is imported before any test
module that may use TensorFlow: see `pytest_collectstart` in tests/conftest.py.

The functions of input pipelines keep the setting of TensorFlow's optimizer of graphs from that
first use. It is off for them: it takes 0.1 seconds for each of a thousand iterators, most of which
read forty images. All other graphs are optimized, and so are the pipelines of the commands that
tests start.
"""

import tensorflow as tf

from cnnkit.training import get_strategy

tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
MIRRORED = get_strategy("mirrored", 2)
tf.zeros(())
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
