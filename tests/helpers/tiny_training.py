"""Run training processes that receive a signal or a full disk after some step.

Each line of standard input is a JSON list of processes that run at the same time:

    [{"words": ["train", ...], "what": "KILL", "at": 7, "log": "FILE"}, ...]

Each process runs the cnnkit command `words` with a network called `tiny`. After its step `at`, it
sends itself the signal `what`, or fills the disk (`FULL`). `KILL+0.01` waits for that many seconds
first. A process may also run a program of Python, with variables of its environment:

    {"program": "...", "words": [...], "environment": {"NAME": "value"}, "log": "FILE"}

The list of exit codes is printed as a line. The processes are forked from this one, which has
imported TensorFlow but not used it, so that they need not import it again.
"""

import json
import os
import resource
import signal
import sys
import tempfile
import threading
import time

from cnnkit.cli.quiet_tensorflow import import_tensorflow

import_tensorflow()  # Before Keras imports it, so that its start-up log stays out of the way.

from cnnkit import models
from cnnkit.cli import training_progress
from cnnkit.cli.main import main as run_command
from tests.helpers.tiny_network import tiny

# No process outlives this.
SECONDS = 120


def happen(what: str) -> None:
    name, _, delay = what.partition("+")
    if name == "FULL":
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        return
    number = getattr(signal, f"SIG{name}")
    if not delay:
        os.kill(os.getpid(), number)
        return

    def later() -> None:
        time.sleep(float(delay))
        os.kill(os.getpid(), number)

    threading.Thread(target=later, daemon=True).start()


def train(words, what: str, at: int) -> int:
    models.BUILDERS["tiny"] = tiny

    class Watched(training_progress.TerminalProgress):
        steps = 0

        def on_train_batch_end(self, *args):
            super().on_train_batch_end(*args)
            self.steps += 1
            if self.steps == at:
                happen(what)

    training_progress.TerminalProgress = Watched
    return run_command(words)


def execute(program: str, words: list[str], environment: dict[str, str]) -> int:
    os.environ.update(environment)
    tempfile.tempdir = None  # That of the environment.
    sys.argv = ["-c", *words]
    try:
        exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        return end.code or 0
    return 0


def child(job) -> None:
    for stream, name in ((1, "out"), (2, "err")):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(f"{job['log']}.{name}", flags, 0o600), stream)
    code = 1
    try:
        if "program" in job:
            code = execute(job["program"], job["words"], job["environment"])
        else:
            code = train(job["words"], job["what"], job["at"])
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    for line in sys.stdin:
        children = []
        for job in json.loads(line):
            pid = os.fork()
            if pid == 0:
                signal.alarm(SECONDS)
                child(job)
            children.append(pid)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    main()
