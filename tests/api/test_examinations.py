"""An examination against servers on loopback: ours, somebody else's, portals, and nobody."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from crowline.api.doctor import checks as doctor_checks
from crowline.api.doctor.checks import privacy_of, tunnel_of
from crowline.api.doctor.examination import examine
from crowline.api.options import SERVER_VARIABLE
from crowline.api.port_mapping.router_report import RouterReport
from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem, UsageError
from crowline.diagnosis.facts import FirewallFacts, Portal, Privacy
from crowline.diagnosis.verdict import Verdict
from crowline.net.interfaces import InterfaceAddress, InterfaceKind
from crowline.net.network import Network, Way
from crowline.net.plain_http import PlainAnswer
from serving import serving

LIMIT = 30.0  # seconds: what has to happen takes two or three
PORTAL_PAGE = b"HTTP/1.1 302 Found\r\nLocation: http://login.example/?mac=1\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing outside of this machine is asked, and no server or proxy is set."""

    async def no_routers(timeout: float = 0.0) -> list[RouterReport]:
        return []

    async def no_firewalls() -> tuple[FirewallFacts, ...]:
        return ()

    monkeypatch.setattr(doctor_checks, "look_at_routers", no_routers)
    monkeypatch.setattr(doctor_checks, "local_firewalls", no_firewalls)
    monkeypatch.delenv(SERVER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("settings")))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "SOCKS_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """Whoever connects and asks gets that; with nothing to say it keeps silent. The URL as of a hub."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            if not answer:
                await reader.read()
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def test_our_own_server_on_this_machine() -> None:
    """No translator, no portal, everything measured."""
    async with serving() as server:
        found = await examine(server.url, limit=LIMIT)
    facts = found.facts
    assert found.diagnosis.verdict is Verdict.DIRECT_LIKELY
    assert facts.server.is_reached and facts.server.has_stun
    assert facts.server.round_trip is not None and facts.server.round_trip >= 0
    assert facts.ipv4.is_public and facts.udp and facts.tcp
    assert facts.portal.portal is Portal.NONE
    assert facts.left_out == ()
    assert facts.hops == ()


async def test_nobody_at_that_address() -> None:
    """A result, not an error."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{taken.getsockname()[1]}"
        found = await examine(url, limit=LIMIT)
    assert found.diagnosis.verdict is Verdict.NO_SERVER
    assert found.facts.server.problem == f"The server at {url} cannot be reached."
    assert found.facts.udp is None


async def test_no_server_is_named() -> None:
    """What is near is looked at all the same."""
    found = await examine(limit=LIMIT)
    assert found.diagnosis.verdict is Verdict.NO_SERVER
    assert "No server is named." in found.facts.server.problem
    assert found.facts.portal.portal is Portal.UNKNOWN


async def test_a_portal_in_the_servers_place() -> None:
    """Its page is where one has to sign in."""
    async with answering(PORTAL_PAGE) as url:
        found = await examine(url, limit=LIMIT)
    assert found.diagnosis.verdict is Verdict.NO_SERVER
    assert found.facts.portal.portal is Portal.FOUND
    assert found.facts.portal.login == "http://login.example/"


async def test_a_server_that_says_nothing_takes_half_of_the_time_at_most() -> None:
    """The rest is for what the server would have named."""
    async with answering(b"") as url:
        found = await examine(url, limit=1.0)
    assert found.diagnosis.verdict is Verdict.NO_SERVER
    assert "does not answer" in found.facts.server.problem


async def test_a_web_server_is_no_hub() -> None:
    """Nor is it a portal, if it just does not know the question."""
    async with answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as url:
        found = await examine(url, limit=LIMIT)
    assert found.facts.server.problem == f"What answers at {url} is not a Crowline server."
    assert found.facts.portal.portal is Portal.UNKNOWN


async def test_a_check_that_the_machine_refuses_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named as left out."""

    async def refuse(timeout: float) -> list[RouterReport]:
        raise LocalProblem("No sockets are left.")

    monkeypatch.setattr(doctor_checks, "look_at_routers", refuse)
    async with serving() as server:
        found = await examine(server.url, limit=LIMIT)
    assert found.facts.left_out == ("the router",)
    assert found.diagnosis.verdict is Verdict.DIRECT_LIKELY


async def test_a_check_that_does_not_end_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time is over."""

    async def wait() -> tuple[FirewallFacts, ...]:
        await asyncio.Event().wait()
        return ()

    monkeypatch.setattr(doctor_checks, "local_firewalls", wait)
    found = await examine(limit=0.2)
    assert found.facts.left_out == ("the local firewall",)


async def test_a_defect_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no machine says is ours."""

    async def fail() -> tuple[FirewallFacts, ...]:
        raise ZeroDivisionError

    monkeypatch.setattr(doctor_checks, "local_firewalls", fail)
    with pytest.raises(ZeroDivisionError):
        await examine(limit=LIMIT)


async def test_a_url_that_is_none_is_the_callers_mistake() -> None:
    """As for every command."""
    with pytest.raises(UsageError):
        await examine("http://example.org", limit=LIMIT)


