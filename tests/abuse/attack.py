"""Threads that send hostile requests to a server, and count its answers."""

import collections
import http.client
import re
import select
import socket
import threading
import time

import grpc
import numpy as np

from tests.abuse import hostile
from tests.helpers.serving import predict_gray

SECONDS = 30
# Time without a byte after which a server that may wait for the rest of a request is taken to wait,
# and after which the right answers are taken to be all.
WAITING_SECONDS, DONE_SECONDS = 0.5, 0.02
# The right answers to any request over HTTP, besides those of raw bytes.
HTTP_CODES = {"200", "400", "404", "413", "417"}
GRPC_CODES = {
    "OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "PERMISSION_DENIED",
    "UNIMPLEMENTED",
}  # fmt: skip
# At the limits, and right there.
BUSY = {"429", "RESOURCE_EXHAUSTED"}

_STATUS_LINE = re.compile(rb"HTTP/\d\.\d (\d{3}) ")


class Attack:
    """Random requests, half of them over HTTP, a tenth as raw bytes, and the others over gRPC.

    Args:
        address: Host and port of gRPC.
        rest: Host and port of the REST API.
        count: The number of requests.
        seed: Seed of the requests.
        threads: The number of threads.

    Attributes:
        answers: How often each API gave each answer.
        bad: An example of each answer that is not right.
        wrong: Number of wrong predictions of a client with a right request.
    """

    def __init__(self, address, rest, count, seed=0, threads=4):
        self.answers = collections.Counter()
        self.bad = {}
        self.wrong = 0
        self._address, self._rest, self._count, self._threads = address, rest, count, threads
        self._next = iter(range(count))
        self._lock = threading.Lock()
        self._seed = seed

    def run(self, report=lambda sent: None):
        """Sends all requests; calls `report` with the number sent, about twenty times."""
        workers = [threading.Thread(target=self._work) for _ in range(self._threads)]
        for worker in workers:
            worker.start()
        expected, due = hostile.expected_gray(), 0
        with grpc.insecure_channel(self._address) as channel:
            while any(worker.is_alive() for worker in workers):
                found = predict_gray(channel, seconds=SECONDS)
                self.wrong += not np.allclose(found, expected, atol=1e-6)
                sent = self.answers.total()
                if sent >= due:
                    report(sent)
                    due += max(self._count // 20, 1)
                time.sleep(0.1)

    def _work(self):
        bodies, messages = hostile.valid_bodies(), hostile.valid_messages()
        connection = http.client.HTTPConnection(self._rest, timeout=SECONDS)
        with grpc.insecure_channel(self._address) as channel:
            while True:
                with self._lock:
                    number = next(self._next, None)
                if number is None:
                    break
                source = hostile.seeded(f"{self._seed} {number}")
                kind = number % 10
                if kind == 0:
                    sent, right = hostile.raw_http(source)
                    api, answer = "raw", exchange(self._rest, sent, right)
                    is_right = answer in right if right else _is_some_answer(answer)
                    if " " in answer and is_right:
                        answer = "several, in order"
                elif kind < 6:
                    api, sent = "HTTP", hostile.http_request(source, bodies)
                    answer = _http(connection, *sent)
                    is_right = answer in HTTP_CODES | BUSY
                else:
                    api, sent = "gRPC", hostile.grpc_request(source, messages)
                    answer, details = _grpc(channel, *sent)
                    is_right = answer in GRPC_CODES | BUSY
                    if answer == "INTERNAL" and not hostile.is_readable(*sent):
                        # As servers of gRPC in C++ answer what is no message.
                        answer = "INTERNAL, no message"
                        is_right = not details or details.startswith("The message cannot be dec")
                    elif not is_right:
                        answer = f"{answer} {details}"
                with self._lock:
                    self.answers[api, answer] += 1
                    if not is_right:
                        self.bad.setdefault((api, answer), (number, sent))
        connection.close()


def _is_some_answer(answer):
    return set(answer.split()) <= {"waits", *HTTP_CODES}


def _http(connection, verb, path, headers, body):
    try:
        connection.request(verb, path, body, headers)
        answer = connection.getresponse()
        answer.read()
        return str(answer.status)
    except TimeoutError:
        return "no answer"
    except (OSError, http.client.HTTPException) as error:
        return f"closed: {type(error).__name__}"
    finally:
        connection.close()


def _grpc(channel, path, raw):
    try:
        channel.unary_unary(path)(raw, timeout=SECONDS)
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return "OK", ""


def exchange(rest, sent, right=None):
    """Returns the status codes that raw bytes get, in order, joined by spaces.

    The connection stays open for writing, as that of a client that waits for its answer. Bytes are
    read while others are written: a server may answer, and close, before it has read all.

    Args:
        rest: Host and port of the server.
        sent: The bytes.
        right: The right answers, which end the wait for others; None if anything may be right.

    Returns:
        Also "waits" for a server that sends nothing and keeps the connection, and "closed" for one
        that closes it without any answer.
    """
    host, port = rest.split(":")
    received, closed, answer = b"", False, ""
    with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
        connection.setblocking(False)
        left, last = memoryview(sent), time.monotonic()
        while not closed:
            if right and answer in right:
                patience = DONE_SECONDS
            else:
                patience = WAITING_SECONDS if right is None or "waits" in right else SECONDS
            if time.monotonic() - last > patience:
                break
            readable, writable, _ = select.select(
                [connection], [connection] if left else [], [], patience
            )
            if readable or writable:
                last = time.monotonic()
            try:
                if writable:
                    left = left[connection.send(left) :]
            except OSError:
                # Nobody reads it any more; there may be an answer to read.
                left = left[:0]
            try:
                if readable:
                    piece = connection.recv(65_536)
                    received += piece
                    closed = not piece
            except OSError:
                closed = True
            answer = " ".join(code.decode() for code in _STATUS_LINE.findall(received))
    return answer or ("closed" if closed else "waits")


class SlowConnections:
    """Connections that send a byte now and then and never end their request.

    Args:
        rest: Host and port of the REST API.
        count: Number of connections that send a head, and of those that send a body.
        pause: Seconds between two bytes.
    """

    def __init__(self, rest, count, pause=0.5):
        host, port = rest.split(":")
        post = b"POST /v1/models/colors:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n"
        self.ends = []
        self._pause = pause
        self._open = {}
        for number in range(2 * count):
            kind, begin = ("body", post) if number % 2 else ("head", b"GET /v1/models HTTP/1.1\r\n")
            connection = socket.create_connection((host, int(port)), timeout=SECONDS)
            connection.sendall(begin)
            self._open[connection] = (kind, time.monotonic())
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def wait(self):
        """Waits for the end of all; returns kind, answer and seconds of each."""
        self._thread.join()
        return self.ends

    def _send(self):
        limit = time.monotonic() + 10 * SECONDS
        while self._open and time.monotonic() < limit:
            ended, _, _ = select.select([*self._open], [], [], self._pause)
            for connection in [*self._open]:
                answer = b""
                try:
                    if connection in ended:
                        answer = connection.recv(4096)
                    else:
                        connection.sendall(b"a")
                        continue
                except OSError:
                    pass
                kind, begun = self._open.pop(connection)
                found = _STATUS_LINE.match(answer)
                code = found[1].decode() if found else "closed"
                self.ends.append((kind, code, time.monotonic() - begun))
                connection.close()
        for connection in self._open:
            kind, begun = self._open[connection]
            self.ends.append((kind, "open", time.monotonic() - begun))
            connection.close()
