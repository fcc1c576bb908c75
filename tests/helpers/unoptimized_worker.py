"""Program: cnnkit's `isolated_worker`, whose session does not optimize its graph.

Like that one it is started where nothing beside it is importable, and blocks Keras.
"""

import functools
import os
import runpy
import sys
from pathlib import Path

WORKER = Path(__file__).resolve().parents[2] / "cnnkit" / "export" / "isolated_worker.py"


def main():
    sys.modules["keras"] = None
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    tf.compat.v1.Session = functools.partial(tf.compat.v1.Session, config=config)
    runpy.run_path(str(WORKER), run_name="__main__")


if __name__ == "__main__":
    main()
