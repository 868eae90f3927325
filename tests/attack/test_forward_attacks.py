"""A forwarding whose other side does not keep to the rules (row C8: it asks for any host and any port)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

import crowline
from crowline.api.forwarding import forwarder as forwarders
from crowline.api.forwarding.events import ForwardEvent
from crowline.api.forwarding.forwarder import FORWARD, Forwarder, Permit, Request, binding, parse_dynamic
from crowline.api.forwarding.forwarder import parse_remote as remote
from crowline.api.forwarding.gate import Gate
from crowline.api.forwarding.talk import NotReached, read_answer, read_body
from crowline.api.peer import Stream
from crowline.api.service import agreed_stream
from crowline.base.errors import CrowlineError, MalformedMessage, ProtocolViolation
from crowline.forward import messages as m
from serving import serving
from waiting import until


class Victim:
    """One honest side, whose person says `agrees` to every question."""

    def __init__(self, *allow: str, agrees: bool = False, rules: tuple[str, ...] = ()) -> None:
        self.events: list[ForwardEvent] = []
        self.asked: list[Request] = []
        self._agrees = agrees
        self._rules = [remote(rule) for rule in rules]
        self.gate = Gate(map(Permit.parse, allow), [], self._consent)

    async def _consent(self, request: Request) -> bool:
        self.asked.append(request)
        return self._agrees

    async def run(self, peer: crowline.Peer) -> None:
        with binding(self._rules) as bound:
            await Forwarder(peer, bound, self.gate, self.events.append).run()


@asynccontextmanager
async def attacking(victim: Victim) -> AsyncIterator[tuple[crowline.Peer, Stream, asyncio.Future[None]]]:
    """The attacker's peer and control stream, and the victim's run."""
    async with (
        serving() as server,
        crowline.host(server.url) as room,
        crowline.join(room.code, server.url) as attacker,
    ):
        running = asyncio.ensure_future(victim.run(await room.peer()))
        try:
            yield attacker, await agreed_stream(attacker, FORWARD), running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def secret_service() -> AsyncIterator[tuple[int, Callable[[], int]]]:
    """A port of this machine that nobody shared, and how many came to it."""
    visits = 0

    async def visited(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal visits
        visits += 1
        writer.close()

    server = await asyncio.start_server(visited, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], lambda: visits
    finally:
        server.close()
        await server.wait_closed()


async def outcome(peer: crowline.Peer, head: m.Head) -> m.Reason | None:
    """What a stream with that head comes to; None where it is opened."""
    stream = await peer.open_stream()
    await stream.write(m.encode(head))
    try:
        await asyncio.wait_for(read_answer(stream), 30)
    except NotReached as error:
        return error.reason
    finally:
        stream.abort()
    return None


async def hear(stream: Stream) -> m.Control:
    return m.decode_control(await asyncio.wait_for(read_body(stream), 30))


async def test_c8_nothing_is_reached_without_a_rule_that_was_granted() -> None:
    """Neither by numbers of rules that are none, nor by those of the other protocol, nor by none's."""
    async with (
        secret_service() as (port, visits),
        attacking(Victim(f"localhost:{port}")) as (peer, control, _),
    ):
        await control.write(m.encode(m.Reach(1, "tcp", "localhost", port)))
        assert await hear(control) == m.Granted(1)
        for head in (
            m.Connect(2, "tcp", "localhost", port),
            m.Connect(1, "udp", "localhost", port, flow=1),
            m.Connect(1, "udp", "localhost", port),
            m.Arrived(0),
            m.Arrived(1),
            m.Arrived(1, 7),
        ):
            assert await outcome(peer, head) is m.Reason.NOT_ALLOWED
        assert visits() == 0
        assert await outcome(peer, m.Connect(1, "tcp")) is None
        assert visits() == 1


async def test_c8_a_rule_leads_where_it_was_agreed_whatever_a_stream_says() -> None:
    """Host and port of a stream count for SOCKS only."""
    async with secret_service() as (port, visits):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            agreed = closed.getsockname()[1]
            async with attacking(Victim(agrees=True)) as (peer, control, _):
                await control.write(m.encode(m.Reach(1, "tcp", "127.0.0.1", agreed)))
                assert await hear(control) == m.Granted(1)
                assert await outcome(peer, m.Connect(1, "tcp", "127.0.0.1", port)) is m.Reason.REFUSED
        assert visits() == 0


async def test_c8_the_internet_is_not_this_machine() -> None:
    """Who agrees to SOCKS agrees to neither loopback nor the network here, by whatever form of address."""
    async with secret_service() as (port, visits), attacking(Victim(agrees=True)) as (peer, control, _):
        await control.write(m.encode(m.Roam(1)))
        assert await hear(control) == m.Granted(1)
        for host in ("localhost", "127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"):
            assert await outcome(peer, m.Connect(1, "tcp", host, port)) is m.Reason.NOT_ALLOWED
        for host in ("127.1", "2130706433", "0x7f.1", "017700000001"):
            assert await outcome(peer, m.Connect(1, "tcp", host, port)) in (
                m.Reason.NOT_ALLOWED,
                m.Reason.UNKNOWN_NAME,
            )
        for host in ("10.0.0.1", "192.168.1.1", "169.254.169.254", "fe80::1", "fd00:ec2::254", "224.0.0.1"):
            assert await outcome(peer, m.Connect(1, "tcp", host, 80)) is m.Reason.NOT_ALLOWED
        assert visits() == 0


