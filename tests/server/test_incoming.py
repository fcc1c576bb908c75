"""Messages in reception count too, by the bytes that their connections have sent."""

import asyncio
import os
import socket
import sys

import pytest

from cnnkit.server import incoming
from cnnkit.server.incoming import IncomingBytes, Received, SocketCounters
from cnnkit.server.memory_budget import MemoryBudget
from cnnkit.server.status_error import StatusError


class Sockets:
    """Counters that a test sets; a peer is known after a look for connections."""

    def __init__(self):
        self.sent, self.known, self.socket = {}, set(), 1

    def received(self, peer):
        return Received(self.socket, self.sent[peer]) if peer in self.known else None

    def find_connections(self):
        self.known = set(self.sent)


class Messages:
    """A message that arrives when a test says so."""

    def __init__(self):
        self.message = asyncio.get_running_loop().create_future()

    async def read(self):
        return await self.message


def test_the_largest_message_is_refused_when_the_budget_is_full():
    async def receive():
        # A message counts twice until it has arrived: 2 * (10 + 70 + 20).
        sockets, budget = Sockets(), MemoryBudget(200)
        incoming = IncomingBytes(budget, sockets)
        calls = {}
        for peer in ("small", "large", "done"):
            messages = Messages()
            task = asyncio.create_task(incoming.receive(peer, messages.read))
            calls[peer] = messages, task
        await asyncio.sleep(0)
        sockets.sent = {"small": 10, "large": 70, "done": 20}
        incoming.check()
        calls["done"][0].message.set_result(bytes(20))
        assert await calls["done"][1] == bytes(20)
        with budget.open() as memory:
            memory.add(40)
            incoming.check()
            assert not calls["large"][1].done()
            # The same connection sends another message.
            second = Messages()
            calls["again"] = second, asyncio.create_task(incoming.receive("done", second.read))
            await asyncio.sleep(0)
            sockets.sent["done"] = 21
            incoming.check()
            with pytest.raises(StatusError, match="Server memory for requests is full"):
                await calls["large"][1]
        for peer in ("small", "again"):
            calls[peer][0].message.set_result(b"x")
            assert await calls[peer][1] == b"x"

    asyncio.run(receive())


def test_headers_do_not_add_up_on_a_connection_that_is_never_idle():
    async def receive():
        sockets = Sockets()
        sockets.sent = {"proxy": 0}
        incoming = IncomingBytes(MemoryBudget(200), sockets)
        sockets.find_connections()
        open_calls = []
        for _ in range(100):
            # 10 bytes of headers, 5 of the message.
            messages = Messages()
            open_calls.append(
                (messages, asyncio.create_task(incoming.receive("proxy", messages.read)))
            )
            await asyncio.sleep(0)
            sockets.sent["proxy"] += 15
            incoming.check()
            if len(open_calls) == 2:
                messages, task = open_calls.pop(0)
                messages.message.set_result(bytes(5))
                assert await task == bytes(5)
        open_calls[0][0].message.set_result(b"")
        await open_calls[0][1]

    asyncio.run(receive())


KILOBYTE = 2**10


async def begin(incoming, sockets, peer, sent):
    """Begins to receive a message, of which as many bytes have arrived."""
    sockets.sent[peer] = sockets.sent.get(peer, 0) + sent
    messages = Messages()
    task = asyncio.create_task(incoming.receive(peer, messages.read))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return messages, task


async def is_refused(incoming, task):
    incoming.check()
    await asyncio.wait([task], timeout=0.01)
    return task.done() and isinstance(task.exception(), StatusError)


@pytest.mark.parametrize("before", ["nothing", "a message", "another connection"])
def test_what_arrives_before_the_handler_begins_counts(before):
    """On a busy machine it begins late; the counters know all connections by then."""

    async def receive():
        sockets = Sockets()
        incoming = IncomingBytes(MemoryBudget(800 * KILOBYTE), sockets)
        sockets.sent["a"] = 0
        sockets.find_connections()
        if before == "a message":
            # Most of the next one is there when this one is passed on.
            messages, task = await begin(incoming, sockets, "a", 300 * KILOBYTE)
            sockets.sent["a"] += 420 * KILOBYTE
            messages.message.set_result(bytes(300 * KILOBYTE))
            assert len(await task) == 300 * KILOBYTE
            messages, task = await begin(incoming, sockets, "a", 20 * KILOBYTE)
        elif before == "another connection":
            messages, task = await begin(incoming, sockets, "a", 300 * KILOBYTE)
            messages.message.set_result(bytes(300 * KILOBYTE))
            await task
            sockets.socket, sockets.sent = 2, {"a": 0}
            messages, task = await begin(incoming, sockets, "a", 420 * KILOBYTE)
        else:
            messages, task = await begin(incoming, sockets, "a", 420 * KILOBYTE)
        assert await is_refused(incoming, task)

    asyncio.run(receive())


