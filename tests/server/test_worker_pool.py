"""Several processes of `cnnkit serve` on one port."""

import os
import signal
import subprocess
import sys

import grpc
import psutil
import pytest

from cnnkit.cli.main import main
from cnnkit.errors import RunError
from cnnkit.server.worker_pool import WorkerPool
from tests.helpers.polled_server import wait_for
from tests.helpers.serving import (
    check_gray,
    predict_gray,
)

# A fake worker: ready at once, and running until its standard input ends.
WORKER = "print('serving m version 1 at here (Ctrl-C stops)', flush=True); input()"


class NewChildren:
    """The processes that a test starts; other tests may have left some that they share."""

    def __init__(self):
        self._before = set(psutil.Process().children())

    def children(self):
        return [one for one in psutil.Process().children() if one not in self._before]


@pytest.fixture
def me():
    return NewChildren()


def test_each_worker_that_ends_is_replaced_until_it_is_too_often(caplog, me):
    with WorkerPool([sys.executable, "-c", WORKER], 3) as workers:
        assert workers.start(lambda: False) == "serving m version 1 at here (Ctrl-C stops)"
        with pytest.raises(RunError, match="11 workers were lost within 60 s"):
            for _ in range(11):
                assert len(me.children()) == 3
                me.children()[0].kill()
                wait_for(
                    lambda: any(one.status() == "zombie" for one in me.children()), seconds=120
                )
                workers.replace_lost()
        assert caplog.text.count("a new one starts") == 10
    assert not me.children()


class Clock:
    """A clock that a test advances."""

    now = 1000.0

    def __call__(self):
        return self.now


# Prints a heartbeat for each byte of one pipe, then writes a byte into another one.
BEATING = """
import os, sys
print("ready", flush=True)
asked, done = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_WRONLY)
while os.read(asked, 1):
    print(".", flush=True)
    os.write(done, b".")
"""


def test_a_worker_without_heartbeats_is_replaced(tmp_path, caplog, me):
    pipes, clock = [tmp_path / "ask", tmp_path / "done"], Clock()
    for pipe in pipes:
        os.mkfifo(pipe)
    command = [sys.executable, "-c", BEATING, *map(str, pipes)]
    with WorkerPool(command, 1, clock) as workers:
        workers.start(lambda: False)
        [first] = me.children()
        with pipes[0].open("wb", 0) as ask, pipes[1].open("rb", 0) as done:
            for _ in range(10):
                ask.write(b".")
                assert done.read(1)
                clock.now += 4
                workers.replace_lost()
            assert me.children() == [first]
            # A process that was stopped itself has read no heartbeats.
            clock.now += 3600
            workers.replace_lost()
            assert me.children() == [first]
            first.suspend()
            for _ in range(4):
                clock.now += 4
                workers.replace_lost()
        [second] = me.children()
        assert second != first
        assert "A worker is lost: no heartbeat for 16 s; a new one starts" in caplog.text


def shell(script):
    return ["sh", "-c", script]


@pytest.mark.parametrize(("last", "fits"), [(60.0, True), (59.9, False)])
def test_ten_workers_may_be_lost_within_a_minute(last, fits, me):
    clock = Clock()
    with WorkerPool(shell("echo ready; exec cat"), 1, clock) as workers:
        assert workers.start(lambda: False) == "ready"
        for number in range(11):
            clock.now = 1000 + last if number == 10 else 1000.0
            [worker] = me.children()
            worker.kill()
            wait_for(lambda worker=worker: worker.status() == "zombie", seconds=30)
            if number < 10 or fits:
                workers.replace_lost()
                continue
            with pytest.raises(RunError, match="Received: exit code -9. Read their output above"):
                workers.replace_lost()


def test_a_worker_may_load_for_ten_minutes(tmp_path, caplog, me):
    """A new one, which has not printed its first line; the time of a check that is late is not."""
    script = f"test -e {tmp_path}/begun || echo ready; touch {tmp_path}/begun; exec cat"
    clock, ended = Clock(), []
    with WorkerPool(shell(script), 1, clock, ended.append) as workers:
        workers.start(lambda: False)
        [first] = me.children()
        first.kill()
        wait_for(lambda: first.status() == "zombie", seconds=30)
        workers.replace_lost()
        assert ended == [first.pid]
        [second] = me.children()
        for _ in range(120):
            clock.now += 5
            workers.replace_lost()
        assert me.children() == [second]
        clock.now += 1
        workers.replace_lost()
        assert "A worker is lost: no heartbeat for 601 s" in caplog.text
        assert ended == [first.pid, second.pid]