class Names:
    """A name service of the attacker's, and a person who agrees to hosts that are not in `refused`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *refused: str) -> None:
        self.found: list[str] = []
        self.asked: list[str] = []
        self._refused = refused
        self.gate = Gate([], [], self._consent)
        monkeypatch.setattr("crowline.api.forwarding.gate.look_up", self._look_up)

    async def _look_up(self, name: str) -> list[str]:
        return self.found

    async def _consent(self, request: Request) -> bool:
        assert isinstance(request, m.Reach)
        self.asked.append(request.host)
        return request.host not in self._refused

    async def reach(self) -> list[str]:
        """Where a connection by rule 1 leads."""
        return (await self.gate.lead(m.Connect(1, "tcp")))[1]


async def test_c8_a_name_that_leads_inside_is_agreed_to_by_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the other side calls its web site may be the router here: a person sees that and may say no."""
    names = Names(monkeypatch, "192.168.1.1")
    names.found = ["192.168.1.1"]
    assert not await names.gate.decide(m.Reach(1, "tcp", "www.example.org", 80))
    assert names.asked == ["www.example.org", "192.168.1.1"]
    names.found = ["192.168.1.2", "8.8.8.8", "192.168.1.1"]
    assert await names.gate.decide(m.Reach(1, "tcp", "www.example.org", 80))
    assert names.asked[2:] == ["www.example.org", "192.168.1.2"]
    assert await names.reach() == ["192.168.1.2", "8.8.8.8"]


async def test_c8_a_name_that_was_agreed_to_does_not_come_to_lead_inside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However often what it leads to is changed afterwards."""
    names = Names(monkeypatch)
    names.found = ["8.8.8.8"]
    assert await names.gate.decide(m.Reach(1, "tcp", "www.example.org", 80))
    assert names.asked == ["www.example.org"] and await names.reach() == ["8.8.8.8"]
    for inside in ("127.0.0.1", "192.168.1.1", "::1", "169.254.169.254"):
        names.found = [inside]
        with pytest.raises(NotReached) as refused:
            await names.reach()
        assert refused.value.reason is m.Reason.NOT_ALLOWED


async def test_c8_what_says_itself_that_it_is_inside_is_asked_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Addresses, and names without a dot."""
    names = Names(monkeypatch)
    names.found = ["192.168.1.2"]
    for host, expected in (("nas", "192.168.1.2"), ("10.0.0.1", "10.0.0.1")):
        assert await names.gate.decide(m.Reach(1, "tcp", host, 80))
        assert await names.reach() == [expected]
    assert names.asked == ["nas", "10.0.0.1"]


