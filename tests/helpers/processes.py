"""Run training processes, forked from one that has imported TensorFlow already."""

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Outcome:
    returncode: int
    stdout: str
    stderr: str


class Processes:
    def __init__(self, parent, logs: Path):
        self._parent = parent
        self._logs = logs

    def run(self, *jobs) -> list[Outcome]:
        """Run jobs at the same time: (arguments, event, step after which the event happens)."""
        lines = [
            {
                "words": list(map(str, words)),
                "what": what,
                "at": at,
                "log": str(self._logs / str(i)),
            }
            for i, (words, what, at) in enumerate(jobs)
        ]
        self._parent.stdin.write(json.dumps(lines) + "\n")
        self._parent.stdin.flush()
        return [
            Outcome(code, *((self._logs / f"{i}.{kind}").read_text() for kind in ("out", "err")))
            for i, code in enumerate(json.loads(self._parent.stdout.readline()))
        ]

    def train(self, output, *words, what="KILL", at=0) -> Outcome:
        [outcome] = self.run((["train", "--output", output, *words], what, at))
        return outcome


@contextlib.contextmanager
def processes(logs: Path):
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
    command = [sys.executable, "-m", "tests.helpers.tiny_training"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": env}
    with subprocess.Popen(command, **pipes) as parent:
        yield Processes(parent, logs)
        parent.stdin.close()
