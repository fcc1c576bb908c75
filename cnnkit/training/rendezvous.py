"""Wait until every process of a distributed training has started, before TensorFlow joins them.

TensorFlow 2.21 waits for an absent process without end and without a message, and holds Python's
global lock meanwhile, so that no signal is handled. The processes therefore meet first: the others
connect to the address of the first one, which answers when all of them are there. Each process
holds its own port until then, so that a port that is taken is found at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from cnnkit.errors import RunError

WORKER_TIMEOUT = 300.0  # seconds
REPORT_SECONDS = 10.0
# Time between two attempts to connect, and between two looks at the clock.
POLL_SECONDS = 0.2
# A connection that has sent no greeting by then, or another one, is closed.
GREETING_SECONDS = 2.0
GREETING = re.compile(rb"cnnkit worker (\d{1,5}) [0-9a-f]{16}\n")
MAX_GREETING = 64  # bytes
# Messages of the first process; the numbers are the indices of the processes that are missing.
GO, MISSING, LATE, TWICE, OTHER = "go", "missing", "late", "twice", "other"
MESSAGE = re.compile(rb"(go|missing|late|twice|other) ((?:\d{1,5},?)*)")
MAX_MESSAGE = 1 << 16  # bytes


def wait_for_workers(
    addresses: Sequence[str],
    index: int,
    *,
    timeout: float = WORKER_TIMEOUT,
    report: Callable[[str], object] = lambda message: None,
) -> None:
    """Wait until the processes at all `addresses` have called this function.

    Args:
        addresses: The `host:port` of every process, the first process first.
        index: Index of this process in `addresses`.
        timeout: Seconds to wait for the others.
        report: Called every 10 seconds with a sentence that names the processes that are missing.

    Raises:
        RunError: If a process has not come in time, the port of this one is taken, or another
            process has the same index or another list of addresses.

    Example:
        >>> wait_for_workers(["localhost:2222"], 0)
    """
    if len(addresses) < 2:
        return
    wait = _Wait(addresses, timeout, report)
    with _listen(addresses, index) as listener:
        if index == 0:
            _gather(listener, wait)
        else:
            _join(wait, index)


class _Wait:
    """What this process waits for, since when, and when it said so.

    Args:
        addresses: The `host:port` of every process.
        timeout: Seconds to wait.
        report: Called with a sentence that names the processes that are missing.
    """

    def __init__(
        self, addresses: Sequence[str], timeout: float, report: Callable[[str], object]
    ) -> None:
        self.addresses = addresses
        self._timeout, self._report = timeout, report
        self._begun = self._reported = time.monotonic()

    def check(self, missing: Sequence[int], reason: str = "") -> None:
        """Report the processes that are missing, if it is time to.

        Raises:
            RunError: If the time is over.
        """
        now = time.monotonic()
        if now - self._begun >= self._timeout:
            raise self.error(missing, f" within {self._timeout:g} s", reason)
        if now - self._reported >= REPORT_SECONDS:
            self._reported = now
            self._report(
                f"waiting for {self._names(missing)} since {now - self._begun:.0f} s"
                + (f" ({reason})" if reason else "")
            )

    def error(self, missing: Sequence[int], time: str = "", reason: str = "") -> RunError:
        """Return the error for processes that have not come."""
        return RunError(
            f"The training did not start: {self._names(missing)} did not answer{time}",
            expected=f"{len(self.addresses)} workers",
            received=reason or None,
            hint="Start all of them with the same `workers`, or wait longer: `worker_timeout`",
        )

    def greeting(self, index: int) -> bytes:
        """Return the first line of a process, which shows that it has the same addresses."""
        digest = hashlib.sha256(",".join(self.addresses).encode()).hexdigest()
        return f"cnnkit worker {index} {digest[:16]}\n".encode()

    def _names(self, missing: Sequence[int]) -> str:
        return ", ".join(f"worker {i} at {self.addresses[i]}" for i in missing)


def _listen(addresses: Sequence[str], index: int) -> socket.socket:
    """Return a socket on the port of this process, on all interfaces, as TensorFlow's."""
    port = int(addresses[index].rpartition(":")[2])
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", port), family=socket.AF_INET6, backlog=len(addresses), dualstack_ipv6=True
            )
        return socket.create_server(("", port), backlog=len(addresses))
    except OSError as error:
        raise RunError(
            f"Worker {index} cannot listen on the port of its address {addresses[index]}",
            received=os.strerror(error.errno) if error.errno else error,
            hint="End the process that uses the port, or give another port to all workers",
        ) from error


