"""Run a SavedModel in a subprocess that may crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from cnnkit._progress import Progress, no_progress
from cnnkit.errors import RunError
from cnnkit.server.servable import read_signature_definitions

WORKER = Path(__file__).with_name("isolated_worker.py")
# Seconds for all requests of one process.
DEFAULT_TIMEOUT = 600.0


@dataclass(frozen=True)
class Request:
    """One request to a signature.

    Attributes:
        signature: Name of the signature.
        inputs: Arrays by the names of its inputs; strings as arrays of `bytes` objects.
        keep_outputs: Whether the response holds the outputs, or only the code.
    """

    signature: str
    inputs: Mapping[str, np.ndarray]
    keep_outputs: bool = False


@dataclass(frozen=True)
class Response:
    """The result of a request.

    Attributes:
        code: `"OK"`, the name of a gRPC status code, or None if the process crashed.
        details: Text of the error.
        outputs: Arrays by the names of the outputs; empty unless they were kept.
    """

    code: str | None
    details: str
    outputs: Mapping[str, np.ndarray]


class ModelLoadError(Exception):
    """The SavedModel could not be loaded; the text is the reason."""


def run_isolated(
    folder: Path,
    requests: Sequence[Request],
    *,
    skip_after_crash: bool = False,
    progress: Progress = no_progress,
) -> list[Response]:
    """Runs requests to a SavedModel in a subprocess without Keras.

    If a request crashes the process, a new process runs the remaining ones.

    Args:
        folder: The SavedModel.
        requests: The requests, in order.
        skip_after_crash: Whether the later requests to a signature that crashed are skipped; they
            then have the response of the crash.
        progress: Called with the number of requests; its context tells the progress.

    Returns:
        One response for each request.

    Raises:
        ModelLoadError: If the SavedModel cannot be loaded.
    """
    inputs = _input_types(folder)
    responses: dict[int, Response] = {}
    with progress(len(requests), "checking the exported network") as advance:
        while waiting := [number for number in range(len(requests)) if number not in responses]:
            remaining = [requests[number] for number in waiting]
            for number, response in zip(
                waiting, _run_until_crash(folder, inputs, remaining, advance), strict=False
            ):
                responses[number] = response
                if skip_after_crash and response.code is None:
                    crashed = requests[number].signature
                    same = [later for later in waiting if requests[later].signature == crashed]
                    responses |= {later: response for later in same if later > number}
    return [responses[number] for number in range(len(requests))]


def _input_types(folder: Path) -> dict[str, int]:
    """Returns the types of the signatures' inputs by tensor name."""
    try:
        definitions = read_signature_definitions(folder).signature_def
    except (DecodeError, OSError, RunError) as error:
        raise ModelLoadError(str(error)) from error
    return {
        info.name: info.dtype
        for signature in definitions.values()
        for info in signature.inputs.values()
        if info.name
    }


def _run_until_crash(
    folder: Path,
    inputs: Mapping[str, int],
    requests: Sequence[Request],
    advance: Callable[[int], object],
) -> list[Response]:
    """Returns at least one response; after a crash the last one has no code."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "inputs.json").write_text(json.dumps(inputs))
        _write_requests(work, requests)
        # -P: nothing beside the program is importable, because a module of this folder could hide
        # one of TensorFlow's. CPU only: this process may have reserved the memory of the GPU.
        command = [sys.executable, "-P", str(WORKER), str(folder), str(work)]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
        lines, reason = _run_worker(command, environment, work / "errors.txt", advance)
        if not lines:
            raise ModelLoadError(reason)
        responses = []
        for line in lines[1:]:
            file = work / f"{line['number']}.npz"
            outputs: dict[str, np.ndarray] = {}
            if file.exists():
                with np.load(file) as arrays:
                    outputs = dict(arrays)
            responses.append(Response(line["code"], line["details"], outputs))
        if len(responses) < len(requests):
            responses.append(Response(None, reason, {}))
        return responses


def _run_worker(
    command: Sequence[str],
    environment: Mapping[str, str],
    errors: Path,
    advance: Callable[[int], object],
) -> tuple[list[dict[str, Any]], str]:
    """Returns the lines that the worker printed, and why it ended.

    Args:
        command: Program and arguments of the worker.
        environment: Its environment.
        errors: File for what it prints on standard error.
        advance: Called with 1 after each request.
    """
    lines: list[dict[str, Any]] = []
    with errors.open("wb") as stderr:
        worker = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=stderr)
    expired = threading.Event()

    def end() -> None:
        expired.set()
        worker.kill()

    timer = threading.Timer(DEFAULT_TIMEOUT, end)
    timer.start()
    try:
        with worker:
            for line in worker.stdout or ():
                # TensorFlow may print as well.
                if line.startswith(b"{"):
                    lines.append(json.loads(line))
                    advance(int(len(lines) > 1))
    finally:
        timer.cancel()
        worker.kill()
    if expired.is_set():
        return lines, f"no answer within {DEFAULT_TIMEOUT:g} s"
    return lines, _exit_reason(worker.returncode, errors.read_bytes())


def _write_requests(work: Path, requests: Sequence[Request]) -> None:
    arrays: dict[str, Any] = {}
    listed = []
    for number, request in enumerate(requests):
        keys = {}
        for name, values in request.inputs.items():
            key = keys[name] = f"{number}/{name}"
            arrays.update(_numeric_arrays(key, np.asarray(values)))
        listed.append(
            {
                "number": number,
                "signature": request.signature,
                "inputs": keys,
                "keep_outputs": request.keep_outputs,
            }
        )
    np.savez(work / "requests.npz", **arrays)
    (work / "requests.json").write_text(json.dumps(listed))


def _numeric_arrays(key: str, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yields an array, or arrays of numbers for one of strings; the worker joins them again."""
    if values.dtype != object:
        yield key, values
        return
    texts = list(values.ravel())
    yield f"{key}/bytes", np.frombuffer(b"".join(texts), np.uint8)
    yield f"{key}/lengths", np.array([len(text) for text in texts], np.int64)
    yield f"{key}/shape", np.array(values.shape, np.int64)


def _exit_reason(code: int, errors: bytes) -> str:
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}"
    lines = errors.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"the process ended with code {code}"
