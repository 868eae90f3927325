"""What a side says that hides its host addresses, and what the names in their place lead to."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest

import crowline
from crowline.api.hub_channel import HubChannel
from crowline.api.traversal import surroundings
from crowline.api.traversal.candidate_names import MAX_LOOKED_FOR, CandidateNames
from crowline.api.traversal.questions import Questions
from crowline.api.traversal.traversal import Traversal
from crowline.base.addresses import Address
from crowline.base.mdns_name import is_mdns_name, mdns_name
from crowline.ice.candidate import CandidateFactory
from crowline.net import mdns
from crowline.net.network import Network, NetworkChange
from crowline.rendezvous.signals import CandidateGone, CandidateSignal, Description, Signal
from crowline.server.server import Server
from serving import serving
from waiting import until


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """No question leaves this machine, and parallel runs do not hear each other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setattr(mdns, "PORT", probe.getsockname()[1])
    monkeypatch.setattr(mdns, "RESOLVE_LIMIT", 30.0)
    monkeypatch.setattr(surroundings, "local_addresses", lambda *, loopback: ["127.0.0.2"])


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


def is_direct(peer: crowline.Peer) -> bool:
    return peer.path is not None and peer.path.is_direct


async def test_neighbours_find_each_other_by_names(
    server: Server, told: list[Signal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both hide their addresses, no server says how it sees them, and they meet directly all the same."""

    async def ask_nobody(self: Questions) -> None: ...

    monkeypatch.setattr(Questions, "query_stun", ask_nobody)
    monkeypatch.setattr(surroundings, "local_addresses", lambda *, loopback: ["127.0.0.1"])
    async with (
        crowline.host(server.url, hide_addresses=True) as room,
        crowline.join(room.code, server.url, hide_addresses=True) as there,
    ):
        here = await room.peer()
        await until(lambda: is_direct(here) and is_direct(there))
    hosts = [each.host for each in told if isinstance(each, CandidateSignal) and each.kind == "host"]
    assert len(hosts) >= 2 and all(is_mdns_name(host) for host in hosts)
    candidates = [each for each in told if isinstance(each, CandidateSignal)]
    assert not [each for each in candidates if each.related_host or each.related_port]


async def test_an_address_that_goes_is_told_by_its_name(
    server: Server, told: list[Signal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the one that comes by another name: neither of them is told."""
    async with (
        crowline.host(server.url, hide_addresses=True) as room,
        crowline.join(room.code, server.url) as there,
    ):
        here = await room.peer()
        await until(lambda: is_direct(here) and is_direct(there))
        monkeypatch.setattr(surroundings, "local_addresses", lambda *, loopback: ["127.0.0.4"])
        monkeypatch.setattr(surroundings, "usable_hosts", lambda: {"127.0.0.1", "127.0.0.4"})
        del told[:]
        found = room._connection._traversal
        assert found is not None
        nothing = Network((), ())
        found.on_network_change(NetworkChange(nothing, nothing))
        await until(lambda: is_direct(there) and str(there.path).endswith(f"127.0.0.4:{port_of(found)}"))
        ours = told[: told.index(next(each for each in told if isinstance(each, Description)))]
    gone = [each.host for each in ours if isinstance(each, CandidateGone) and each.transport == "udp"]
    # No NAT is between here and the server, which sees the hidden address.
    assert len(gone) == 2 and is_mdns_name(gone[0]) and gone[1] == "127.0.0.2"
    names = {each.host for each in ours if isinstance(each, CandidateSignal) and each.kind == "host"}
    assert len(names) == 1 and all(is_mdns_name(name) for name in names) and gone[0] not in names


def port_of(found: Traversal) -> int:
    [port] = [local.port for local in found._gatherer._sockets if local.host == "127.0.0.4"]
    return port


async def test_relay_only_looks_for_no_name(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question on this network would be of no use, and tell that we are here."""
    looked_for: list[str] = []

    async def find(self: CandidateNames, name: str) -> None:
        looked_for.append(name)

    monkeypatch.setattr(CandidateNames, "find", find)
    async with (
        crowline.host(server.url, relay_only=True) as room,
        crowline.join(room.code, server.url, hide_addresses=True) as there,
    ):
        here = await room.peer()
        await until(lambda: here.path is not None and here.path.kind == "relay")
        await until(lambda: there.path is not None and there.path.kind == "relay")
    assert looked_for == []


async def test_what_a_name_leads_to_is_judged_like_any_address(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name for a port of a service gets no check, whoever answers for it; no relay hears of either."""
    found: list[str] = []

    async def find(self: CandidateNames, name: str) -> str:
        found.append(name)
        return "127.0.0.1"

    monkeypatch.setattr(CandidateNames, "find", find)
    async with crowline.host(server.url) as room:
        watched = room._connection._traversal
        assert watched is not None
        for port in (22, 50_000):
            watched.hear(CandidateSignal("1", 1, "udp", 100, mdns_name(bytes(16)), port, "host"))
        await until(lambda: len(found) == 2 and not watched._chores._tasks)
        assert [each.address for each in watched._agent._session.remotes] == [Address("127.0.0.1", 50_000)]
        assert watched._gatherer._peers == []


async def test_where_no_network_can_be_asked_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the address nor a name that leads nowhere; what servers see is told still."""
    factory = CandidateFactory()
    base, outside = Address("192.0.2.7", 5000), Address("198.51.100.7", 6000)
    hidden = CandidateNames([], hides=True)
    assert hidden.written(factory.host(base)) is None
    assert hidden.written(factory.server_reflexive(outside, base, outside)) == outside.host
    shown = CandidateNames([], hides=False)
    assert shown.written(factory.host(base)) == base.host
    hidden.close()


async def test_names_looked_for_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each makes this side ask its whole network; one that was found is remembered."""
    asked: list[str] = []

    class Names:
        async def resolve(self, name: str) -> str | None:
            asked.append(name)
            return "192.0.2.9" if name == names[0] else None

    names = [mdns_name(bytes([number] * 16)) for number in range(MAX_LOOKED_FOR + 5)]
    looking = CandidateNames([], hides=False)
    monkeypatch.setattr(looking, "_names", Names())
    for name in names:
        await looking.find(name)
    assert asked == names[:MAX_LOOKED_FOR]
    assert await looking.find(names[0]) == looking.read(names[0]) == "192.0.2.9"
    assert looking.read(names[1]) is None
    assert looking.read("192.0.2.5") == "192.0.2.5"
