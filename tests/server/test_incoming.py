"""Messages in reception count too, by the bytes that their connections have sent."""

import asyncio
import socket
import sys

import pytest

from cnnkit.server.incoming import IncomingBytes, SocketCounters
from cnnkit.server.memory_budget import MemoryBudget
from cnnkit.server.status_error import StatusError


class Sockets:
    """Counters that a test sets; a peer is known after a look for connections."""

    def __init__(self):
        self.sent, self.known = {}, set()

    def bytes_received(self, peer):
        return self.sent[peer] if peer in self.known else None

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
            assert sockets.bytes_received(name) is None
            sockets.find_connections()
            assert sockets.bytes_received(name) == 0
            client.sendall(bytes(1000))
            assert len(accepted.recv(1000, socket.MSG_WAITALL)) == 1000
            assert sockets.bytes_received(name) == 1000
        assert sockets.bytes_received(name) is None
    assert sockets.bytes_received("unix:/tmp/x") is None
