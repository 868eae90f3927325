"""When the routers are asked for the ports of a meeting, and which candidates come of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import crowline
from crowline.api.port_mapping import mapper as port_mapper
from crowline.api.port_mapping import meeting_ports as mapped_ports
from crowline.api.port_mapping.meeting_ports import MappedPorts
from crowline.base.addresses import Address, AddressClass, classify
from crowline.base.errors import UsageError
from crowline.base.transport import Transport
from crowline.ice.candidate import Candidate, CandidateFactory, CandidateType, TcpType
from crowline.net.websocket import HubSocket
from serving import serving
from waiting import until

BASE = Address("192.168.1.10", 4000)
BASE_IPV6 = Address("2a01:100::10", 4000)
OUTSIDE = Address("44.1.1.7", 4000)
PATIENCE, STEP = 30.0, 0.005


class Port:
    """A port as the mapper has it."""

    def __init__(self, local: Address, transport: Transport, tell: Callable[[Any], None]) -> None:
        self.local, self.transport, self._tell = local, transport, tell
        self.outside: Address | None = None
        self.port = 0
        self.gateway = "192.168.1.1"
        self.is_refused = False
        self.is_permanent = False

    @property
    def is_open(self) -> bool:
        return self.port != 0

    @property
    def is_settled(self) -> bool:
        return self.is_open or self.is_refused

    @property
    def is_public(self) -> bool:
        return self.outside is not None and classify(self.outside.host) is AddressClass.OPEN

    def opens(self, outside: Address | None, port: int = 4000) -> None:
        self.outside, self.port = outside, port
        self._tell(self)

    def refuse(self) -> None:
        self.is_refused = True
        self._tell(self)


class Mapper:
    """What stands in for `PortMapper`; the last one made is `made[-1]`."""

    made: list[Mapper]
    is_slow = False
    patience = 0.0

    def __init__(self, *, follows: bool) -> None:
        assert not follows
        self.ports: dict[tuple[Address, Transport], Port] = {}
        self.said: list[str] = []
        Mapper.made.append(self)

    def open(self, port: int, transport: Transport, *, host: str, on_change: Callable[[Any], None]) -> Port:
        if port == 9999:
            raise UsageError("too many")
        made = Port(Address(host, port), transport, on_change)
        return self.ports.setdefault((made.local, transport), made)

    def close(self, port: Port) -> None:
        del self.ports[port.local, port.transport]

    def follow(self) -> None:
        self.said.append("follow")

    async def aclose(self) -> None:
        self.said.append("aclose")
        if self.is_slow:
            await asyncio.Event().wait()
        if self.patience:
            await asyncio.sleep(self.patience)
            self.said.append("closed")

    def abandon(self) -> None:
        self.said.append("abandon")


class Pair:
    """A valid pair, as far as its category goes."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


class Meeting:
    """An agent, a gatherer, and what they hear."""

    def __init__(self, *, waits: bool, is_wanted: bool = True) -> None:
        self.factory = CandidateFactory()
        self.expected = 0
        self.pairs: list[Pair] = []
        self.offered: list[Candidate] = []
        self.mapped = MappedPorts(
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            on_candidate=self.on_candidate,
            is_wanted=is_wanted,
            waits=waits,
        )

    def valid_pairs(self) -> list[Pair]:
        return self.pairs

    def expect_more(self) -> None:
        self.expected += 1

    def expected_came(self) -> None:
        self.expected -= 1

    def on_candidate(self, candidate: Candidate) -> None:
        self.offered.append(candidate)
        self.mapped.heard_of(candidate)

    def told(self) -> list[Address]:
        """The addresses that were offered beside the sockets' own."""
        return [each.address for each in self.offered]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    Mapper.made = []
    monkeypatch.setattr(port_mapper, "PortMapper", Mapper)
    monkeypatch.setattr(mapped_ports, "category_of", lambda pair: pair.kind)
    for name in ("HOST_DELAY", "JOIN_DELAY", "LOOK_AGAIN"):
        monkeypatch.setattr(mapped_ports, name, 0.01)


async def begun(meeting: Meeting, *candidates: Candidate) -> Mapper:
    """A side that waits, with these sockets, whose router is asked."""
    for candidate in candidates or (meeting.factory.host(BASE),):
        meeting.mapped.heard_of(candidate)
    meeting.mapped.begin()
    await until(lambda: bool(Mapper.made))
    return Mapper.made[-1]


async def test_the_side_that_waits_has_its_ports_opened() -> None:
    """Before anybody comes; what the router opened is a reflexive candidate of the socket."""
    meeting = Meeting(waits=True)
    mapper = await begun(meeting)
    mapper.ports[BASE, Transport.UDP].opens(OUTSIDE)
    (candidate,) = meeting.offered
    assert (candidate.type, candidate.address) == (CandidateType.SERVER_REFLEXIVE, OUTSIDE)
    assert candidate.sending_base == BASE
    meeting.mapped.meet()
    assert meeting.expected == 0
    meeting.mapped.close()
    assert mapper.said == ["abandon"]


