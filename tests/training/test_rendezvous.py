"""Processes of a training that meet before TensorFlow joins them: absent, late and wrong ones."""

import contextlib
import itertools
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cnnkit.errors import RunError
from cnnkit.training import rendezvous
from cnnkit.training.rendezvous import kill_after, wait_for_workers

FOREVER = 60.0


@pytest.fixture
def addresses():
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        for bound in (one, two, three):
            bound.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{s.getsockname()[1]}" for s in (one, two, three)]


@pytest.fixture
def pool(monkeypatch):
    monkeypatch.setattr(rendezvous, "REPORT_SECONDS", 0.0)
    monkeypatch.setattr(rendezvous, "POLL_SECONDS", 0.01)
    with ThreadPoolExecutor(4) as pool:
        yield pool


class Reports:
    """Messages of a waiting process, and a way to wait for one of them."""

    def __init__(self, text):
        self._text, self.seen = text, threading.Event()

    def __call__(self, message):
        if self._text in message:
            self.seen.set()


def wait(pool, addresses, index, text="", timeout=FOREVER):
    """Start one process; returns its future and whether it has said the text."""
    reports = Reports(text)
    future = pool.submit(wait_for_workers, addresses, index, timeout=timeout, report=reports)
    return future, reports.seen


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_workers_meet_in_any_order(order, addresses, pool):
    for future in [wait(pool, addresses, index)[0] for index in order]:
        assert future.result(FOREVER) is None
    # The ports are free again.
    for address in addresses:
        socket.create_server(("", int(address.rpartition(":")[2]))).close()


def test_everybody_names_the_workers_that_are_missing(addresses, pool):
    missing = f"waiting for worker 2 at {addresses[2]} since "
    second, second_waits = wait(pool, addresses, 1, f"waiting for worker 0 at {addresses[0]} since")
    assert second_waits.wait(FOREVER)
    first, first_waits = wait(pool, addresses, 0, missing)
    assert first_waits.wait(FOREVER)
    third, _ = wait(pool, addresses, 2)
    for future in (first, second, third):
        assert future.result(FOREVER) is None


@pytest.mark.parametrize("index", [0, 1])
def test_a_worker_gives_up(index, addresses, pool):
    future, _ = wait(pool, addresses, index, timeout=0.05)
    missing = "worker 1 at .*, worker 2 at .*" if index == 0 else "worker 0 at .*"
    with pytest.raises(RunError, match=f"did not start: {missing} did not answer within 0.05 s"):
        future.result(FOREVER)


def test_a_waiting_worker_reports_every_ten_seconds_and_ends_at_its_timeout(monkeypatch):
    clock, reports = [100.0], []
    monkeypatch.setattr(rendezvous.time, "monotonic", lambda: clock[0])
    wait = rendezvous._Wait(["a:1", "b:1", "c:1"], 25.0, reports.append)

    def at(seconds):
        clock[0] = 100.0 + seconds
        wait.check([1, 2], "refused")

    for seconds in (9.9, 10.0, 19.9, 20.0, 24.9):
        at(seconds)
    names = "worker 1 at b:1, worker 2 at c:1"
    assert reports == [f"waiting for {names} since {since} s (refused)" for since in (10, 20)]
    text = f"did not start: {names} did not answer within 25 s. Expected: 3 workers. Rec.*: refused"
    with pytest.raises(RunError, match=text):
        at(25.0)


def test_the_first_worker_that_gives_up_tells_the_others(addresses, pool, monkeypatch):
    greeted, check = threading.Event(), rendezvous._Wait.check

    # Only the first: another that gives up by itself before it hears of it is missing as well.
    def late(wait, missing, reason=""):
        if wait._timeout == first_timeout and list(missing) == [2] and greeted.is_set():
            raise wait.error(missing)
        check(wait, missing, reason)

    monkeypatch.setattr(rendezvous._Wait, "check", late)
    first_timeout = FOREVER - 1
    first, _ = wait(pool, addresses, 0, timeout=first_timeout)
    second, second_waits = wait(pool, addresses, 1, "worker 2")
    assert second_waits.wait(FOREVER)
    greeted.set()
    for future in (first, second):
        with pytest.raises(RunError, match="did not start: worker 2 at .* did not answer"):
            future.result(FOREVER)


