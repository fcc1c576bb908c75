"""Bytes of requests that are still being received.

gRPC tells the size of a message only when all of it is in memory, and has no limit for all messages
together. The kernel counts the bytes of each connection, and this module reads its counters: on
Linux only. Elsewhere a message counts when it has arrived. A message in reception counts twice.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
import struct
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import grpc

from cnnkit.server.memory_budget import MemoryBudget, memory_full
from cnnkit.server.status_error import StatusError

ReadMessage = Callable[[], Awaitable[object]]

# Seconds between two looks at the counters. At 3 GB/s, 30 MB arrive in this time.
_CHECK_SECONDS = 0.01
# gRPC joins the pieces of a message when the last has arrived, and keeps them until then.
_COPIES = 2
# The place of tcpi_bytes_received, 64 bits, in struct tcp_info of linux/tcp.h.
_BYTES_RECEIVED = 128
# Bytes of headers that gRPC accepts before a message, and the share of HTTP/2's frames in the bytes
# of one: 9 in a frame of 16 KiB, and more in smaller ones.
_MAX_HEADERS = 2**14
_FRAMES_SHARE = 100
_FEW_CONNECTIONS = 256
_PEER = re.compile(r"ipv[46]:\[?(?P<host>[^\]]+)\]?:(?P<port>\d+)")


class Received(NamedTuple):
    """What the kernel says of a connection.

    Attributes:
        socket: Number of the socket in the kernel, which no later connection has.
        size: Bytes that have arrived, also those that gRPC has not read yet.
    """

    socket: int
    size: int


@dataclass
class _Connection:
    """A connection on which messages were or are being received.

    Attributes:
        counted: Bytes it has sent that belong to no message in reception.
        socket: Number of its socket, or None until it is known.
        tasks: The tasks that receive the messages, oldest first, and the bytes sent before each.
    """

    counted: int = 0
    socket: int | None = None
    tasks: dict[asyncio.Task[bytes], int] = field(default_factory=dict)

    def size(self, received: Received | None) -> int:
        """Returns the bytes that have arrived of the messages in reception."""
        return 0 if received is None else max(0, received.size - self.counted)

    def recognize(self, received: Received | None) -> None:
        """Begins to count anew if this is another connection of the same port."""
        if received is not None and received.socket != self.socket:
            if self.socket is not None:
                self.counted = 0
            self.socket = received.socket

    def remove(
        self, task: asyncio.Task[bytes], size: int | None, received: Received | None
    ) -> None:
        """Ends a task that has received a message of so many bytes, or None.

        The bytes of a message that follows may have arrived already, so not all that has arrived
        belongs to the messages that have ended.
        """
        del self.tasks[task]
        if size is not None:
            self.counted += size
            if received is not None:
                most = self.counted + _MAX_HEADERS + size // _FRAMES_SHARE
                self.counted = min(received.size, most)
        elif self.tasks:
            # No message in reception began before the oldest task.
            self.counted = max(self.counted, next(iter(self.tasks.values())))
        elif received is not None:
            self.counted = received.size


class IncomingBytes:
    """Receives messages, and cancels the largest ones when they do not fit into a budget.

    Args:
        budget: The budget of all requests.
        sockets: The counters of bytes.

    Example:
        >>> incoming = IncomingBytes(MemoryBudget(2**30))
        >>> raw = await incoming.receive(context.peer(), context.read)  # doctest: +SKIP
    """

    def __init__(self, budget: MemoryBudget, sockets: SocketCounters | None = None) -> None:
        self._budget = budget
        self._sockets = sockets or SocketCounters()
        self._connections: dict[str, _Connection] = {}
        # Those without a message in reception. A handler begins late on a busy machine, when much
        # of its message has arrived, so a connection is counted from its beginning.
        self._idle: dict[str, _Connection] = {}
        self._most_idle = _FEW_CONNECTIONS
        self._watcher: asyncio.Task[None] | None = None

    async def receive(self, peer: str, read: ReadMessage) -> bytes:
        """Returns the message of a call.

        Args:
            peer: The client, as gRPC names it.
            read: Receives a message: `ServicerContext.read`. The iterator that gRPC offers instead
                keeps the message in a reference cycle, which is collected too rarely.

        Raises:
            StatusError: RESOURCE_EXHAUSTED if the budget is exceeded and its client has sent most;
                INTERNAL if there is no message.
        """
        received = self._sockets.received(peer)
        connection = self._connections.get(peer) or self._idle.pop(peer, None) or _Connection()
        self._connections[peer] = connection
        connection.recognize(received)
        task = asyncio.create_task(_read(read))
        connection.tasks[task] = 0 if received is None else received.size
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())
        size = None
        try:
            await asyncio.wait([task])
            if task.cancelled():
                raise memory_full()
            raw = task.result()
            size = len(raw)
            return raw
        finally:
            task.cancel()
            connection.remove(task, size, self._sockets.received(peer))
            if not connection.tasks:
                self._idle[peer] = self._connections.pop(peer)
                self._forget_closed()

    def _forget_closed(self) -> None:
        """Drops the connections that have ended, as soon as there are many."""
        if len(self._idle) > self._most_idle:
            self._sockets.find_connections()
            for peer in [peer for peer in self._idle if self._sockets.received(peer) is None]:
                del self._idle[peer]
            self._most_idle = max(_FEW_CONNECTIONS, 2 * len(self._idle))

    async def _watch(self) -> None:
        """Looks at the counters for as long as messages are being received."""
        while self._connections:
            await asyncio.sleep(_CHECK_SECONDS)
            self.check()
        self._watcher = None

    def check(self) -> None:
        """Cancels the reception of the largest messages until the others fit into the budget."""
        if any(self._sockets.received(peer) is None for peer in self._connections):
            self._sockets.find_connections()
        sizes = {}
        for peer, connection in self._connections.items():
            received = self._sockets.received(peer)
            connection.recognize(received)
            sizes[peer] = connection.size(received)
        total = _COPIES * sum(sizes.values()) + self._budget.used
        for peer in sorted(sizes, key=sizes.__getitem__, reverse=True):
            if total <= self._budget.limit:
                break
            # All of them: it is not known which of them is large.
            for task in self._connections[peer].tasks:
                task.cancel()
            total -= _COPIES * sizes[peer]


async def _read(read: ReadMessage) -> bytes:
    message = await read()
    if isinstance(message, bytes):
        return message
    # Also for a message above max_request_bytes: gRPC has then sent its own status.
    raise StatusError(grpc.StatusCode.INTERNAL, "The request has no message")


class SocketCounters:
    """The kernel's counters of the bytes that arrived on the sockets of this process."""

    def __init__(self) -> None:
        self._descriptors: dict[tuple[str, int], int] = {}

    def received(self, peer: str) -> Received | None:
        """Returns the bytes that a peer has sent; None if its connection is not known.

        Args:
            peer: The peer as gRPC names it, such as "ipv4:10.0.0.7:41234".
        """
        found = _PEER.fullmatch(urllib.parse.unquote(peer))
        if found is None:
            return None
        place = _plain_host(found["host"]), int(found["port"])
        descriptor = self._descriptors.get(place)
        if descriptor is None or _peer_of(descriptor) != place:
            return None
        return _read_counter(descriptor)

    def find_connections(self) -> None:
        """Looks for the connections of this process."""
        self._descriptors = _connected_sockets()


