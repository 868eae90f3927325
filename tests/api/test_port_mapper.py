"""Ports for programs and for `crowline map`, at a router of the zoo on loopback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crowline.api.port_mapping import mapper as port_mapper
from crowline.api.port_mapping import ports, router_report
from crowline.api.port_mapping.mapper import PortMap, PortMapper, PortNotOpened, RouterNews
from crowline.api.port_mapping.records import PortRecords
from crowline.api.port_mapping.router_report import RouterReport, look_at_routers
from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.transport import Transport
from crowline.lab.profile import PortMapping
from crowline.lab.upnp_documents import fault
from crowline.lab.upnp_http import HttpAsked, HttpReply
from crowline.net.gateway import Gateway
from crowline.net.router_memory import RouterMemory
from crowline.portmap.ports import MAX_PORTS
from crowline.portmap.upnp import discovery
from loopback_router import HOST, LOOPBACK, OUTSIDE, LoopbackRouter, loopback_router
from waiting import until

KINDS = [PortMapping.UPNP, PortMapping.NAT_PMP, PortMapping.PCP]
ALL = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
PATIENCE = 30.0
TCP, UDP = 6, 17


class Ways:
    """Which gateways this machine is said to have."""

    def __init__(self) -> None:
        self.gateways: list[Gateway] = []

    def of(self, host: str) -> Gateway | None:
        return next((each for each in self.gateways if each.source == host), None)

    def all(self) -> list[Gateway]:
        return list(self.gateways)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Ways]:
    found = Ways()
    # Routers on loopback answer at once, and whoever has none need not wait for those with radio.
    monkeypatch.setattr(discovery, "SEARCH_LIMIT", 2.5)
    monkeypatch.setattr(port_mapper, "gateway_of", found.of)
    for module in (port_mapper, ports, router_report):
        monkeypatch.setattr(module, "default_gateways", found.all)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    yield found


def mapper(folder: Path, **options: object) -> PortMapper:
    return PortMapper(memory=RouterMemory(folder), follows=False, **options)  # type: ignore[arg-type]


def enters(router: LoopbackRouter, port: int, protocol: int = UDP) -> Address | None:
    """Where a stranger's packet to that outside port ends up."""
    stranger = Address("198.51.100.9", 7)
    return router.nat.inbound(protocol, Address(OUTSIDE, port), stranger, time.monotonic())


@ALL
@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
async def test_a_port_is_open_within_the_block(
    ways: Ways, tmp_path: Path, kind: PortMapping, transport: Transport
) -> None:
    """By whichever protocol the router speaks, and closed after it."""
    async with loopback_router("plain", kind) as router:
        ways.gateways = [router.gateway]
        protocol = TCP if transport is Transport.TCP else UDP
        async with mapper(tmp_path) as ours:
            port = ours.open(4000, transport)
            assert not port.is_open and port.reason
            outside = await port.opened(PATIENCE)
            assert outside.host == OUTSIDE and port.is_open and port.is_public
            assert port.protocol.lower().replace("-", "") == kind.value.replace("-", "").replace("_", "")
            assert enters(router, outside.port, protocol) == Address(HOST, 4000)
        assert enters(router, outside.port, protocol) is None
        assert not router.device.mappings(time.monotonic())


async def test_each_change_is_told(ways: Ways, tmp_path: Path) -> None:
    """That it is open, and that it was closed by its owner alone."""
    told: list[tuple[bool, int]] = []
    async with loopback_router("plain") as router:
        ways.gateways = [router.gateway]
        async with mapper(tmp_path) as ours:
            port = ours.open(4000, on_change=lambda each: told.append((each.is_open, each.port)))
            await port.opened(PATIENCE)
            assert told == [(True, 4000)]
            ours.close(port)
            ours.close(port)
            assert not port.is_open
            with pytest.raises(PortNotOpened, match="closed"):
                await port.opened(0)


async def test_another_port_may_be_asked_for(ways: Ways, tmp_path: Path) -> None:
    """Outside and inside need not be the same."""
    async with loopback_router("plain") as router:
        ways.gateways = [router.gateway]
        async with mapper(tmp_path) as ours:
            port = ours.open(4000, outside_port=5000)
            assert await port.opened(PATIENCE) == Address(OUTSIDE, 5000)
            assert enters(router, 5000) == Address(HOST, 4000)


