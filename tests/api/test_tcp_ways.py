"""Meetings that find direct ways by TCP: links of TLS where UDP leads nowhere, and who offers what."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

import crowline
from crowline.api.allowed import Allowed
from crowline.api.hub_channel import HubChannel
from crowline.api.peer import Peer
from crowline.api.tls_links import TlsPairLink
from crowline.api.traversal import surroundings
from crowline.api.traversal.tcp_ways import TcpWays
from crowline.base.errors import LocalProblem
from crowline.ice.candidate import Candidate
from crowline.link.identity import Identity
from crowline.net import own_certificate
from crowline.punch.syn_budget import SynBudget
from crowline.rendezvous.signals import CandidateSignal, Signal
from crowline.server.server import Server
from serving import serving
from waiting import until


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as running:
        yield running


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Signal]:
    """What both sides tell each other."""
    seen: list[Signal] = []
    signal = HubChannel.signal

    def note(self: HubChannel, each: Signal) -> None:
        seen.append(each)
        signal(self, each)

    monkeypatch.setattr(HubChannel, "signal", note)
    return seen


@pytest.fixture
def without_udp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither side has anything but TCP for the other."""
    monkeypatch.setattr(Allowed, "candidate", lambda self, candidate: candidate.transport == "tcp")


def by(peer: Peer, transport: str) -> bool:
    return peer.path is not None and peer.path.is_direct and peer.path.transport == transport


async def carry(here: Peer, there: Peer, data: bytes) -> None:
    """Send `data` from one to the other and compare."""
    stream = await here.open_stream()

    async def send() -> None:
        await stream.write(data)
        await stream.close()

    sending = asyncio.create_task(send())
    incoming = await anext(aiter(there.streams()))
    digest = hashlib.sha256()
    while part := await incoming.read():
        digest.update(part)
    await sending
    assert digest.digest() == hashlib.sha256(data).digest()


@pytest.mark.usefixtures("without_udp")
async def test_without_udp_the_streams_move_to_a_direct_tls_link(server: Server) -> None:
    """From the server to the link, in mid-stream; both sides call the path direct, by TCP."""
    async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
        here = await room.peer()
        carrying = asyncio.create_task(carry(here, there, os.urandom(3_000_000)))
        await until(lambda: by(here, "tcp") and by(there, "tcp"))
        await carrying
        await carry(there, here, os.urandom(12_000_000))
        assert {path.kind for path in here.paths()} >= {"lan", "hub"}


@pytest.mark.usefixtures("without_udp")
async def test_a_direct_tls_link_says_goodbye(server: Server) -> None:
    """Who leaves the block is gone for the other side too, by the link alone."""
    async with crowline.host(server.url) as room:
        async with crowline.join(room.code, server.url) as there:
            here = await room.peer()
            await until(lambda: by(here, "tcp") and by(there, "tcp"))
        await until(room._connection.ended.done)
        assert room._connection.ended.result() is None


@pytest.fixture
def with_one_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pair of addresses is all that there is."""
    monkeypatch.setattr(surroundings, "local_addresses", lambda *, loopback: ["127.0.0.1"])


def tls_links(room: crowline.Room) -> list[TlsPairLink]:
    pairs = room._connection.carriers.pairs
    assert pairs is not None and pairs._tls is not None
    return pairs._tls.links()


def shut(link: TlsPairLink) -> None:
    """End the connection below it as a router may: TLS says nothing."""
    sock = link.stream.stream._socket
    assert sock is not None
    sock.shutdown(socket.SHUT_RDWR)


@pytest.mark.usefixtures("without_udp", "with_one_address")
@pytest.mark.parametrize(
    "kill", [lambda link: link.stream.drop("it was cut"), shut], ids=["a reset", "a premature end"]
)
async def test_a_tls_link_that_was_cut_is_followed_by_another(
    server: Server, kill: Callable[[TlsPairLink], None]
) -> None:
    """In mid-stream the streams go back to the server; the only pair is dialled and nominated anew."""
    kinds: list[str] = []
    async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
        here = await room.peer()
        await until(lambda: by(here, "tcp") and by(there, "tcp"))
        here.on_path(lambda now, _: kinds.append(now.kind if now is not None else "none"))
        (first,) = tls_links(room)
        carrying = asyncio.create_task(carry(here, there, os.urandom(3_000_000)))
        kill(first)
        await until(lambda: "hub" in kinds)
        await until(lambda: by(here, "tcp") and by(there, "tcp") and first not in tls_links(room))
        await carrying
        await carry(there, here, os.urandom(1_000_000))


@dataclass(eq=False)
class Standing:
    """A link that is up, as far as the choice among links asks."""

    number: int
    priority: int
    category: str = "direct"
    is_up: bool = True

    @property
    def pair(self) -> Standing:
        return self


async def test_links_of_better_pairs_are_not_let_go(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shorter one was chosen: the other's pair would be nominated again and again, for nothing."""
    async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
        await room.peer()
        await until(lambda: there._connection.carriers.pairs is not None)
        pairs = there._connection.carriers.pairs
        assert pairs is not None and pairs._tls is not None
        lesser, chosen, better = (Standing(90 + priority, priority) for priority in (1, 2, 3))
        with monkeypatch.context() as patch:
            patch.setattr(pairs._tls, "links", lambda: [lesser, chosen, better])
            pairs.chosen(chosen)  # type: ignore[arg-type]
            assert list(pairs._lingering) == [lesser]
        pairs.chosen(None)


