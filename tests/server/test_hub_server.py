"""The hub behind real WebSockets on loopback."""

from __future__ import annotations

import asyncio
import socket

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.rendezvous import wire
from crowline.rendezvous.limits import HubLimits
from crowline.server.gate import Gate, canonical_host
from crowline.server.guard import ABORT
from crowline.server.listener import bound_address, listen
from hub_server import hear, hub_server, meet, say
from waiting import until


async def test_two_clients_meet_and_talk() -> None:
    """Elements, signals and frames pass from one side to the other."""
    async with hub_server() as server, server.connect() as host, server.connect() as join:
        _, claimed, joined = await meet(host, join)
        assert (claimed.element, joined.element) == (b"host", b"join")
        await say(join, wire.Relay("sealed", b"\x00secret"))
        assert await hear(host) == wire.Relayed("sealed", b"\x00secret")
        frame = bytes(wire.MAX_MESSAGE)
        await host.send(frame)
        assert await join.recv() == frame


async def test_a_clean_close_is_final_and_a_broken_one_is_not() -> None:
    """The other side is told which it was."""
    async with hub_server() as server, server.connect() as host, server.connect() as join:
        await meet(host, join)
        join.transport.abort()
        assert await hear(host) == wire.Left(final=False)
    async with hub_server() as server, server.connect() as host:
        async with server.connect() as join:
            await meet(host, join)
        assert await hear(host) == wire.Left(final=True)


async def test_a_side_comes_back_with_its_token() -> None:
    """What was said meanwhile follows."""
    async with hub_server() as server, server.connect() as host, server.connect() as join:
        _, claimed, _ = await meet(host, join)
        join.transport.abort()
        assert await hear(host) == wire.Left(final=False)
        await say(host, wire.Relay("sealed", b"missed"))
        async with server.connect() as again:
            assert isinstance(await hear(again), wire.Welcome)
            await say(again, wire.Resume(wire.VERSION, claimed.token, 0))
            assert await hear(again) == wire.Resumed(0)
            assert await hear(again) == wire.Relayed("sealed", b"missed")
            assert await hear(host) == wire.Back()


async def test_the_budget_ends_link_zero_and_not_the_meeting() -> None:
    """Frames beyond it are dropped, both are told, signals still pass."""
    limits = HubLimits(budget=100_000)
    async with hub_server(limits) as server, server.connect() as host, server.connect() as join:
        await meet(host, join)
        for _ in range(3):
            await host.send(bytes(25_000))
        assert await hear(join) == await hear(host) == wire.Budget(50_000, final=True)
        assert await join.recv() == await join.recv() == bytes(25_000)
        await say(host, wire.Relay("sealed", b"still here"))
        assert await hear(join) == wire.Relayed("sealed", b"still here")


@pytest.mark.parametrize("is_silent", [True, False])
async def test_closing_is_told_from_silence(monkeypatch: pytest.MonkeyPatch, *, is_silent: bool) -> None:
    """Who answers no ping may be asleep; whose connection the kernel closes is gone."""
    monkeypatch.setattr("crowline.server.http.PING_INTERVAL", 0.3 if is_silent else 20.0)
    async with hub_server() as server, server.connect() as host, server.connect(close_timeout=0.1) as join:
        await meet(host, join)
        if is_silent:
            join.transport.pause_reading()
        else:
            join.transport.abort()
        assert await hear(host) == wire.Left(final=False, silent=is_silent)
        join.transport.abort()


