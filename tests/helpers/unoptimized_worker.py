"""Program: cnnkit's `isolated_worker`, in forks of this process, without optimized graphs.

TensorFlow is imported once for all of them, and not used before a fork. Like that worker this
program is started where nothing beside it is importable, and blocks Keras.

Each line of standard input is a JSON object: `folder` and `work` of the worker, and the files
`stdout` and `stderr` of what it prints. A line of its exit code follows.
"""

import functools
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path

WORKER = Path(__file__).resolve().parents[2] / "cnnkit" / "export" / "isolated_worker.py"

# No fork outlives this.
SECONDS = 120


def run(run_requests, folder, work, stdout, stderr):
    """Runs the requests in a fork; returns its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        signal.alarm(SECONDS)
        for number, file in ((1, stdout), (2, stderr)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        run_requests(folder, Path(work))
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main():
    sys.modules["keras"] = None
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    tf.compat.v1.Session = functools.partial(tf.compat.v1.Session, config=config)
    spec = importlib.util.spec_from_file_location("isolated_worker", WORKER)
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    for line in sys.stdin:
        print(run(worker.run_requests, **json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