def test_a_connection_that_was_idle_begins_at_what_it_has_sent():
    async def receive():
        sockets = Sockets()
        incoming = IncomingBytes(MemoryBudget(800 * KILOBYTE), sockets)
        # A thousand small messages that end before anything looks at the counters.
        for _ in range(1000):
            messages, task = await begin(incoming, sockets, "a", KILOBYTE)
            messages.message.set_result(bytes(KILOBYTE - 10))
            await task
        messages, task = await begin(incoming, sockets, "a", 300 * KILOBYTE)
        assert not await is_refused(incoming, task)
        # A client that resets a call: no message takes its bytes.
        messages.message.set_result(None)
        with pytest.raises(StatusError, match="no message"):
            await task
        messages, task = await begin(incoming, sockets, "a", 300 * KILOBYTE)
        assert not await is_refused(incoming, task)
        messages.message.set_result(b"")
        await task

    asyncio.run(receive())


def test_connections_that_have_ended_are_forgotten():
    async def receive():
        sockets = Sockets()
        incoming = IncomingBytes(MemoryBudget(800), sockets)
        for number in range(2000):
            messages, task = await begin(incoming, sockets, f"peer {number}", 1)
            messages.message.set_result(b"x")
            await task
            if number >= 100:
                del sockets.sent[f"peer {number}"]
                sockets.known.discard(f"peer {number}")
        assert 100 <= len(incoming._idle) <= 512

    asyncio.run(receive())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such counters")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_kernel_counts_the_bytes_of_a_connection(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family) as listening,
        socket.create_connection(listening.getsockname()[:2]) as client,
    ):
        accepted, place = listening.accept()
        with accepted:
            name = f"ipv6:%5B{host}%5D:{place[1]}" if ":" in host else f"ipv4:{host}:{place[1]}"
            sockets = SocketCounters()
            assert sockets.received(name) is None
            sockets.find_connections()
            assert sockets.received(name) == (os.fstat(accepted.fileno()).st_ino, 0)
            client.sendall(bytes(1000))
            assert len(accepted.recv(1000, socket.MSG_WAITALL)) == 1000
            assert sockets.received(name).size == 1000
        assert sockets.received(name) is None
    assert sockets.received("unix:/tmp/x") is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such counters")
def test_a_connection_by_ipv4_to_a_socket_of_ipv6():
    """The kernel and gRPC write its address in different ways."""
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening,
        socket.create_connection(("127.0.0.1", listening.getsockname()[1])),
    ):
        accepted, place = listening.accept()
        sockets = SocketCounters()
        names = [f"ipv4:127.0.0.1:{place[1]}", f"ipv6:%5B::ffff:127.0.0.1%5D:{place[1]}"]
        with accepted:
            assert place[0] == "::ffff:127.0.0.1"
            sockets.find_connections()
            for name in names:
                assert sockets.received(name).size == 0
        # Another connection that has its descriptor is another one.
        with socket.create_connection(listening.getsockname()[:2]):
            assert [sockets.received(name) for name in names] == [None, None]


def test_a_zone_is_no_part_of_an_address():
    assert incoming._plain_host("fe80::1%eth0") == "fe80::1"
    assert incoming._plain_host("10.0.0.7") == "10.0.0.7"


def test_the_bytes_of_a_connection():
    """Those before the messages in reception do not count; another connection begins anew."""
    connection = incoming._Connection()
    assert [connection.size(found) for found in (None, Received(1, 5))] == [0, 5]
    connection.counted = 3
    assert [connection.size(Received(1, size)) for size in (2, 3, 5)] == [0, 0, 2]
    for number, counted in ((None, 3), (1, 3), (1, 3), (2, 0)):
        connection.recognize(None if number is None else Received(number, 9))
        assert (connection.counted, connection.socket) == (counted, number)


# Of a message: its bytes, 16 KiB of headers, and a hundredth for the frames of HTTP/2.
MOST = 307_200 + 16_384 + 3_072


@pytest.mark.parametrize(
    ("size", "others", "received", "counted"),
    [
        (307_200, [], MOST + 1, 7 + MOST),
        (307_200, [], 10**6, 7 + MOST),
        (307_200, [], 7 + MOST - 1, 7 + MOST - 1),
        (307_200, [5], None, 7 + 307_200),
        # A call that is reset: nothing before the oldest of the others counts.
        (None, [9, 20], 10**6, 9),
        (None, [5], 10**6, 7),
        (None, [], 10**6, 10**6),
        (None, [], None, 7),
    ],
)
def test_what_belongs_to_a_message_that_has_ended(size, others, received, counted):
    connection = incoming._Connection(7, 1, {"ended": 0} | {str(one): one for one in others})
    connection.remove("ended", size, None if received is None else Received(1, received))
    assert connection.counted == min(counted, received or counted)
    assert list(connection.tasks) == [str(one) for one in others]


def test_a_connection_that_is_not_known_yet_is_looked_for():
    async def receive():
        sockets = Sockets()
        counted = IncomingBytes(MemoryBudget(200), sockets)
        sockets.sent, sockets.known = {"a": 0, "b": 0}, {"a"}
        small, first = await begin(counted, sockets, "a", 10)
        _, second = await begin(counted, sockets, "b", 300)
        assert await is_refused(counted, second)
        assert not first.done()
        small.message.set_result(b"")
        await first

    asyncio.run(receive())


def test_a_call_that_is_canceled_reads_no_further():
    async def receive():
        messages = Messages()
        task = asyncio.create_task(
            IncomingBytes(MemoryBudget(200), Sockets()).receive("a", messages.read)
        )
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert messages.message.cancelled()

    asyncio.run(receive())