async def test_a_reader_that_stops_holds_back_its_sender_and_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory stays bounded: the sender waits, and after the write limit the reader is gone."""
    monkeypatch.setattr("crowline.server.hub.WRITE_LIMIT", 0.3)
    limits = HubLimits(budget=1 << 30)
    async with (
        hub_server(limits) as server,
        server.connect() as host,
        server.connect(max_queue=1, close_timeout=0.1) as join,
    ):
        await meet(host, join)
        frame = bytes(wire.MAX_MESSAGE)
        most = 0

        async def flood() -> None:
            nonlocal most
            for _ in range(1000):
                await host.send(frame)
                most = max([most, *(reader._bytes for reader in server.front._readers.values())])

        sender = asyncio.create_task(flood())
        while isinstance(heard := await hear(host), wire.Budget):
            pass
        assert heard == wire.Left(final=False, silent=True)
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
        assert most < 512 * 1024


async def test_a_silent_connection_is_closed() -> None:
    """A client says what it wants at once, or goes."""
    async with hub_server(HubLimits(first_message=0.1)) as server, server.connect() as socket:
        await hear(socket)
        with pytest.raises(ConnectionClosed):
            await hear(socket)
        assert socket.close_code == 1008


async def test_pages_answer() -> None:
    """The plain page says what this is, and the health page that it lives."""
    async with hub_server() as server:
        assert b"crowline receive" in await get(server.address, "/")
        assert b'{"ok":true}' in await get(server.address, "/healthz")
        assert b"404" in (await get(server.address, "/v2")).splitlines()[0]


@pytest.mark.parametrize("host", ["[::1", "a b", "<script>", "x" * 300, "é"])
async def test_a_strange_host_header_is_not_repeated(host: str) -> None:
    """The page names the host it was asked for only if it looks like one, and no header brings it down."""
    async with hub_server() as server:
        page = await get(server.address, "/", host)
        assert b"THIS-SERVER" in page or page.startswith(b"HTTP/1.1 400")
        assert host.encode() not in page


async def test_nothing_is_left_when_clients_break_off_at_any_step() -> None:
    """Connections that are torn down after every message leave no reader, no mailbox and no count behind."""
    async with hub_server(HubLimits(grace=0.05)) as server:
        for step in range(4):
            async with server.connect() as host, server.connect() as join:
                if step >= 1:
                    await hear(host)
                if step >= 2:
                    await say(host, wire.Allocate(wire.VERSION, b"host"))
                    allocated = await hear(host)
                    assert isinstance(allocated, wire.Allocated)
                if step >= 3:
                    await hear(join)
                    await say(join, wire.Claim(wire.VERSION, allocated.number, b"join"))
                    await hear(join)
                host.transport.abort()
                join.transport.abort()
        await until(lambda: not (len(server.hub) or server.front._readers or len(server.gate)))


async def test_a_closed_front_asks_nothing_more_of_the_loop() -> None:
    """What its last connections leave in the hub keeps no timer going."""
    async with hub_server() as server:
        host = await server.connect()
        await hear(host)
        await say(host, wire.Allocate(wire.VERSION, b"host"))
        await hear(host)
        host.transport.abort()
        async with server.connect() as other:
            await hear(other)
    await until(lambda: not server.front._readers)
    assert server.hub.next_timeout() is not None
    assert server.front._timer is None


async def test_a_source_with_too_many_connections_is_refused() -> None:
    """The cap over all counts loopback too, and a place that is left can be taken."""
    async with hub_server(gate=Gate(total=2)) as server:
        async with server.connect() as first, server.connect() as second:
            await hear(first)
            await hear(second)
            with pytest.raises((OSError, EOFError, InvalidMessage)):
                await server.connect()
        await until(lambda: not len(server.gate))
        async with server.connect() as fourth:
            assert isinstance(await hear(fourth), wire.Welcome)


def test_a_gate_counts_by_source() -> None:
    """One address cannot take all places; loopback, where proxies are, has only the common cap."""
    gate = Gate(per_source=2, total=5)
    assert [gate.enter("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert [gate.enter("127.0.0.1") for _ in range(4)] == [True, True, True, False]
    gate.leave("192.0.2.1")
    assert gate.enter("192.0.2.2")
    assert len(gate) == 5


@pytest.mark.parametrize(
    ("named", "canonical"),
    [("::ffff:192.0.2.1", "192.0.2.1"), ("fe80::1%eth0", "fe80::1"), ("2001:DB8::1", "2001:db8::1")],
)
def test_hosts_have_one_form(named: str, canonical: str) -> None:
    """What a socket calls a client is what rates and permissions go by."""
    assert canonical_host(named) == canonical


async def test_small_messages_are_not_held_back() -> None:
    """Nagle's algorithm is off on what the hub accepts: a proof after a claim must not wait for an ACK."""
    async with hub_server() as server, server.connect() as client:
        await hear(client)
        [reader] = server.front._readers.values()
        transport = reader._websocket.scope[ABORT].__self__
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_in_use_is_a_sentence() -> None:
    """Exit code 8, and what to do."""
    sock = listen(Address("127.0.0.1", 0))
    with sock, pytest.raises(LocalProblem) as problem:
        listen(bound_address(sock))
    assert "in use" in problem.value.message
    assert "--listen" in problem.value.hint


def test_an_address_of_another_machine_is_a_sentence() -> None:
    """A documentation address is nobody's."""
    with pytest.raises(LocalProblem) as problem:
        listen(Address("192.0.2.1", 0))
    assert "192.0.2.1" in problem.value.message


async def get(address: Address, path: str, host: str = "x") -> bytes:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    try:
        async with asyncio.timeout(30):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