async def test_without_a_router_nothing_is_opened(ways: Ways, tmp_path: Path) -> None:
    """A sentence says so, for a port of this host and for any."""
    async with mapper(tmp_path) as ours:
        with pytest.raises(PortNotOpened, match="No router"):
            ours.open(4000)
        changes: list[PortMap] = []
        port = ours.open(4000, host=HOST, on_change=changes.append)
        assert changes == [port]
        with pytest.raises(PortNotOpened, match="no router is on the way"):
            await port.opened(PATIENCE)


async def test_a_router_that_refuses_says_why(ways: Ways, tmp_path: Path) -> None:
    """In its own words, with a hint."""
    async with loopback_router("locked") as router:
        ways.gateways = [router.gateway]
        async with mapper(tmp_path) as ours:
            with pytest.raises(PortNotOpened) as caught:
                await ours.open(4000).opened(PATIENCE)
            assert "UDP port 4000 was not opened" in caught.value.message and caught.value.hint


async def test_the_same_port_is_opened_once(ways: Ways, tmp_path: Path) -> None:
    """The second time is a mistake, and so is opening after the end."""
    async with loopback_router("plain") as router:
        ways.gateways = [router.gateway]
        async with mapper(tmp_path) as ours:
            ours.open(4000)
            with pytest.raises(UsageError):
                ours.open(4000)
        with pytest.raises(UsageError):
            ours.open(4001)


async def test_a_port_moves_to_another_router(ways: Ways, tmp_path: Path) -> None:
    """The network changed: what was open is void, and the new router is asked."""
    async with loopback_router("plain") as first, loopback_router("plain", PortMapping.NAT_PMP) as second:
        ways.gateways = [first.gateway]
        async with mapper(tmp_path) as ours:
            states: list[str] = []
            port = ours.open(
                4000, on_change=lambda each: states.append(each.protocol if each.is_open else "-")
            )
            await port.opened(PATIENCE)
            ways.gateways = [second.gateway]
            ours.follow()
            assert not port.is_open
            await port.opened(PATIENCE)
            assert port.gateway == second.gateway.host
            assert states == ["UPnP", "-", "NAT-PMP"]
            ours.follow()
            assert port.is_open


async def test_a_port_follows_the_preferred_network(ways: Ways, tmp_path: Path) -> None:
    """A port of no address in particular goes where the internet is now, and is closed where it was."""
    async with loopback_router("plain") as first, loopback_router("plain", PortMapping.PCP) as second:
        elsewhere = Gateway(second.gateway.host, "127.0.0.2", LOOPBACK, "lo")
        ways.gateways = [first.gateway]
        async with mapper(tmp_path) as ours:
            port, fixed = ours.open(4000), ours.open(4001, host=HOST)
            await asyncio.gather(port.opened(PATIENCE), fixed.opened(PATIENCE))
            ways.gateways = [elsewhere, first.gateway]
            ours.follow()
            await port.opened(PATIENCE)
            assert (port.local.host, port.protocol) == ("127.0.0.2", "PCP")
            assert fixed.is_open and fixed.protocol == "UPnP"
            await until(lambda: list(first.device.mappings(time.monotonic())) == [(UDP, 4001)])


async def test_what_a_router_speaks_is_remembered(ways: Ways, tmp_path: Path) -> None:
    """The next program finds the description without a search."""
    async with loopback_router("plain") as router:
        ways.gateways = [router.gateway]
        async with mapper(tmp_path) as ours:
            await ours.open(4000).opened(PATIENCE)
        known = RouterMemory(tmp_path).get(router.gateway)
        assert known is not None and str(known.location) == router.place.location


async def test_news_of_the_router_are_told_in_words(ways: Ways, tmp_path: Path) -> None:
    """What it speaks, and its outside address."""
    news: list[RouterNews] = []
    async with loopback_router("plain") as router:
        ways.gateways = [router.gateway]
        async with mapper(tmp_path, on_news=news.append) as ours:
            await ours.open(4000).opened(PATIENCE)
    words = {each.words for each in news}
    assert {"it speaks UPnP", f"its outside address is {OUTSIDE}"} <= words


async def test_whoever_leaves_without_a_word_leaves_it_open(ways: Ways, tmp_path: Path) -> None:
    """As a program does whose port is to outlive it."""
    async with loopback_router("plain") as router:
        ways.gateways = [router.gateway]
        ours = mapper(tmp_path)
        await ours.open(4000).opened(PATIENCE)
        ours.abandon()
        assert enters(router, 4000) == Address(HOST, 4000)