async def test_more_is_to_come_until_the_router_has_answered() -> None:
    """The agent must not give up before that."""
    meeting = Meeting(waits=True)
    mapper = await begun(meeting, meeting.factory.host(BASE), meeting.factory.host(BASE, TcpType.PASSIVE))
    meeting.mapped.meet()
    assert meeting.expected == 1
    mapper.ports[BASE, Transport.UDP].opens(OUTSIDE)
    assert meeting.expected == 1
    mapper.ports[BASE, Transport.TCP].refuse()
    assert meeting.expected == 0
    mapper.ports[BASE, Transport.TCP].opens(OUTSIDE)
    assert meeting.expected == 0
    meeting.mapped.close()


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A router that says nothing holds up nothing."""
    monkeypatch.setattr(mapped_ports, "ANSWER_LIMIT", 0.01)
    meeting = Meeting(waits=True)
    await begun(meeting)
    meeting.mapped.meet()
    assert meeting.expected == 1
    await until(lambda: meeting.expected == 0)
    meeting.mapped.close()


async def test_the_side_that_joins_asks_nobody_where_there_is_a_direct_path() -> None:
    """And asks as soon as there is none."""
    meeting = Meeting(waits=False)
    meeting.pairs = [Pair("relay"), Pair("direct")]
    meeting.mapped.heard_of(meeting.factory.host(BASE))
    meeting.mapped.begin()
    meeting.mapped.meet()
    await until(lambda: meeting.expected == 0)
    await asyncio.sleep(0.05)
    assert Mapper.made == []
    meeting.pairs = [Pair("relay")]
    await until(lambda: bool(Mapper.made))
    assert (BASE, Transport.UDP) in Mapper.made[-1].ports
    meeting.mapped.close()


async def test_a_router_that_is_to_be_left_alone_is() -> None:
    """Whatever happens."""
    for waits in (True, False):
        meeting = Meeting(waits=waits, is_wanted=False)
        meeting.mapped.heard_of(meeting.factory.host(BASE))
        meeting.mapped.begin()
        meeting.mapped.meet()
        meeting.mapped.follow()
        await asyncio.sleep(0.05)
        assert Mapper.made == [] and meeting.expected == 0
        await meeting.mapped.give_back()


async def test_only_what_listens_and_needs_it_is_opened() -> None:
    """Host candidates: UDP and passive TCP, private IPv4 and public IPv6."""
    meeting = Meeting(waits=True)
    factory = meeting.factory
    public, local = Address("44.5.5.5", 1), Address("fd00::5", 1)
    mapper = await begun(
        meeting,
        factory.host(BASE),
        *(factory.host(BASE, kind) for kind in TcpType),
        factory.host(BASE_IPV6),
        factory.host(public),
        factory.host(local),
        factory.server_reflexive(OUTSIDE, BASE, Address("44.0.0.1", 3478)),
        factory.relayed(Address("44.0.0.1", 9), OUTSIDE, Address("44.0.0.1", 3478)),
        factory.host(Address("192.168.1.11", 9999)),
    )
    assert set(mapper.ports) == {
        (BASE, Transport.UDP),
        (BASE, Transport.TCP),
        (BASE_IPV6, Transport.UDP),
    }
    meeting.mapped.close()


async def test_a_tcp_port_is_a_passive_candidate() -> None:
    """Whoever dials it comes in; the socket itself dials from elsewhere."""
    meeting = Meeting(waits=True)
    mapper = await begun(meeting, meeting.factory.host(BASE, TcpType.PASSIVE))
    mapper.ports[BASE, Transport.TCP].opens(OUTSIDE)
    (candidate,) = meeting.offered
    assert candidate.tcp_type is TcpType.PASSIVE and candidate.protocol is Transport.TCP
    meeting.mapped.close()


async def test_a_pinhole_is_no_new_candidate() -> None:
    """The host candidate can be reached now; there is nothing else to tell."""
    meeting = Meeting(waits=True)
    mapper = await begun(meeting, meeting.factory.host(BASE_IPV6))
    mapper.ports[BASE_IPV6, Transport.UDP].opens(BASE_IPV6)
    assert meeting.offered == []
    meeting.mapped.close()


@pytest.mark.parametrize("outside", [None, Address("10.0.0.2", 4000)], ids=["none", "private"])
async def test_a_router_without_a_public_address_is_believed_about_the_port(outside: Address | None) -> None:
    """Never offered is what it says; the port at the address that servers see may lead here."""
    meeting = Meeting(waits=True)
    mapper = await begun(meeting)
    mapper.ports[BASE, Transport.UDP].opens(outside, 5000)
    assert meeting.offered == []
    seen = meeting.factory.server_reflexive(Address("44.8.8.8", 777), BASE, Address("44.0.0.1", 3478))
    meeting.mapped.heard_of(seen)
    assert meeting.told() == [Address("44.8.8.8", 5000)]
    meeting.mapped.close()


async def test_a_router_whose_address_nobody_sees_is_offered_both_ways() -> None:
    """It may have several lines, or lie."""
    meeting = Meeting(waits=True)
    mapper = await begun(meeting)
    seen = meeting.factory.server_reflexive(Address("44.8.8.8", 777), BASE, Address("44.0.0.1", 3478))
    meeting.mapped.heard_of(seen)
    mapper.ports[BASE, Transport.UDP].opens(OUTSIDE)
    assert meeting.told() == [OUTSIDE, Address("44.8.8.8", 4000)]
    foundations = {each.foundation for each in meeting.offered}
    assert len(foundations) == 2 and seen.foundation not in foundations
    meeting.mapped.close()


async def test_a_new_outside_address_replaces_the_one_before() -> None:
    """Same foundation and base: the other side is told that the former is gone."""
    meeting = Meeting(waits=True)
    mapper = await begun(meeting)
    mapper.ports[BASE, Transport.UDP].opens(OUTSIDE)
    mapper.ports[BASE, Transport.UDP].opens(Address("44.2.2.2", 4000))
    first, second = meeting.offered
    assert first.foundation == second.foundation and first.address != second.address
    meeting.mapped.close()


async def test_sockets_that_come_and_go_have_ports_that_do() -> None:
    """A successor's port is opened, a closed one's closed."""
    meeting = Meeting(waits=True)
    mapper = await begun(meeting)
    later = Address("192.168.1.10", 4444)
    meeting.mapped.heard_of(meeting.factory.host(later))
    assert (later, Transport.UDP) in mapper.ports
    meeting.mapped.closed(BASE, Transport.UDP)
    assert set(mapper.ports) == {(later, Transport.UDP)}
    meeting.mapped.closed(Address("192.168.1.10", 1), Transport.UDP)
    meeting.mapped.follow()
    assert mapper.said == ["follow"]
    await meeting.mapped.give_back()
    assert mapper.said == ["follow", "aclose"]


async def test_a_slow_router_holds_up_no_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does not close in time is left to its lifetime."""
    monkeypatch.setattr(mapped_ports, "FAREWELL_LIMIT", 0.01)
    meeting = Meeting(waits=True)
    mapper = await begun(meeting)
    mapper.is_slow = True
    await meeting.mapped.give_back()
    assert mapper.said == ["aclose", "abandon"]


