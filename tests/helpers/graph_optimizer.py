"""Graphs that TensorFlow does not optimize before their first run."""

import contextlib
import functools
import json
import sys
from pathlib import Path

import tensorflow as tf

from cnnkit.export import isolated_model
from tests.helpers.processes import start_server

PROGRAM = Path(__file__).with_name("unoptimized_worker.py")


@contextlib.contextmanager
def unoptimized_graphs():
    """Runs graphs as they were traced, in this process and in those that check an export.

    The optimizer takes 2 to 3 seconds for each graph that decodes images, in each process that runs
    it; without the optimizer the graph runs after 0.5 seconds. Tests of whole commands, of decoders
    and of refusals leave it on: `cnnkit export` in tests/cli/test_main.py compares all signatures
    as servers run them, and tests/export/test_verify.py feeds them wrong inputs. These and
    tests/export/test_isolated_model.py also start the processes as users do.
    """
    optimizer, run_worker = tf.config.optimizer, isolated_model._run_worker
    before = optimizer.get_experimental_options().get("disable_meta_optimizer", False)
    optimizer.set_experimental_options({"disable_meta_optimizer": True})
    isolated_model._run_worker = run_in_fork
    try:
        yield
    finally:
        isolated_model._run_worker = run_worker
        optimizer.set_experimental_options({"disable_meta_optimizer": before})


def run_in_fork(command, environment, errors, advance):
    """Returns what `isolated_model._run_worker` does, of a fork of one process for all tests."""
    *_, folder, work = command
    output = errors.with_name("output.txt")
    request = {"folder": folder, "work": work, "stdout": str(output), "stderr": str(errors)}
    process = start_process()
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    code = int(process.stdout.readline())
    lines = [json.loads(line) for line in output.read_bytes().splitlines() if line[:1] == b"{"]
    for number in range(len(lines)):
        advance(int(number > 0))
    return lines, isolated_model._exit_reason(code, errors.read_bytes())


@functools.cache
def start_process():
    # As cnnkit starts its workers.
    return start_server([sys.executable, "-P", str(PROGRAM)], {"CUDA_VISIBLE_DEVICES": "-1"})
