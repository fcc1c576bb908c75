"""Graphs that TensorFlow does not optimize before their first run."""

import contextlib
from pathlib import Path

import tensorflow as tf

from cnnkit.export import isolated_model


@contextlib.contextmanager
def unoptimized_graphs():
    """Runs graphs as they were traced, in this process and in those that check an export.

    The optimizer takes 2 to 3 seconds for each graph that decodes images, in each process that runs
    it; without the optimizer the graph runs after 0.5 seconds. Tests of whole commands, of decoders
    and of refusals leave it on: `cnnkit export` in tests/cli/test_main.py compares all signatures
    as servers run them, and tests/export/test_verify.py feeds them wrong inputs.
    """
    optimizer, worker = tf.config.optimizer, isolated_model.WORKER
    before = optimizer.get_experimental_options().get("disable_meta_optimizer", False)
    optimizer.set_experimental_options({"disable_meta_optimizer": True})
    isolated_model.WORKER = Path(__file__).with_name("unoptimized_worker.py")
    try:
        yield
    finally:
        isolated_model.WORKER = worker
        optimizer.set_experimental_options({"disable_meta_optimizer": before})
