"""Functions that TensorFlow would keep until the process of the tests ends."""

import ctypes
import gc
import re

from tensorflow.python.framework import ops

# "CustomGradient-17" and "PartitionedCall-17"; the gradients of TensorFlow's operations have no
# number.
_OF_ONE_FUNCTION = re.compile(r".+-\d+")


def forget_functions():
    """Takes the gradients of single functions out of the registry of the process.

    TensorFlow adds them for each function that is traced and each model that is loaded, and they
    hold its graph, the compiled code and the weights: 140 MB for an exported network of 1 MB.
    """
    registry = ops.gradient_registry._registry
    for name in [name for name in registry if _OF_ONE_FUNCTION.fullmatch(name)]:
        del registry[name]
    gc.collect()
    # What is left belongs to the session: it need not be searched again after each file.
    gc.freeze()
    # Linux: what is free between the pieces in use goes back to the system.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
