"""A version that cannot be loaded ends a process of its own, and not the server."""

import os
import threading

import pytest

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


def test_the_memory_of_a_version(colors_folder):
    assert 2**16 < LoadTrial("tensorflow").measure("m", 1, colors_folder / "1") < 2**30


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


@pytest.mark.parametrize(("free", "fits"), [(None, True), (2**30, True), (2**20, False)])
def test_a_version_needs_the_memory_of_its_trial(worker, tmp_path, monkeypatch, free, fits):
    monkeypatch.setattr(load_trial, "find_free_memory", lambda: free)
    loaded = []
    if fits:
        with LoadTrial("tensorflow").admit("m", 2, tmp_path):
            loaded.append(2)
        assert loaded
    else:
        with (
            pytest.raises(MemoryShortageError, match="takes 1 MiB of memory to load, and 1 MiB"),
            LoadTrial("tensorflow").admit("m", 2, tmp_path),
        ):
            loaded.append(2)
        assert not loaded


def test_versions_of_a_folder_are_loaded_one_after_another(worker, tmp_path):
    """Several processes would take the same free memory."""
    inside, leave, order = threading.Event(), threading.Event(), []

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
    leave.set()
    first.join(30)
    second.join(30)
    assert order == [1, 1, 2, 2]
