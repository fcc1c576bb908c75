"""Run processes forked from one that has imported TensorFlow and Keras already."""

import atexit
import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Outcome:
    returncode: int
    stdout: str
    stderr: str


class Processes:
    def __init__(self, logs: Path):
        self._logs = logs

    def run(self, *jobs) -> list[Outcome]:
        """Run jobs at the same time: (arguments, event, step after which the event happens)."""
        return self._run(
            {"words": list(map(str, words)), "what": what, "at": at} for words, what, at in jobs
        )

    def train(self, output, *words, what="KILL", at=0) -> Outcome:
        [outcome] = self.run((["train", "--output", output, *words], what, at))
        return outcome

    def execute(self, program: str, *words, **environment: str) -> Outcome:
        """Run `python -c` with a program that may import what cnnkit imports."""
        job = {"program": program, "words": list(map(str, words)), "environment": environment}
        [outcome] = self._run([job])
        return outcome

    def _run(self, jobs) -> list[Outcome]:
        jobs = [{**job, "log": str(self._logs / str(i))} for i, job in enumerate(jobs)]
        parent = start_parent()
        parent.stdin.write(json.dumps(jobs) + "\n")
        parent.stdin.flush()
        return [
            Outcome(code, *((self._logs / f"{i}.{kind}").read_text() for kind in ("out", "err")))
            for i, code in enumerate(json.loads(parent.stdout.readline()))
        ]


@functools.cache
def start_parent() -> subprocess.Popen:
    """Start the process that all tests of a session share."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "tests.helpers.tiny_training"]
    return start_server(command, {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path})


def start_server(command: list[str], environment: Mapping[str, str]) -> subprocess.Popen:
    """Start a process that answers lines of its standard input until this process ends."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def end():
        process.stdin.close()
        process.wait()
        process.stdout.close()

    atexit.register(end)
    return process