# --- ports that outlive the program -----------------------------------------------------------------------


@ALL
async def test_a_port_is_opened_listed_and_closed_by_different_programs(
    ways: Ways, tmp_path: Path, kind: PortMapping
) -> None:
    """What is needed for that is kept in a file; PCP wants the nonce of the first one."""
    records = PortRecords(tmp_path)
    async with loopback_router("plain", kind) as router:
        ways.gateways = [router.gateway]
        opened = await ports.open_port(4000, Transport.UDP, lifetime=3600, records=records)
        assert opened.outside is not None and opened.outside.host == OUTSIDE and opened.lifetime > 3500
        assert enters(router, opened.port) == Address(HOST, 4000)
        (listed,) = await ports.list_ports(records=records)
        assert (listed.port, listed.inside) == (opened.port, Address(HOST, 4000))
        assert listed.is_ours and listed.is_listed is (kind is PortMapping.UPNP)
        again = await ports.open_port(4000, Transport.UDP, lifetime=3600, records=records)
        assert again.port == opened.port
        await ports.close_port(4000, Transport.UDP, host=HOST, records=records)
        assert enters(router, opened.port) is None
        assert await ports.list_ports(records=records) == []


async def test_a_port_without_an_end_is_said_to_have_none(ways: Ways, tmp_path: Path) -> None:
    """And is recorded until somebody closes it."""
    records = PortRecords(tmp_path)
    async with loopback_router("permanent-only") as router:
        ways.gateways = [router.gateway]
        opened = await ports.open_port(4000, Transport.TCP, lifetime=3600, records=records)
        assert opened.lifetime == 0
        assert [each.ends for each in records.all()] == [0.0]


async def test_a_port_of_another_network_is_forgotten(ways: Ways, tmp_path: Path) -> None:
    """Its router cannot be asked from here."""
    records = PortRecords(tmp_path)
    async with loopback_router("plain") as router:
        ways.gateways = [router.gateway]
        await ports.open_port(4000, Transport.UDP, lifetime=3600, records=records)
    (record,) = records.all()
    moved = type(record)(
        **{**{name: getattr(record, name) for name in record.__struct_fields__}, "host": "10.9.9.9"}
    )
    records.remove(record)
    records.add(moved)
    await ports.close_port(4000, Transport.UDP, records=records)
    assert records.all() == []


def test_damaged_records_are_none(tmp_path: Path) -> None:
    """And what has ended is no record any more."""
    for data in (b"", b"{", b"[5]", b"\xff", b"[" * 5000):
        (tmp_path / "ports.json").write_bytes(data)
        assert PortRecords(tmp_path).all() == []


# --- what routers say of themselves -----------------------------------------------------------------------


@ALL
async def test_a_router_is_looked_at_without_opening_anything(ways: Ways, kind: PortMapping) -> None:
    """Its protocols and, where it tells, its outside address."""
    async with loopback_router("plain", kind) as router:
        ways.gateways = [router.gateway]
        (report,) = await look_at_routers(timeout=PATIENCE)
        assert report.opens_ports and report.gateway == router.gateway.host
        assert report.outside_host == (None if kind is PortMapping.PCP else OUTSIDE)
        assert not router.device.mappings(time.monotonic())
        assert enters(router, 4000) is None


async def test_no_router_is_no_report(ways: Ways) -> None:
    """And no wait."""
    assert await look_at_routers(timeout=PATIENCE) == []


@pytest.mark.parametrize(
    ("outside", "seen", "expected"),
    [
        (None, "44.1.1.7", None),
        ("44.1.1.7", None, None),
        ("44.1.1.7", "44.1.1.7", False),
        ("44.1.1.7", "44.9.9.9", True),
        ("10.0.0.2", None, True),
        ("100.64.0.9", "44.1.1.7", True),
    ],
)
def test_a_second_translator_is_recognised(
    outside: str | None, seen: str | None, expected: bool | None
) -> None:
    """By an outside address that is private, or not the one that the internet sees."""
    report = RouterReport("192.168.1.1", "192.168.1.10", "eth0", ("UPnP",), outside)
    assert report.is_double_nat(seen) is expected
    assert ("front" in report.words(seen)) is bool(expected)