@pytest.mark.usefixtures("without_udp", "with_one_address")
async def test_a_restart_leaves_a_tls_link_alone(server: Server) -> None:
    """ICE has handed its connection over; when that ends, the pair of the new session takes its place."""
    async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
        here = await room.peer()
        await until(lambda: by(here, "tcp") and by(there, "tcp"))
        (first,) = tls_links(room)
        found, other = room._connection._traversal, there._connection._traversal
        assert found is not None and other is not None
        ufrags = found._agent.ufrag, other._agent.ufrag
        assert found._restarts.begin()
        await until(lambda: ufrags[0] != found._agent.ufrag and ufrags[1] != other._agent.ufrag)
        await carry(here, there, os.urandom(1_000_000))
        assert tls_links(room) == [first] and by(here, "tcp")
        first.stream.drop("it was cut")
        await until(lambda: by(here, "tcp") and by(there, "tcp") and tls_links(room) not in ([], [first]))
        await carry(there, here, os.urandom(1_000_000))


async def test_udp_goes_before_tcp(server: Server) -> None:
    """Where both lead across, the link is one of QUIC."""
    async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
        here = await room.peer()
        await until(lambda: by(here, "udp") and by(there, "udp"))
        await carry(here, there, os.urandom(100_000))
        assert by(here, "udp") and by(there, "udp")


def ways_of(room: crowline.Room | Peer) -> TcpWays:
    found = room._connection._traversal
    assert found is not None
    return found._tcp


def asks(ways: TcpWays) -> bool:
    """Whether it keeps a server connected."""
    return any(dialler._port._mappings for dialler in ways._pairs._diallers.values())


async def test_where_udp_leads_across_tcp_leaves_the_servers_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while; a restart, which may end that way, takes them up again, and counts SYNs anew."""
    budgets: list[str] = []
    for name in ("renew", "forget_proven"):
        monkeypatch.setattr(SynBudget, name, lambda self, name=name: budgets.append(name))
    async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
        here = await room.peer()
        await until(lambda: by(here, "udp") and by(there, "udp"))
        sides = ways_of(room), ways_of(there)
        await until(lambda: all(asks(side) for side in sides))
        for side in sides:
            assert side._rest_timer is not None
            side._rest_timer.cancel()
            side._rest()
            assert not asks(side)
        found = room._connection._traversal
        assert found is not None and found._restarts.begin()
        await until(lambda: all(asks(side) for side in sides))
        assert sorted(budgets) == ["forget_proven", "renew"]


async def test_a_host_where_the_other_side_was_seen_may_be_dialled_more(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the hub, or by a check over UDP; the first SYNs to anybody else are few."""
    proven: list[str] = []
    monkeypatch.setattr(SynBudget, "prove_host", lambda self, host: proven.append(host))
    async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
        here = await room.peer()
        await until(lambda: by(here, "udp") and by(there, "udp") and "127.0.0.1" in proven)
        found = room._connection._traversal
        assert found is not None
        found.vouched("198.51.100.7")
        assert proven[-1] == "198.51.100.7"


@pytest.mark.usefixtures("without_udp")
async def test_where_tcp_alone_leads_across_its_ports_stay_mapped(server: Server) -> None:
    """A connection that is cut can be followed by another, from the same address."""
    async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
        here = await room.peer()
        await until(lambda: by(here, "tcp") and by(there, "tcp") and asks(ways_of(room)))
        ways_of(room)._rest()
        assert asks(ways_of(room))


async def test_a_side_that_makes_no_tls_links_is_told_no_tcp_candidates(
    server: Server, told: list[Signal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It showed no certificate; the meeting goes its way without."""
    monkeypatch.setattr(Identity, "certificate_der", b"")
    async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
        here = await room.peer()
        await until(lambda: by(here, "udp") and by(there, "udp"))
    candidates = [each for each in told if isinstance(each, CandidateSignal)]
    assert candidates and not [each for each in candidates if each.transport == "tcp"]


async def test_relay_only_tells_no_tcp_candidates(server: Server, told: list[Signal]) -> None:
    """They would show the other side this machine's addresses."""
    async with (
        crowline.host(server.url, relay_only=True) as room,
        crowline.join(room.code, server.url) as there,
    ):
        here = await room.peer()
        await until(lambda: here.path is not None and here.path.kind == "relay")
        await carry(here, there, b"by the relay")
        found = room._connection._traversal
        assert found is not None
        own: list[Candidate] = found._announcer.offered()
        assert own and not [each for each in own if each.transport == "tcp"]


@pytest.mark.usefixtures("without_udp")
async def test_a_machine_that_cannot_keep_its_key_makes_do_without_tls(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, say: the connection is given up, and the meeting goes on through the server."""
    tries: list[None] = []

    def load(*_: object) -> None:
        tries.append(None)
        raise LocalProblem("A temporary file cannot be used.")

    monkeypatch.setattr(own_certificate, "load", load)
    async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
        here = await room.peer()
        await until(lambda: bool(tries))
        await carry(here, there, os.urandom(100_000))
        assert here.path is not None and here.path.kind == "hub"
