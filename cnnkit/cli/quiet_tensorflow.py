"""Import TensorFlow for a command, without its start-up log."""

from __future__ import annotations

import os
import sys
import tempfile
import time

from cnnkit.cli.console import print_detail


def import_tensorflow() -> None:
    """Import TensorFlow and initialize its devices; its log is printed only if that fails.

    TensorFlow's C++ code logs to file descriptor 2 before any Python setting takes effect, so the
    descriptor is redirected meanwhile. Only commands do this; importing cnnkit never does.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # By default TensorFlow uses oneDNN's kernels only on processors with AVX-512; on one with AVX2
    # AlexNet trained 1.5 times as fast with them.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if "tensorflow" in sys.modules:
        return
    began = time.perf_counter()
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
        except Exception:
            log.seek(0)
            os.write(original, log.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)
    seconds = time.perf_counter() - began
    devices = [device.name for device in tf.config.list_physical_devices("GPU")]
    where = ", ".join(devices) or "the CPU"
    print_detail(f"TensorFlow {tf.__version__} started in {seconds:.1f} s, on {where}")