def _connected_sockets() -> dict[tuple[str, int], int]:
    """Returns the descriptor of each TCP connection of this process, by the address of its peer."""
    found = {}
    try:
        descriptors = [int(file.name) for file in Path("/proc/self/fd").iterdir()]
    except OSError:
        return {}
    for descriptor in descriptors:
        place = _peer_of(descriptor)
        if place is not None:
            found[place] = descriptor
    return found


def _peer_of(descriptor: int) -> tuple[str, int] | None:
    opened = None
    try:
        opened = socket.socket(fileno=descriptor)
        host, port, *_ = opened.getpeername()
        return _plain_host(host), port
    # Not a socket, not connected, or of another kind, whose address is text.
    except (OSError, ValueError):
        return None
    finally:
        if opened is not None:
            # The descriptor belongs to gRPC, and stays open.
            opened.detach()


def _read_counter(descriptor: int) -> Received | None:
    opened = None
    try:
        opened = socket.socket(fileno=descriptor)
        info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED + 8)
        size = int(struct.unpack_from("=Q", info, _BYTES_RECEIVED)[0])
        return Received(os.fstat(descriptor).st_ino, size)
    except (OSError, AttributeError, struct.error):
        return None
    finally:
        if opened is not None:
            opened.detach()


def _plain_host(host: str) -> str:
    """Returns an address without a zone, IPv4 also where it is written as IPv6."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
