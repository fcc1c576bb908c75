"""What `cnnkit serve` does while TensorFlow Serving starts and runs; it is a stand-in here."""

from types import SimpleNamespace

import pytest

from cnnkit.cli.serve import tf_serving
from cnnkit.client import ServerError, VersionStatus
from cnnkit.errors import RunError, UsageError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "digits" / "5").mkdir(parents=True)
    return tmp_path / "digits"


@pytest.fixture
def program(monkeypatch):
    """Replaces the program, its client and the clock; returns what was asked of them."""
    told = SimpleNamespace(asked=[], answers=[], now=0.0)

    class Process:
        def __init__(self, *given):
            told.process = given

        def __enter__(self):
            return self

        def __exit__(self, *error):
            told.asked.append("end")

        def check_running(self):
            told.asked.append("check")

    class Client:
        def __init__(self, address, timeout):
            told.client = address, timeout

        def __enter__(self):
            return self

        def __exit__(self, *error):
            told.asked.append("close")

        def status(self, name):
            told.asked.append(name)
            answer = told.answers.pop(0) if told.answers else []
            if isinstance(answer, Exception):
                raise answer
            return [VersionStatus(version, state, "OK", "") for version, state in answer]

    def sleep(seconds):
        told.now += seconds

    monkeypatch.setattr(tf_serving, "ModelServerProcess", Process)
    monkeypatch.setattr(tf_serving, "Client", Client)
    clock = SimpleNamespace(sleep=sleep, monotonic=lambda: told.now)
    monkeypatch.setattr(tf_serving, "time", clock)
    return told


def serve(folder, told, stops, port=8500):
    stops = iter(stops)
    tf_serving.serve_with_tf_serving("program", folder, "m", port, lambda: next(stops))


def test_it_is_ready_when_a_version_is_available(folder, program, capsys):
    """Not when it cannot be asked yet, nor while every version is loading."""
    program.answers = [
        ServerError("nobody there", code="UNAVAILABLE", details=""),
        [(7, "LOADING")],
        [(7, "LOADING"), (5, "AVAILABLE"), (4, "AVAILABLE")],
    ]
    serve(folder, program, [False] * 3 + [False, False, True])
    assert program.process == ("program", "m", folder, 8500)
    assert program.client == ("localhost:8500", 1.0)
    # Looked at before each question, and again while it serves.
    assert program.asked == [*["check", "m"] * 3, "close", "check", "check", "end"]
    assert program.now == pytest.approx(0.4)
    assert capsys.readouterr().out == (
        "serving m version 5 at 0.0.0.0:8500 with program, which listens on every network "
        "interface (Ctrl-C stops)\n"
    )


def test_a_stop_before_it_is_ready(folder, program, capsys):
    serve(folder, program, [False, True, True])
    assert program.asked == ["check", "m", "close", "end"]
    assert capsys.readouterr().out == ""


def test_it_has_five_minutes_to_start(folder, program):
    program.answers = [[]] * 2998 + [[(1, "AVAILABLE")]]
    serve(folder, program, [False] * 2999 + [True])
    assert program.now == pytest.approx(299.8)
    program.now, program.asked = 0.0, []
    with pytest.raises(RunError) as caught:
        serve(folder, program, [False] * 5000)
    assert str(caught.value) == (
        "tensorflow_model_server was not ready within 300 s. Its log above says why."
    )
    assert 299.9 < program.now < 300.2
    assert program.asked[-1] == "end"


def test_any_free_port(folder, program):
    serve(folder, program, [True, True], port=0)
    port = program.process[3]
    assert 0 < port < 65536 and program.client[0] == f"localhost:{port}"


def test_a_folder_without_versions_is_refused_first(tmp_path, program):
    with pytest.raises(UsageError, match="holds no version"):
        serve(tmp_path, program, [True])
    assert not hasattr(program, "process")
