"""A version that cannot be loaded ends a process of its own, and not the server."""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import cnnkit
from cnnkit.errors import RunError
from cnnkit.server import load_trial
from cnnkit.server.free_memory import MemoryShortageError
from cnnkit.server.load_trial import LoadTrial


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Replaces the program that loads the version by a few lines."""

    def write(lines):
        (tmp_path / "stand_in.py").write_text("import os, signal, sys, time\n" + lines)

    monkeypatch.setattr(load_trial, "_WORKER", "stand_in")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    write("print('{\"bytes\": 1048576}')")
    return write


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_of_a_version(colors_folder, monkeypatch):
    """Its process is limited to the free memory, and the first to be ended when that is full."""
    scores, limits = set(), set()

    class Watched(subprocess.Popen):
        def wait(self, timeout=None):
            while self.poll() is None:
                with contextlib.suppress(OSError):
                    process = Path("/proc", str(self.pid))
                    scores.add((process / "oom_score_adj").read_text().strip())
                    limits.update(
                        line.split()[3]
                        for line in (process / "limits").read_text().splitlines()
                        if line.startswith("Max data size")
                    )
                time.sleep(0.05)
            return super().wait(timeout)

    monkeypatch.setattr(load_trial.subprocess, "Popen", Watched)
    assert 2**16 < LoadTrial("tensorflow").measure("m", 1, colors_folder / "1") < 2**30
    assert "1000" in scores
    assert any(limit.isdecimal() for limit in limits)


@pytest.mark.parametrize(
    ("lines", "kind", "text"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", MemoryShortageError, "memory is full. Free"),
        (
            "sys.stderr.write('terminate called\\n  what():  std::bad_alloc\\n'); os.abort()",
            MemoryShortageError,
            "memory is full. Free memory: it is tried again in a minute",
        ),
        (
            "sys.stderr.write('log\\nCheck failed: 1 == 2\\n'); os.abort()",
            RunError,
            "it crashes the process that loads it. Received: SIGABRT: Check failed: 1 == 2",
        ),
        ("sys.exit(3)", RunError, "Received: exit code 3"),
        ("print('no result')", RunError, "Received: exit code 0"),
        (
            'print(\'{"a graph"\'); print(\'{"problem": "It is broken", "received": "x", '
            '"hint": "Mend it", "shortage": false}\')',
            RunError,
            "It is broken. Received: x. Mend it.",
        ),
        ("sys.stdin.read()", RunError, "Version 2 of model 'm' was not loaded within 1 s"),
    ],
)
def test_a_version_that_cannot_be_loaded(worker, tmp_path, lines, kind, text):
    worker(lines)
    with pytest.raises(RunError) as caught, LoadTrial("tensorflow", 1).admit("m", 2, tmp_path):
        pytest.fail("it was loaded in this process too")
    assert type(caught.value) is kind
    assert text in str(caught.value)


def test_the_process_of_a_trial(worker, tmp_path):
    """It reserves no GPU, finds no module in its folder, and keeps no file."""
    worker(
        "import json, tempfile\n"
        "found = [sys.argv[1:], os.environ['CUDA_VISIBLE_DEVICES'], sys.flags.safe_path,\n"
        "         tempfile.mkdtemp(), os.environ['PYTHONPATH'].split(os.pathsep)]\n"
        "print(json.dumps({'problem': json.dumps(found), 'received': None, 'hint': None,\n"
        "                  'shortage': True}))"
    )
    with pytest.raises(MemoryShortageError) as caught:
        LoadTrial("openvino").measure("m", 2, tmp_path)
    arguments, devices, is_safe, temporary, paths = json.loads(caught.value.problem)
    assert arguments == ["openvino", "m", "2", str(tmp_path)]
    assert (devices, is_safe) == ("-1", True)
    # This package, wherever the command runs, before what the environment names.
    assert paths == [str(Path(cnnkit.__file__).parents[1]), *os.environ["PYTHONPATH"].split(":")]
    assert Path(temporary).parent.name.startswith("cnnkit-trial-")
    assert not Path(temporary).parent.exists()


# Of 1 MiB, which the trial has taken: itself, an eighth, and 64 MiB.
LEAST = 2**20 + 2**17 + 2**26


@pytest.mark.parametrize(("free", "fits"), [(None, True), (LEAST, True), (LEAST - 1, False)])
def test_a_version_needs_the_memory_of_its_trial(worker, tmp_path, monkeypatch, free, fits):
    monkeypatch.setattr(load_trial, "find_free_memory", lambda: free)
    loaded = []
    if fits:
        with LoadTrial("tensorflow").admit("m", 2, tmp_path):
            loaded.append(2)
        assert loaded
    else:
        with (
            pytest.raises(MemoryShortageError, match="takes 1 MiB of memory to load, and 65 MiB"),
            LoadTrial("tensorflow").admit("m", 2, tmp_path),
        ):
            loaded.append(2)
        assert not loaded


def test_versions_of_a_folder_are_loaded_one_after_another(worker, tmp_path, monkeypatch):
    """Several processes would take the same free memory."""
    inside, leave, order = threading.Event(), threading.Event(), []
    waiting = threading.Event()

    def sleep(seconds):
        waiting.set()
        time.sleep(seconds)

    clock = SimpleNamespace(sleep=sleep, monotonic=time.monotonic)
    monkeypatch.setattr(load_trial, "time", clock)

    def load(number):
        with LoadTrial("tensorflow").admit("m", number, tmp_path / str(number)):
            order.append(number)
            inside.set()
            assert leave.wait(30)
            order.append(number)

    first = threading.Thread(target=load, args=(1,))
    first.start()
    assert inside.wait(30)
    second = threading.Thread(target=load, args=(2,))
    second.start()
    assert waiting.wait(30)
    leave.set()
    first.join(30)
    second.join(30)
    assert order == [1, 1, 2, 2]


def test_a_lock_is_waited_for_no_longer_than_a_version_takes_to_load(worker, tmp_path, monkeypatch):
    """The process that holds it may hang; a file system may have no locks."""
    waited = []
    now = iter([0.0, 0.0, 1199.0, 1201.0])
    clock = SimpleNamespace(sleep=waited.append, monotonic=lambda: next(now))
    monkeypatch.setattr(load_trial, "time", clock)
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with LoadTrial("tensorflow").admit("m", 1, tmp_path / "1"):
            assert waited == [0.1, 0.1]
    finally:
        os.close(handle)
    now = iter([0.0, 0.0])

    def refuse(*given):
        raise OSError("Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    for folder in (tmp_path, tmp_path / "none"):
        with LoadTrial("tensorflow").admit("m", 1, folder / "1"):
            pass
    assert waited == [0.1, 0.1]
