"""Ports forwarded between two peers in one process, with real sockets on loopback."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest

import crowline
from crowline.api.forwarding.events import (
    ConnectionClosed,
    ConnectionOpened,
    ForwardEvent,
    RuleDenied,
    RuleReady,
    Shared,
)
from crowline.api.forwarding.forwarder import (
    Forwarder,
    Permit,
    Request,
    Rule,
    binding,
    parse_dynamic,
    parse_local,
    parse_remote,
)
from crowline.api.forwarding.gate import Gate
from crowline.base.addresses import Address
from crowline.base.errors import CrowlineError, LocalProblem, Refused
from crowline.forward.messages import Reason
from two_peers import two_peers
from waiting import until


@dataclass
class Side:
    """What one side forwards, and what happened to it."""

    rules: Sequence[Rule] = ()
    allow: Sequence[str] = ()
    listens: Sequence[str] = ()
    agrees: bool = False
    events: list[ForwardEvent] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)

    async def consent(self, request: Request) -> bool:
        self.asked.append(request)
        return self.agrees

    async def run(self, peer: crowline.Peer) -> None:
        gate = Gate(map(Permit.parse, self.allow), map(Permit.parse, self.listens), self.consent)
        with ExitStack() as stack:
            bound = stack.enter_context(binding(self.rules))
            await Forwarder(peer, bound, gate, self.events.append).run()

    def all(self, kind: type) -> list[ForwardEvent]:
        return [event for event in self.events if isinstance(event, kind)]

    async def ready(self, count: int = 1) -> list[Address | int]:
        """Where the first rules are, once so many are."""
        await until(lambda: len(self.all(RuleReady)) >= count)
        return [event.where for event in self.events if isinstance(event, RuleReady)]


@asynccontextmanager
async def forwarding(here: Side, there: Side) -> AsyncIterator[None]:
    async with two_peers() as (one, other):
        tasks = [asyncio.ensure_future(here.run(one)), asyncio.ensure_future(there.run(other))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            for end in ends:
                assert isinstance(end, asyncio.CancelledError), end


@asynccontextmanager
async def echo_server() -> AsyncIterator[int]:
    """Sends back what it gets, says goodbye at the end, and ends then."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
            writer.write(b"bye")
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


class Echo(asyncio.DatagramProtocol):
    """Sends each datagram back, behind the port that it came from."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(addr[1].to_bytes(2, "big") + data, addr)


@asynccontextmanager
async def udp_echo() -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, ("127.0.0.1", 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


async def exchange(port: int, data: bytes) -> bytes:
    """Send `data` and an end; everything that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        sending = asyncio.ensure_future(_send(writer, data))
        answer = await asyncio.wait_for(reader.read(-1), 30)
        await sending
        return answer
    finally:
        writer.close()


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()
    writer.write_eof()


async def ask_udp(sock: socket.socket, port: int, data: bytes, header: bytes = b"") -> bytes:
    """One datagram and its answer, asked again while there is none: datagrams may be lost."""
    loop = asyncio.get_running_loop()
    for _ in range(30):
        await loop.sock_sendto(sock, header + data, ("127.0.0.1", port))
        try:
            while True:
                answer, _ = await asyncio.wait_for(loop.sock_recvfrom(sock, 65535), 1)
                if data in answer:
                    return answer
        except TimeoutError:
            continue
    raise AssertionError("no answer")


def udp_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    return sock


def port_of(where: Address | int) -> int:
    return where if isinstance(where, int) else where.port


async def test_a_local_port_leads_to_the_other_sides_network() -> None:
    """Many connections at once, every byte of both directions, half-close included."""
    async with echo_server() as port:
        here, there = Side([parse_local(f"0:localhost:{port}")]), Side(allow=[f"127.0.0.1:{port}"])
        async with forwarding(here, there):
            (where,) = await here.ready()
            texts = [os.urandom(300_000 + number) for number in range(12)]
            answers = await asyncio.gather(*(exchange(port_of(where), text) for text in texts))
            assert answers == [text + b"bye" for text in texts]
            await until(lambda: len(here.all(ConnectionClosed)) == len(there.all(ConnectionClosed)) == 12)
    assert {event.reason for event in here.events if isinstance(event, ConnectionClosed)} == {""}
    assert sum(event.sent for event in here.all(ConnectionClosed)) == sum(map(len, texts))  # type: ignore[attr-defined]
    assert not there.asked and there.all(Shared)