async def test_a_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is used; where it cannot be reached, no server can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@127.0.0.1:{port}")
        monkeypatch.setenv("NO_PROXY", "")
        found = await examine("ws://192.0.2.1:8080", limit=LIMIT)
    assert found.facts.proxy is not None
    assert found.facts.proxy.url == f"http://127.0.0.1:{port}"
    assert "secret" not in str(found.to_fields())
    assert found.diagnosis.verdict is Verdict.NO_SERVER


def address(
    host: str, index: int, kind: InterfaceKind = InterfaceKind.ORDINARY, **more: bool
) -> InterfaceAddress:
    return InterfaceAddress(host, 24, f"if{index}", index, kind, **more)


SOMEWHERE = Address("1.1.1.1", 9)
CABLE, TUNNEL = address("192.168.1.10", 1), address("10.8.0.2", 2, InterfaceKind.TUNNEL)


@pytest.mark.parametrize(
    ("addresses", "device", "name"),
    [
        ((CABLE, TUNNEL), 2, "if2"),
        ((CABLE, TUNNEL), 1, ""),
        ((TUNNEL,), 2, ""),
        ((CABLE,), 1, ""),
    ],
    ids=["VPN", "VPN for other things", "nothing beneath", "no tunnel"],
)
def test_a_vpn_is_a_tunnel_with_something_beneath(
    addresses: tuple[InterfaceAddress, ...], device: int, name: str
) -> None:
    """By which packets to the internet leave."""
    assert tunnel_of(Network(addresses, ((SOMEWHERE, Way("x", device)),))) == name


def test_a_tunnel_for_ipv6_alone_is_no_vpn() -> None:
    """IPv4 leaves by the cable; without IPv4 it is the way there is."""
    tunnel = address("2001:db8::2", 2, InterfaceKind.TUNNEL)
    by_cable = (SOMEWHERE, Way("192.168.1.10", 1))
    by_tunnel = (Address("2606:4700:4700::1111", 9), Way("2001:db8::2", 2))
    assert tunnel_of(Network((CABLE, tunnel), (by_cable, by_tunnel))) == ""
    assert tunnel_of(Network((CABLE, tunnel), ((SOMEWHERE, None), by_tunnel))) == "if2"


def test_a_vpn_is_known_by_its_address_where_ways_have_no_interface() -> None:
    """Systems other than Linux tell from which address packets leave, and no more."""
    assert tunnel_of(Network((CABLE, TUNNEL), ((SOMEWHERE, Way(TUNNEL.host)),))) == "if2"
    assert tunnel_of(Network((CABLE, TUNNEL), ((SOMEWHERE, Way(CABLE.host)),))) == ""


async def test_a_web_site_beside_the_hub_that_leads_elsewhere_is_no_portal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hub welcomes this machine: nobody stands in its place."""

    async def elsewhere(host: str, port: int, path: str) -> PlainAnswer:
        return PlainAnswer(301, "https://www.example.org/", b"")

    monkeypatch.setattr(doctor_checks, "fetch_plain", elsewhere)
    async with serving() as server:
        found = await examine(server.url, limit=LIMIT)
    assert found.facts.server.is_reached
    assert found.facts.portal.portal is Portal.NONE
    assert "sign-in" not in [fix.key for fix in found.diagnosis.fixes]


@pytest.mark.parametrize(
    ("complaints", "leaves"),
    [
        ([("r1", "r2")], True),
        ([("r1",), ("r1", "r2")], True),
        ([("r1",), ("r1",)], False),
        ([(), ()], False),
    ],
    ids=["as far", "as far at the second time", "not as far", "nowhere"],
)
async def test_a_router_that_complains_too_seldom_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, complaints: list[tuple[str, ...]], leaves: bool
) -> None:
    """Before it is said that this network keeps packets to a port that stays silent."""
    heard = iter([("r1", "r2"), *complaints])

    async def hops(server: Address) -> tuple[str | None, ...]:
        return next(heard)

    async def first_alone(host: str, ports: Sequence[int]) -> tuple[int, ...]:
        return tuple(ports[:1])

    monkeypatch.setattr(doctor_checks, "first_hops", hops)
    monkeypatch.setattr(doctor_checks, "answering_ports", first_alone)
    async with serving() as server:
        found = await examine(server.url, limit=LIMIT)
    assert found.facts.ports.leaves is leaves
    assert list(heard) == []


def test_the_worst_ipv6_address_counts_unless_there_are_temporary_ones() -> None:
    """Systems prefer those where they have them."""
    hardware, stable = address("2001:db8::211:22ff:fe33:4455", 1), address("2001:db8::1", 1)
    temporary = address("2001:db8::9", 1, is_temporary=True)
    assert privacy_of([hardware, stable]) is Privacy.HARDWARE
    assert privacy_of([hardware, temporary]) is Privacy.TEMPORARY
    assert privacy_of([CABLE]) is Privacy.UNKNOWN