async def test_the_events_of_a_port_wake_whoever_waits(ways: Ways, tmp_path: Path) -> None:
    """Several may wait for one port."""
    async with loopback_router("plain") as router:
        ways.gateways = [router.gateway]
        async with mapper(tmp_path) as ours:
            port = ours.open(4000)
            found = await asyncio.gather(port.opened(PATIENCE), port.opened(PATIENCE))
            assert found == [Address(OUTSIDE, 4000)] * 2


async def test_what_cannot_be_opened_is_not_remembered(ways: Ways, tmp_path: Path) -> None:
    """A mistake leaves nothing behind that would be in the way of the next attempt."""
    async with loopback_router("plain", PortMapping.PCP) as router:
        ways.gateways = [router.gateway]
        async with mapper(tmp_path) as ours:
            opened = [ours.open(4000 + each) for each in range(MAX_PORTS)]
            for _ in range(2):
                with pytest.raises(UsageError, match=f"{MAX_PORTS} ports"):
                    ours.open(9000)
            ours.follow()
            await opened[-1].opened(PATIENCE)
            for port in opened:
                ours.close(port)
        async with mapper(tmp_path, lifetime=1) as ours:
            with pytest.raises(UsageError, match="lifetime"):
                ours.open(4000)


async def test_a_port_that_comes_back_waits_until_it_is_closed(ways: Ways, tmp_path: Path) -> None:
    """The preferred network goes to and fro, quicker than a router answers; other ports follow, too."""
    async with loopback_router("plain", PortMapping.PCP) as first:
        second = Gateway(first.gateway.host, "127.0.0.2", LOOPBACK, "lo")
        ways.gateways = [first.gateway]
        async with mapper(tmp_path) as ours:
            ports = [ours.open(4000), ours.open(4001)]
            for port in ports:
                await port.opened(PATIENCE)
            for preferred in ([second, first.gateway], [first.gateway, second]):
                ways.gateways = preferred
                ours.follow()
            await until(lambda: all(port.is_open for port in ports))
            assert {port.local.host for port in ports} == {HOST}
            assert enters(first, ports[1].port) == Address(HOST, 4001)


async def test_a_port_may_be_opened_again_at_once(ways: Ways, tmp_path: Path) -> None:
    """Although the router has not answered for its end yet."""
    async with loopback_router("plain", PortMapping.PCP) as router:
        ways.gateways = [router.gateway]
        async with mapper(tmp_path) as ours:
            port = ours.open(4000)
            await port.opened(PATIENCE)
            ours.close(port)
            again = ours.open(4000)
            assert await again.opened(PATIENCE) == Address(OUTSIDE, 4000)
            assert enters(router, 4000) == Address(HOST, 4000)


async def test_a_port_that_the_router_keeps_open_is_not_said_to_be_closed(
    ways: Ways, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses to delete what it has; the record stays, so that it can be tried again."""
    records = PortRecords(tmp_path)
    async with loopback_router("plain") as router:
        ways.gateways = [router.gateway]
        await ports.open_port(4000, Transport.UDP, host=HOST, lifetime=600, records=records)
        with monkeypatch.context() as patch:
            patch.setattr(router.device, "answer", refusing_deletion(router.device.answer))
            with pytest.raises(PortNotOpened, match="may still be open"):
                await ports.close_port(4000, Transport.UDP, host=HOST, records=records)
        assert enters(router, 4000) and records.all()
        await ports.close_port(4000, Transport.UDP, host=HOST, records=records)
        assert not enters(router, 4000) and not records.all()


def refusing_deletion(answer: Callable[..., HttpReply | None]) -> Callable[..., HttpReply | None]:
    """A router that answers as before, but to deletions."""

    def refuse(request: HttpAsked, client: str, now: float) -> HttpReply | None:
        if b"DeletePortMapping" in request.body:
            return HttpReply(500, (), fault(606, "no").encode())
        return answer(request, client, now)

    return refuse


async def test_an_end_that_is_cut_short_leaves_nothing_running(ways: Ways, tmp_path: Path) -> None:
    """Even where it had hardly begun."""
    async with loopback_router("plain", PortMapping.PCP) as router:
        ways.gateways = [router.gateway]
        ours = mapper(tmp_path)
        await ours.open(4000).opened(PATIENCE)
        ending = asyncio.create_task(ours.aclose())
        await asyncio.sleep(0)
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
        assert all(driver._is_closed for driver in ours._drivers.values())