async def test_a_remote_port_leads_to_this_sides_network() -> None:
    """The other side is asked, listens, and says at which port."""
    async with echo_server() as port:
        here, there = Side([parse_remote(f"0:127.0.0.1:{port}")]), Side(agrees=True)
        async with forwarding(here, there):
            (where,) = await here.ready()
            assert await exchange(port_of(where), b"hello") == b"hellobye"
    assert len(there.asked) == 1
    assert there.all(ConnectionOpened) and here.all(ConnectionOpened)


async def test_both_sides_forward_at_once() -> None:
    """Rules of either side, by the same connection, in both protocols."""
    async with echo_server() as port, udp_echo() as udp:
        rules = [parse_local(f"0:127.0.0.1:{port}"), parse_local(f"0:127.0.0.1:{udp}/udp")]
        here, there = (
            Side(rules, agrees=True),
            Side([*rules, parse_remote(f"0:127.0.0.1:{port}")], agrees=True),
        )
        async with forwarding(here, there):
            places = [*await here.ready(2), *await there.ready(3)]
            for where in (places[0], places[2], places[4]):
                assert await exchange(port_of(where), b"tcp") == b"tcpbye"
            with udp_socket() as sock:
                for where in (places[1], places[3]):
                    assert (await ask_udp(sock, port_of(where), b"udp"))[2:] == b"udp"


async def test_a_refused_connection_is_a_reset_with_a_reason() -> None:
    """The program here sees what it would see over there; the person here is told why."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        here, there = Side([parse_local(f"0:127.0.0.1:{port}")]), Side(allow=[f"127.0.0.1:{port}"])
        async with forwarding(here, there):
            (where,) = await here.ready()
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(where))
            with pytest.raises(ConnectionResetError):
                writer.write(b"x")
                assert await asyncio.wait_for(reader.read(), 30) == b""
                raise ConnectionResetError
            writer.close()
            await until(lambda: bool(here.all(ConnectionClosed)))
    assert here.all(ConnectionClosed)[0].reason == "Nothing listens there"  # type: ignore[attr-defined]


async def test_what_nobody_agrees_to_is_refused() -> None:
    """The other side says no to everything: the command ends with that."""
    here, there = Side([parse_local("0:127.0.0.1:9")]), Side()
    async with two_peers() as (one, other):
        serving_there = asyncio.ensure_future(there.run(other))
        with pytest.raises(Refused, match="not allowed"):
            await here.run(one)
        serving_there.cancel()
        await asyncio.gather(serving_there, return_exceptions=True)
    assert here.all(RuleDenied) == [RuleDenied(str(here.rules[0]), Reason.NOT_ALLOWED)]


async def test_a_port_that_is_taken_is_known_before_anybody_is_met() -> None:
    """And nothing else stays open."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        rules = [parse_dynamic("0"), parse_local(f"{taken.getsockname()[1]}:host.example:80")]
        with pytest.raises(LocalProblem, match="is taken"), binding(rules):
            raise AssertionError


async def test_who_takes_nothing_stops_who_gives() -> None:
    """Back-pressure reaches through both sockets and the session."""
    received = 0
    reading = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        await reading.wait()
        while data := await reader.read(1 << 16):
            received += len(data)
        writer.close()

    server = await asyncio.start_server(slow, "127.0.0.1", 0, limit=1 << 16)
    port = server.sockets[0].getsockname()[1]
    here, there = Side([parse_local(f"0:127.0.0.1:{port}")]), Side(agrees=True)
    async with forwarding(here, there):
        (where,) = await here.ready()
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", port_of(where)))
            total, piece = 0, bytes(1 << 20)

            async def pour() -> None:
                nonlocal total
                while total < 200 << 20:
                    await loop.sock_sendall(sock, piece)
                    total += len(piece)

            pouring = asyncio.ensure_future(pour())
            seen = -1
            while seen != total or not total:
                seen = total
                await asyncio.sleep(0.5)
            assert total < 150 << 20
            pouring.cancel()
            await asyncio.gather(pouring, return_exceptions=True)
            sock.shutdown(socket.SHUT_WR)
            reading.set()
            assert await asyncio.wait_for(loop.sock_recv(sock, 1), 30) == b""
        assert total <= received <= total + (1 << 20)
    server.close()
    await server.wait_closed()


