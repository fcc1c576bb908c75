"""Asking a SavedModel in a process of its own, which may die of the question."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WORKER = Path(__file__).with_name("isolated_worker.py")
# Seconds that the process may take for all that it is asked.
DEFAULT_TIMEOUT = 600.0


@dataclass(frozen=True)
class Request:
    """One request to a signature.

    Attributes:
        signature: Its name.
        inputs: Arrays by the names of its inputs; strings as arrays of `bytes` objects.
        keep: Whether the answer is wanted, or only whether there is one.
    """

    signature: str
    inputs: Mapping[str, np.ndarray]
    keep: bool = False


@dataclass(frozen=True)
class Response:
    """What became of a question.

    Attributes:
        code: `"OK"`, the name of a gRPC status code, or None where the process died.
        text: What the error says.
        outputs: The answer by the names of the outputs; empty where it was not kept.
    """

    code: str | None
    text: str
    outputs: Mapping[str, np.ndarray]


class NotLoaded(Exception):
    """The SavedModel could not be loaded at all; the text says why."""


def run_isolated(
    folder: Path, questions: Sequence[Request], *, give_up: bool = False
) -> list[Response]:
    """Asks a SavedModel in another process, where Keras cannot be imported.

    Where a question kills the process, the rest is asked in a new one.

    Args:
        folder: The SavedModel.
        questions: What is asked, in this order.
        give_up: Whether a signature that a process died of is asked nothing more; its other
            questions then have the same reply.

    Raises:
        NotLoaded: If it cannot be loaded.
    """
    replies: dict[int, Response] = {}
    while waiting := [number for number in range(len(questions)) if number not in replies]:
        asked = [questions[number] for number in waiting]
        for number, reply in zip(waiting, _ask_until_death(folder, asked), strict=False):
            replies[number] = reply
            if give_up and reply.code is None:
                deadly = questions[number].signature
                same = [one for one in waiting if questions[one].signature == deadly]
                replies |= {one: reply for one in same if one > number}
    return [replies[number] for number in range(len(questions))]


def _ask_until_death(folder: Path, questions: Sequence[Request]) -> list[Response]:
    """Returns at least one reply; the last one may tell of a death."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        _write(work, questions)
        # On the CPU, because the memory of a GPU may be this process's own. Nothing beside the
        # program is importable: a module of ours could hide one of TensorFlow's.
        command = [sys.executable, "-P", str(WORKER), str(folder), str(work)]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, timeout=DEFAULT_TIMEOUT, check=False
            )
            output, why = done.stdout, _why(done)
        except subprocess.TimeoutExpired as expired:
            output, why = expired.stdout or b"", f"no answer within {DEFAULT_TIMEOUT:g} s"
        lines = [json.loads(line) for line in output.splitlines() if line.startswith(b"{")]
        if not lines:
            raise NotLoaded(why)
        replies = []
        for line in lines[1:]:
            file = work / f"{line['number']}.npz"
            outputs: dict[str, np.ndarray] = {}
            if file.exists():
                with np.load(file) as arrays:
                    outputs = dict(arrays)
            replies.append(Response(line["code"], line["text"], outputs))
        if len(replies) < len(questions):
            replies.append(Response(None, why, {}))
        return replies


def _write(work: Path, questions: Sequence[Request]) -> None:
    tensors = {}
    listed = []
    for number, question in enumerate(questions):
        keys = {}
        for name, values in question.inputs.items():
            key = keys[name] = f"{number}/{name}"
            tensors.update(_stored(key, np.asarray(values)))
        listed.append(
            {
                "number": number,
                "signature": question.signature,
                "inputs": keys,
                "keep": question.keep,
            }
        )
    np.savez(work / "requests.npz", **tensors)
    (work / "requests.json").write_text(json.dumps(listed))


def _stored(key: str, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yields arrays of numbers for an array of any kind; `probe.py` puts strings together again."""
    if values.dtype != object:
        yield key, values
        return
    texts = list(values.ravel())
    yield f"{key}/bytes", np.frombuffer(b"".join(texts), np.uint8)
    yield f"{key}/lengths", np.array([len(text) for text in texts], np.int64)
    yield f"{key}/shape", np.array(values.shape, np.int64)


def _why(done: subprocess.CompletedProcess) -> str:
    if done.returncode < 0:
        return f"the process was ended by {signal.Signals(-done.returncode).name}"
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"the process ended with code {done.returncode}"
