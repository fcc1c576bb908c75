"""Bytes of requests that are still being received.

gRPC tells the size of a message only when all of it is in memory, and has no limit for all messages
together. The kernel counts the bytes of each connection, and this module reads its counters: on
Linux only. Elsewhere a message counts when it has arrived. A message in reception counts twice.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import struct
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

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
_PEER = re.compile(r"ipv[46]:\[?(?P<host>[^\]]+)\]?:(?P<port>\d+)")


@dataclass
class _Connection:
    """A connection on which messages are being received.

    Attributes:
        counted: Bytes it has sent that belong to no message in reception.
        tasks: The tasks that receive the messages, oldest first, and the bytes sent before each.
    """

    counted: int
    tasks: dict[asyncio.Task[bytes], int] = field(default_factory=dict)

    def remove(self, task: asyncio.Task[bytes], size: int) -> None:
        """Ends a task that has received a message of so many bytes."""
        del self.tasks[task]
        self.counted += size
        for before in self.tasks.values():
            # No message in reception began before the oldest task.
            self.counted = max(self.counted, before)
            break


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
        # A connection that is not known yet has sent nothing else.
        before = self._sockets.bytes_received(peer) or 0
        connection = self._connections.setdefault(peer, _Connection(before))
        task = asyncio.create_task(_read(read))
        connection.tasks[task] = before
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())
        size = 0
        try:
            await asyncio.wait([task])
            if task.cancelled():
                raise memory_full()
            raw = task.result()
            size = len(raw)
            return raw
        finally:
            task.cancel()
            connection.remove(task, size)
            if not connection.tasks:
                del self._connections[peer]

    async def _watch(self) -> None:
        """Looks at the counters for as long as messages are being received."""
        while self._connections:
            await asyncio.sleep(_CHECK_SECONDS)
            self.check()
        self._watcher = None

    def check(self) -> None:
        """Cancels the reception of the largest messages until the others fit into the budget."""
        if any(self._sockets.bytes_received(peer) is None for peer in self._connections):
            self._sockets.find_connections()
        sizes = {
            peer: max(0, (self._sockets.bytes_received(peer) or 0) - connection.counted)
            for peer, connection in self._connections.items()
        }
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

    def bytes_received(self, peer: str) -> int | None:
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


def _read_counter(descriptor: int) -> int | None:
    opened = None
    try:
        opened = socket.socket(fileno=descriptor)
        info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED + 8)
        return int(struct.unpack_from("=Q", info, _BYTES_RECEIVED)[0])
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