async def test_what_a_stream_was_given_up_for_is_not_dialled_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many at once are dialled and no more, however often streams are opened and given up."""
    begun = dialling = most = 0

    async def connect(hosts: list[str], port: int) -> None:
        nonlocal begun, dialling, most
        begun, dialling = begun + 1, dialling + 1
        most = max(most, dialling)
        try:
            await asyncio.Event().wait()
        finally:
            dialling -= 1

    monkeypatch.setattr("crowline.api.forwarding.connections.connect", connect)
    monkeypatch.setattr(forwarders, "MAX_SERVED", 3)
    async with attacking(Victim("127.0.0.1:9")) as (peer, control, _):
        await control.write(m.encode(m.Reach(1, "tcp", "127.0.0.1", 9)))
        assert await hear(control) == m.Granted(1)
        streams = [await peer.open_stream() for _ in range(7)]
        for stream in streams:
            await stream.write(m.encode(m.Connect(1, "tcp")))
        await until(lambda: begun == 3)
        for stream in streams:
            stream.abort()
        await until(lambda: dialling == 0)
    assert most == 3


async def test_c8_nobody_is_asked_again_and_again() -> None:
    """After three refusals the rest is refused without a question."""
    victim = Victim()
    async with attacking(victim) as (_, control, _running):
        for rule in range(20):
            await control.write(m.encode(m.Listen(rule, "tcp", "0.0.0.0", 1000 + rule, "x" * 200)))
        for rule in range(20):
            assert await hear(control) == m.Denied(rule, m.Reason.NOT_ALLOWED)
    assert len(victim.asked) == 3


@pytest.mark.parametrize("rules", [[0, 0], list(range(m.MAX_RULES + 1))])
async def test_more_rules_than_there_may_be_end_the_connection(rules: list[int]) -> None:
    """And a number that was used already."""
    async with attacking(Victim("localhost:9")) as (_, control, running):
        for rule in rules:
            await control.write(m.encode(m.Reach(rule, "tcp", "localhost", 9)))
        with pytest.raises(ProtocolViolation, match="more than"):
            await asyncio.wait_for(running, 30)


@pytest.mark.parametrize("message", [m.Granted(0), m.Denied(7, m.Reason.FAILED)], ids=["granted", "denied"])
async def test_answers_that_nobody_asked_for_end_the_connection(message: m.Control) -> None:
    """A rule that was never asked cannot be granted."""
    async with attacking(Victim()) as (_, control, running):
        await control.write(m.encode(message))
        with pytest.raises(ProtocolViolation, match="nobody asked"):
            await asyncio.wait_for(running, 30)


@pytest.mark.parametrize("data", [b"\x00\x02{}", b"\x00\x05hello", b"\xff\xff" + b"x" * 70_000, b"\x00\x00"])
async def test_garbage_on_the_agreed_stream_ends_the_connection(data: bytes) -> None:
    """With a sentence, whatever it claims to be long."""
    async with attacking(Victim()) as (_, control, running):
        await control.write(data)
        with pytest.raises(MalformedMessage):
            await asyncio.wait_for(running, 30)


async def test_garbage_on_another_stream_costs_that_stream_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """As does silence; the others go on."""
    monkeypatch.setattr(forwarders, "_HEAD_LIMIT", 0.2)
    async with (
        secret_service() as (port, visits),
        attacking(Victim(f"localhost:{port}")) as (peer, control, _),
    ):
        await control.write(m.encode(m.Reach(1, "tcp", "localhost", port)))
        assert await hear(control) == m.Granted(1)
        for data in (b"\x00\x02{}", b"\xff\xff", b"\x00"):
            stream = await peer.open_stream()
            await stream.write(data)
            with suppress(CrowlineError):
                while await asyncio.wait_for(stream.read(), 30):
                    pass
            stream.abort()
        assert await outcome(peer, m.Connect(1, "tcp")) is None
        assert visits() == 1


async def test_flows_are_numbered_by_whoever_opens_them() -> None:
    """A number of the victim's own, or one that is in use, is refused; stray datagrams are nobody's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("127.0.0.1", 0))
        port = service.getsockname()[1]
        async with attacking(Victim(f"localhost:{port}")) as (peer, control, running):
            await control.write(m.encode(m.Reach(1, "udp", "127.0.0.1", port)))
            assert await hear(control) == m.Granted(1)
            for data in (b"", b"\x00", b"\x00\x00\x00\x09", b"\xff" * 100):
                peer.send_datagram(data)
            own = await peer.open_stream()
            await own.write(m.encode(m.Connect(1, "udp", flow=1)))
            await read_answer(own)
            for flow in (0, 2, 1):
                assert await outcome(peer, m.Connect(1, "udp", flow=flow)) is m.Reason.TOO_MANY
            assert not running.done()


async def test_a_remote_rule_brings_connections_only_once_it_is_granted() -> None:
    """And a denied one never."""
    async with (
        secret_service() as (port, visits),
        attacking(Victim(rules=(f"0:127.0.0.1:{port}",) * 2)) as (
            peer,
            control,
            _,
        ),
    ):
        assert isinstance(await hear(control), m.Listen) and isinstance(await hear(control), m.Listen)
        assert await outcome(peer, m.Arrived(0)) is m.Reason.NOT_ALLOWED
        await control.write(m.encode(m.Denied(1, m.Reason.FAILED)) + m.encode(m.Granted(0, 5)))
        found = m.Reason.NOT_ALLOWED
        for _ in range(1000):
            if (found := await outcome(peer, m.Arrived(0))) is None:
                break
        assert found is None
        assert await outcome(peer, m.Arrived(1)) is m.Reason.NOT_ALLOWED
        assert visits() == 1


async def test_programs_that_speak_no_socks_are_hung_up_on() -> None:
    """A browser's page that posts to the port reaches nothing."""
    victim = Victim(agrees=True)
    async with (
        serving() as server,
        crowline.host(server.url) as room,
        crowline.join(room.code, server.url) as other,
    ):
        helping = asyncio.ensure_future(victim.run(await room.peer()))
        with binding([parse_dynamic("0")]) as bound:
            door = bound[0].door
            assert door is not None
            ready = asyncio.Event()
            forwarder = Forwarder(other, bound, Victim().gate, lambda _: ready.set())
            running = asyncio.ensure_future(forwarder.run())
            await asyncio.wait_for(ready.wait(), 30)
            for said in (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00"):
                reader, writer = await asyncio.open_connection(door.address.host, door.address.port)
                writer.write(said)
                with suppress(ConnectionResetError):
                    assert await asyncio.wait_for(reader.read(), 30) == b""
                writer.close()
            assert not running.done()
            for task in (running, helping):
                task.cancel()
            await asyncio.gather(running, helping, return_exceptions=True)