async def test_ports_without_an_end_are_worth_more_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What such a router does not close now stays open for ever."""
    monkeypatch.setattr(mapped_ports, "FAREWELL_LIMIT", 0.001)
    meeting = Meeting(waits=True)
    mapper = await begun(meeting)
    mapper.ports[BASE, Transport.UDP].is_permanent = True
    mapper.patience = 0.1
    await meeting.mapped.give_back()
    assert mapper.said == ["aclose", "closed"]


async def test_a_farewell_that_is_cut_short_abandons_the_ports() -> None:
    """Nothing goes on in the background."""
    meeting = Meeting(waits=True)
    mapper = await begun(meeting)
    mapper.is_slow = True
    leaving = asyncio.create_task(meeting.mapped.give_back())
    await until(lambda: mapper.said == ["aclose"])
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert mapper.said == ["aclose", "abandon"]


async def test_a_router_that_says_another_address_all_the_time_is_heard_for_a_while() -> None:
    """The other side is told of each; a router that makes them up tells it nothing more after some."""
    meeting = Meeting(waits=True)
    mapper = await begun(meeting)
    port = mapper.ports[BASE, Transport.UDP]
    for each in range(1000):
        port.opens(Address(OUTSIDE.host, 1 + each), 1 + each)
    assert 4 <= len(meeting.offered) <= 64


async def test_nothing_is_offered_after_the_end() -> None:
    """Ports that the router opens while it is told to close them."""
    meeting = Meeting(waits=True)
    mapper = await begun(meeting)
    port = mapper.ports[BASE, Transport.UDP]
    await meeting.mapped.give_back()
    port.opens(OUTSIDE)
    assert meeting.offered == []


# --- whole meetings -----------------------------------------------------------------------------------------


async def meet(monkeypatch: pytest.MonkeyPatch, *, seems_far: bool, **options: Any) -> int:
    """How many mappers two sides make that meet on this machine, where no path ever counts as direct."""
    monkeypatch.setattr(mapped_ports, "category_of", lambda pair: "relay")
    if seems_far:
        monkeypatch.setattr(HubSocket, "is_loopback", property(lambda self: False))
    async with (
        serving() as server,
        crowline.host(server.url, **options) as room,
        crowline.join(room.code, server.url, **options),
    ):
        await room.peer()
        for _ in range(int(PATIENCE / STEP) if seems_far and not options else 40):
            if len(Mapper.made) == 2:
                break
            await asyncio.sleep(STEP)
    return len(Mapper.made)


async def test_both_sides_of_a_meeting_have_their_routers_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a network between them and no direct path; all is given back at the end."""
    assert await meet(monkeypatch, seems_far=True) == 2
    assert all(mapper.said[-1] in ("aclose", "abandon") for mapper in Mapper.made)


@pytest.mark.parametrize("options", [{}, {"port_mapping": False}, {"relay_only": True}], ids=str)
async def test_no_router_is_asked_where_that_is_of_no_use_or_unwanted(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]
) -> None:
    """A hub on this machine, a flag, a side that shows no address."""
    assert await meet(monkeypatch, seems_far=bool(options), **options) == 0