def test_workers_get_the_time_that_they_need_to_end(tmp_path, me):
    """All of them together; then they are killed."""
    ending = f"trap 'sleep 0.3; echo >>{tmp_path}/ended; exit' TERM; echo ready; "
    ending += "while :; do sleep 0.02; done"
    deaf = "trap '' TERM; echo ready; while :; do sleep 1; done"
    for script, grace in ((ending, 15), (deaf, 0.1)):
        with WorkerPool(shell(script), 2) as workers:
            workers.start(lambda: False)
            begun = me.children()
            workers.stop(grace)
            assert not me.children() and not any(one.is_running() for one in begun)
    assert (tmp_path / "ended").read_text() == "\n\n"


def test_workers_that_start_end_at_once_when_the_command_is_to_stop(me):
    stops = iter([False, False, True])
    with WorkerPool(shell("exec cat"), 3) as workers:
        assert workers.start(lambda: next(stops, True)) is None
        # The others are not started.
        assert len(workers._workers) == 1
    assert not me.children()


@pytest.mark.parametrize("last", ["exit 3", "touch {}/begun; exec cat"])
def test_every_worker_must_be_ready(tmp_path, last):
    """Not the first one alone: a later one exits, or is still starting when the command stops."""
    script = f"if mkdir {tmp_path}/first; then echo ready; exec cat; fi 2>/dev/null; "
    with WorkerPool(shell(script + last.format(tmp_path)), 2) as workers:
        if last == "exit 3":
            with pytest.raises(RunError, match="exited before it was ready. Received: exit code 3"):
                workers.start(lambda: False)
        else:
            assert workers.start((tmp_path / "begun").exists) is None


def test_a_worker_that_is_never_ready():
    with (
        WorkerPool([sys.executable, "-c", "raise SystemExit(3)"], 2) as workers,
        pytest.raises(RunError, match="exited before it was ready. Received: exit code 3"),
    ):
        workers.start(lambda: False)


def test_ctrl_c_ends_the_workers_and_then_the_command_while_they_start(
    colors_folder, tmp_path, monkeypatch, capsys
):
    """The terminal sends it to all processes, and a worker may end before the parent hears it."""
    ended = "import os, signal; signal.signal(2, signal.SIG_DFL); os.kill(os.getpid(), 2)"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{ended}"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert main(["serve", str(colors_folder), "--port", "0", "--workers", "2"]) == 130
    assert capsys.readouterr() == ("", "cnnkit: interrupted\n")


def test_several_processes_stop_cleanly(colors_folder, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{WORKER}"\n')
    python.chmod(0o755)
    program = (
        "import sys; from cnnkit.cli.main import main; sys.executable = sys.argv.pop(1);"
        "sys.exit(main(sys.argv[1:]))"
    )
    options = ["serve", colors_folder, "--port", "0", "--workers", "3"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, python, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    workers = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert line == "serving m version 1 at here in 3 processes (Ctrl-C stops)\n"
    assert len(workers) == 3
    assert not any(one.is_running() for one in workers)


@pytest.mark.slow
def test_real_workers_that_are_killed_and_a_parent_that_is(colors_folder):
    """SIGKILL for a worker between requests, then for the parent process."""
    command = [sys.executable, "-m", "cnnkit", "serve", colors_folder, "--port", "0"]
    with subprocess.Popen(
        [*command, "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        parent = psutil.Process(process.pid)
        address = process.stdout.readline().split(" at ")[1].split()[0]
        alone = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.insecure_channel(address, alone) for _ in range(8)]
        for channel in channels:
            check_gray(predict_gray(channel))
        first, second = parent.children()
        first.kill()
        # A killed process stays a child until its parent replaces it.
        wait_for(
            lambda: first not in parent.children() and len(parent.children()) == 2, seconds=120
        )
        # Connections to the other worker stay open; the rest connect to a worker again.
        for channel in channels:
            check_gray(predict_gray(channel, wait=True))
        assert second in parent.children()
        second.kill()
        wait_for(
            lambda: second not in parent.children() and len(parent.children()) == 2, seconds=120
        )
        # Only replaced workers are left.
        with grpc.insecure_channel(address, alone) as channel:
            check_gray(predict_gray(channel, wait=True, seconds=120))
        workers = parent.children()
        process.kill()
        wait_for(lambda: not any(one.is_running() for one in workers), seconds=120)
        for channel in channels:
            channel.close()