def _gather(listener: socket.socket, wait: _Wait) -> None:
    """Wait for all other processes, then let them go; the task of the first process."""
    listener.settimeout(POLL_SECONDS)
    present: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as held:
        while missing := [i for i in range(1, len(wait.addresses)) if i not in present]:
            try:
                wait.check(missing)
            except RunError:
                _send(present.values(), LATE, missing)
                raise
            with contextlib.suppress(TimeoutError):
                connection = held.enter_context(listener.accept()[0])
                index = _read_greeting(connection, wait)
                if index in present and _is_open(present[index]):
                    _send([connection], TWICE)
                elif index is not None:
                    present[index] = connection
            present = {i: one for i, one in present.items() if _is_open(one)}
            _send(present.values(), MISSING, [i for i in missing if i not in present])
        # Closed first: what connects to this port from now on means TensorFlow.
        listener.close()
        _send(present.values(), GO)


def _read_greeting(connection: socket.socket, wait: _Wait) -> int | None:
    """Return the index of the process that has connected; None for another program.

    A process with other addresses is told so.
    """
    connection.settimeout(GREETING_SECONDS)
    try:
        line = connection.makefile("rb").readline(MAX_GREETING)
    except OSError:
        return None
    greeting = GREETING.fullmatch(line)
    index = int(greeting[1]) if greeting else 0
    if 0 < index < len(wait.addresses) and line == wait.greeting(index):
        return index
    if greeting:
        _send([connection], OTHER)
    return None


def _is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _send(connections: Iterable[socket.socket], word: str, indices: Sequence[int] = ()) -> None:
    for connection in connections:
        # One that is closed is noticed when it is read.
        with contextlib.suppress(OSError):
            connection.sendall(f"{word} {','.join(map(str, indices))}\n".encode())


def _join(wait: _Wait, index: int) -> None:
    """Connect to the first process and wait until it lets this one go."""
    host, _, port = wait.addresses[0].rpartition(":")
    first = (host.strip("[]"), int(port))
    missing, reason = [0], ""
    while True:
        wait.check(missing, reason)
        try:
            with socket.create_connection(first, timeout=GREETING_SECONDS) as connection:
                connection.sendall(wait.greeting(index))
                connection.settimeout(POLL_SECONDS)
                for word, missing in _read_messages(connection, wait):
                    if word == GO:
                        return
                    if word != MISSING:
                        raise _refusal(wait, index, word, missing)
            missing, reason = [0], "its port closes the connection"
        except OSError as error:
            missing, reason = [0], error.strerror or str(error)
        time.sleep(POLL_SECONDS)


def _read_messages(connection: socket.socket, wait: _Wait) -> Iterator[tuple[str, list[int]]]:
    """Yield the messages of the first process, each with the processes that are missing."""
    data, missing = b"", [0]
    while len(data) < MAX_MESSAGE:
        try:
            received = connection.recv(MAX_MESSAGE)
        except TimeoutError:
            wait.check(missing)
            continue
        if not received:
            return
        *lines, data = (data + received).split(b"\n")
        for line in lines:
            message = MESSAGE.fullmatch(line)
            if not message:
                return
            missing = [int(i) for i in message[2].split(b",") if i]
            if any(i >= len(wait.addresses) for i in missing):
                return
            yield message[1].decode(), missing


def _refusal(wait: _Wait, index: int, word: str, missing: Sequence[int]) -> RunError:
    """Return the error for what the first process has said."""
    if word == LATE:
        return wait.error(missing)
    if word == TWICE:
        return RunError(
            f"Worker {index} was started twice", hint="Give each process its own `worker_index`"
        )
    return RunError(
        f"Worker {index} was started with other addresses than worker 0",
        received=", ".join(wait.addresses),
        hint="Give the same list of `workers` to every process",
    )


_WATCHDOG = """
import os, select, signal, sys
if not select.select([0], [], [], float(sys.argv[1]))[0]:
    print(sys.argv[2], file=sys.stderr)
    os.kill(int(sys.argv[3]), signal.SIGKILL)
"""


@contextmanager
def kill_after(seconds: float, message: str, process: int | None = None) -> Iterator[None]:
    """End a process if the block takes longer, even if the block holds Python's global lock.

    Args:
        seconds: Time for the block.
        message: Printed on standard error before.
        process: The process; None for this one.
    """
    words = [str(seconds), message, str(process or os.getpid())]
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCHDOG, *words], stdin=subprocess.PIPE
    ):
        # Leaving the context closes the pipe, which ends the watchdog.
        yield
