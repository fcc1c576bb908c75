"""TensorFlow Serving's program as a child process; a small program stands for it."""

import json
import os
import sys

import pytest

from cnnkit.errors import RunError
from cnnkit.server import ModelServerProcess, find_model_server

NAME = "tensorflow_model_server"


@pytest.fixture
def program(tmp_path):
    """Returns a function that writes a program which runs lines of Python."""

    def write(*lines):
        path = tmp_path / "bin" / NAME
        path.parent.mkdir()
        path.write_text("\n".join([f"#!{sys.executable}", "import json, os, signal, sys", *lines]))
        path.chmod(0o755)
        return path

    return write


def test_the_program_is_found_on_the_path(program, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_model_server() is None
    path = program()
    assert find_model_server() == path


def test_it_is_started_with_the_model_and_ended(program, tmp_path):
    os.mkfifo(tmp_path / "ready")
    path = program(
        f"with open({str(tmp_path / 'ready')!r}, 'w') as file: json.dump(sys.argv[1:], file)",
        "signal.pause()",
    )
    (tmp_path / "digits").mkdir()
    with ModelServerProcess(path, "digits", tmp_path / "digits", 8500) as server:
        # Opening the pipe waits for the program.
        with (tmp_path / "ready").open() as file:
            arguments = dict(part.removeprefix("--").split("=") for part in json.load(file))
        assert arguments == {
            "port": "8500",
            "model_name": "digits",
            "model_base_path": str(tmp_path / "digits"),
            "grpc_max_threads": "64",
        }
        server.check_running()
    with pytest.raises(RunError, match="exit code -15"):
        server.check_running()
    server.stop()


def test_a_program_that_does_not_end_is_killed(program, tmp_path):
    os.mkfifo(tmp_path / "ready")
    path = program(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        f"open({str(tmp_path / 'ready')!r}, 'w').close()",
        "while True: signal.pause()",
    )
    server = ModelServerProcess(path, "digits", tmp_path, 8500)
    (tmp_path / "ready").open().close()
    server.stop(grace=0.1)
    with pytest.raises(RunError, match="exit code -9"):
        server.check_running()


def test_a_program_that_exits_or_cannot_start(program, tmp_path):
    with pytest.raises(RunError, match=f"{NAME} cannot be started. Received: No such file"):
        ModelServerProcess(tmp_path / "none", "digits", tmp_path, 8500)
    server = ModelServerProcess(program("sys.exit(3)"), "digits", tmp_path, 8500)
    server._process.wait()
    with pytest.raises(RunError, match="exited. Received: exit code 3"):
        server.check_running()