def test_a_port_that_is_taken_is_found_at_once(addresses, pool):
    with socket.create_server(("", int(addresses[0].rpartition(":")[2]))):
        for index in (0, 1):
            future, _ = wait(pool, [*addresses[1 : index + 1], addresses[0], "other:1"], index)
            with pytest.raises(RunError, match=f"Worker {index} cannot listen .* Address already"):
                future.result(FOREVER)


def test_wrong_workers_are_refused_and_the_right_ones_meet(addresses, pool):
    pair = addresses[:2]
    first, _ = wait(pool, [*pair, "elsewhere:1"], 0)
    other, _ = wait(pool, pair, 1)
    with pytest.raises(RunError, match="Worker 1 was started with other addresses than worker 0"):
        other.result(FOREVER)
    second, there = wait(pool, [*pair, "elsewhere:1"], 1, "waiting for worker 2 at elsewhere")
    assert there.wait(FOREVER)
    # From another machine: on this one, the port is taken.
    host, port = addresses[0].split(":")
    greeting = rendezvous._Wait([*pair, "elsewhere:1"], 1, print).greeting
    with socket.create_connection((host, int(port))) as twice:
        twice.sendall(greeting(1))
        assert twice.makefile().readline() == "twice \n"
    with socket.create_connection((host, int(port))) as third:
        third.sendall(greeting(2))
        assert third.makefile().read() == "missing \ngo \n"
    assert first.result(FOREVER) is second.result(FOREVER) is None


@pytest.mark.parametrize(
    "bytes_sent",
    [b"", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100_000, b"cnnkit worker 99999 " + b"0" * 16 + b"\n"],
)
def test_other_programs_that_connect_are_left_alone(bytes_sent, addresses, pool, monkeypatch):
    monkeypatch.setattr(rendezvous, "GREETING_SECONDS", 0.05)
    pair = addresses[:2]
    first, waits = wait(pool, pair, 0, "worker 1")
    assert waits.wait(FOREVER)
    host, port = pair[0].split(":")
    with socket.create_connection((host, int(port))) as scanner:
        scanner.sendall(bytes_sent)
        second, _ = wait(pool, pair, 1)
        assert first.result(FOREVER) is second.result(FOREVER) is None


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400\r\n", b"missing 7\n", b"go\n", b"\xff" * 99_999])
def test_another_program_at_the_first_address_is_not_believed(answer, addresses, pool):
    pair = addresses[:2]
    with socket.create_server(("127.0.0.1", int(pair[0].rpartition(":")[2]))) as server:
        second, waits = wait(pool, pair, 1, "its port closes the connection")
        connection, _ = server.accept()
        with connection:
            # The worker may have closed the connection in the middle of the answer.
            with contextlib.suppress(OSError):
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
            assert waits.wait(FOREVER)
    first, _ = wait(pool, pair, 0)
    assert first.result(FOREVER) is second.result(FOREVER) is None


def test_a_worker_that_died_while_it_waited_is_missing_again(addresses, pool):
    pair = [*addresses[:2], addresses[2]]
    greeting = rendezvous._Wait(pair, 1, print).greeting
    first, waits = wait(pool, pair, 0, f"waiting for worker 1 at {pair[1]}, worker 2")
    host, port = pair[0].split(":")
    assert waits.wait(FOREVER)
    with socket.create_connection((host, int(port))) as died:
        died.sendall(greeting(1))
        assert died.makefile().readline() == "missing 2\n"
    third, third_waits = wait(pool, pair, 2, "worker 1 at")
    assert third_waits.wait(FOREVER)
    second, _ = wait(pool, pair, 1)
    for future in (first, second, third):
        assert future.result(FOREVER) is None


def test_a_process_that_is_stuck_is_ended_with_a_message(capfd):
    with subprocess.Popen(["sleep", "1000"]) as stuck, kill_after(0.01, "lost", stuck.pid):
        assert stuck.wait() == -9
    assert capfd.readouterr().err == "lost\n"
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as done:
        with kill_after(FOREVER, "lost", done.pid):
            pass
        assert done.poll() is None