async def test_a_reset_of_one_end_reaches_the_other_as_one() -> None:
    """A program that dies is not taken for one that has said everything."""
    gone = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(100):
                pass
        except ConnectionResetError:
            gone.set()
        writer.close()

    server = await asyncio.start_server(wait, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    here, there = Side([parse_local(f"0:127.0.0.1:{port}")]), Side(agrees=True)
    async with forwarding(here, there):
        (where,) = await here.ready()
        sock = socket.create_connection(("127.0.0.1", port_of(where)))
        sock.sendall(b"x")
        await until(lambda: bool(there.all(ConnectionOpened)))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        await asyncio.wait_for(gone.wait(), 30)
    server.close()
    await server.wait_closed()


async def test_datagrams_of_several_programs_stay_apart() -> None:
    """Each has a socket of its own on the other side, small and large datagrams alike."""
    async with udp_echo() as port:
        here, there = Side([parse_local(f"0:127.0.0.1:{port}/udp")]), Side(allow=[f"localhost:{port}"])
        async with forwarding(here, there):
            (where,) = await here.ready()
            with ExitStack() as stack:
                socks = [stack.enter_context(udp_socket()) for _ in range(5)]
                ports = set()
                for size in (1, 1200, 9000):
                    for number, sock in enumerate(socks):
                        data = bytes([number]) * size
                        answer = await ask_udp(sock, port_of(where), data)
                        assert answer[2:] == data
                        ports.add(answer[:2])
                assert len(ports) == 5


async def socks_request(port: int, command: int, address: bytes) -> tuple[int, bytes, socket.socket]:
    """Greeting and request; the reply's code, its address, and the socket."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(sock, b"\x05\x01\x00")
    assert await asyncio.wait_for(loop.sock_recv(sock, 2), 30) == b"\x05\x00"
    await loop.sock_sendall(sock, bytes([5, command, 0]) + address)
    answer = await asyncio.wait_for(loop.sock_recv(sock, 10), 30)
    return answer[1], answer[4:], sock


def name(host: str, port: int) -> bytes:
    return bytes([3, len(host)]) + host.encode() + port.to_bytes(2, "big")


async def test_socks_reaches_what_the_other_side_allows_and_says_why_not() -> None:
    """By name and by address; what is not allowed, refused or unknown has a code of its own."""
    async with echo_server() as port:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            nobody = closed.getsockname()[1]
            here = Side([parse_dynamic("0")])
            there = Side(allow=[f"localhost:{port}", f"127.0.0.1:{nobody}", "*:443"])
            async with forwarding(here, there):
                (where,) = await here.ready()
                loop = asyncio.get_running_loop()
                ipv4 = b"\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big")
                for address in (name("localhost", port), ipv4):
                    code, _, sock = await socks_request(port_of(where), 1, address)
                    with sock:
                        assert code == 0
                        await loop.sock_sendall(sock, b"by SOCKS")
                        assert await asyncio.wait_for(loop.sock_recv(sock, 100), 30) == b"by SOCKS"
                wrong = [
                    (name("localhost", nobody), 5),
                    (b"\x01\x7f\x00\x00\x01\x01\xbb", 2),
                    (name("localhost", 443), 2),
                    (b"\x01\x0a\x00\x00\x01\x01\xbb", 2),
                    (b"\x01\xa9\xfe\xa9\xfe\x01\xbb", 2),
                    (name("no-such-name.invalid", 443), 4),
                ]
                for address, expected in wrong:
                    code, _, sock = await socks_request(port_of(where), 1, address)
                    sock.close()
                    assert code == expected, address


async def test_socks_takes_datagrams_to_where_they_say() -> None:
    """UDP ASSOCIATE: to allowed hosts only, answers from whom they come, until the program leaves."""
    async with udp_echo() as port, udp_echo() as other:
        here, there = Side([parse_dynamic("0")]), Side(allow=[f"localhost:{port}"])
        async with forwarding(here, there):
            (where,) = await here.ready()
            code, bound, sock = await socks_request(port_of(where), 3, b"\x01\x00\x00\x00\x00\x00\x00")
            relay = int.from_bytes(bound[4:6], "big")
            with sock, udp_socket() as program:
                assert code == 0 and bound[:4] == b"\x7f\x00\x00\x01"
                for address in (name("localhost", port), b"\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big")):
                    answer = await ask_udp(program, relay, b"question", b"\x00\x00\x00" + address)
                    assert answer.startswith(b"\x00\x00\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big"))
                loop = asyncio.get_running_loop()
                forbidden = b"\x00\x00\x00\x01\x7f\x00\x00\x01" + other.to_bytes(2, "big") + b"no"
                await loop.sock_sendto(program, forbidden, ("127.0.0.1", relay))
                header = b"\x00\x00\x00" + name("localhost", port)
                answer = await ask_udp(program, relay, b"still here", header)
                assert b"no" not in answer
            await until(lambda: len(here.all(ConnectionClosed)) == 1)


async def test_the_end_of_the_other_side_ends_this_one_without_an_error() -> None:
    """Connections end, ports are free again."""
    async with echo_server() as port, two_peers() as (one, other):
        here, there = Side([parse_local(f"0:127.0.0.1:{port}")]), Side(agrees=True)
        running = asyncio.ensure_future(here.run(one))
        answering = asyncio.ensure_future(there.run(other))
        (where,) = await here.ready()
        assert await exchange(port_of(where), b"x") == b"xbye"
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        await other.close()
        await asyncio.wait_for(running, 30)
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port_of(where))


async def test_a_broken_connection_is_raised() -> None:
    """With what the other side said."""
    async with two_peers() as (one, other):
        here, there = Side([parse_dynamic("0")]), Side(agrees=True)
        running = asyncio.ensure_future(here.run(one))
        answering = asyncio.ensure_future(there.run(other))
        await here.ready()
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        await other.close(10, "it was stopped")
        with pytest.raises(CrowlineError, match="it was stopped"):
            await running


async def test_programs_forward_by_one_call_and_refuse_what_they_did_not_allow() -> None:
    """The library's own surface: texts in, events out."""
    events: list[ForwardEvent] = []
    async with echo_server() as port, two_peers() as (one, other):
        using = asyncio.ensure_future(
            crowline.forward_ports(
                one,
                local=[f"0:localhost:{port}", "0:localhost:9"],
                remote=[f"0:localhost:{port}"],
                tell=events.append,
            )
        )
        sharing = asyncio.ensure_future(crowline.forward_ports(other, allow=[f"localhost:{port}"]))
        try:
            await until(lambda: len(events) == 3)
            ready = [event for event in events if isinstance(event, RuleReady)]
            assert len(ready) == 1 and len([e for e in events if isinstance(e, RuleDenied)]) == 2
            assert await exchange(port_of(ready[0].where), b"x") == b"xbye"
        finally:
            for task in (using, sharing):
                task.cancel()
            await asyncio.gather(using, sharing, return_exceptions=True)


async def test_a_flow_of_socks_remembers_so_many_hosts_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest; an older one is looked up again."""
    monkeypatch.setattr("crowline.api.forwarding.flows._MOST_HOSTS", 2)
    async with udp_echo() as port:
        here, there = Side([parse_dynamic("0")]), Side(allow=["127.0.0.0/8:*"])
        async with forwarding(here, there):
            (where,) = await here.ready()
            code, bound, sock = await socks_request(port_of(where), 3, b"\x01\x00\x00\x00\x00\x00\x00")
            relay = int.from_bytes(bound[4:6], "big")
            with sock, udp_socket() as program:
                assert code == 0
                for number in (9, 10, 11):
                    stray = b"\x00\x00\x00\x01\x7f\x00\x00" + bytes([number]) + b"\x00\x09stray"
                    await asyncio.get_running_loop().sock_sendto(program, stray, ("127.0.0.1", relay))
                header = b"\x00\x00\x00" + name("localhost", port)
                for text in (b"one", b"two"):
                    assert (await ask_udp(program, relay, text, header)).endswith(text)


async def test_the_other_side_names_addresses_to_listen_at_and_no_names() -> None:
    """A name would have to be looked up; what cannot be had is said."""
    rules = [
        parse_remote(f"{host}:0:localhost:9") for host in ("no-such-name.invalid", "192.0.2.77", "localhost")
    ]
    here, there = Side(rules), Side(agrees=True)
    async with forwarding(here, there):
        await until(lambda: len(here.events) == 3)
    denied = [event.reason for event in here.events if isinstance(event, RuleDenied)]
    assert denied == [Reason.PORT_TAKEN] * 2 and len(here.all(RuleReady)) == 1
