"""Two replicas on the CPU, shared by all tests of a process.

TensorFlow splits the CPU only before its first use, so this module is imported before any test
module that may use TensorFlow: see `pytest_collectstart` in tests/conftest.py.
"""

from cnnkit.training import get_strategy

MIRRORED = get_strategy("mirrored", 2)
