"""The client of one router: every protocol at once, one for each port, and what happens when it fails."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.transport import Transport
from crowline.lab.profile import PortMapping
from crowline.lab.router_temper import PLAIN
from crowline.portmap.router_client import HEAD_START, SEARCH_DELAY, RouterClient
from crowline.portmap.router_events import (
    Closed,
    Lost,
    Opened,
    OutsideIs,
    Protocol,
    ProtocolFound,
    Refused,
    Renewed,
    RouterSilent,
    Settled,
)
from crowline.portmap.router_port import KnownRouter, OpenPort
from crowline.portmap.upnp.gateway_url import GatewayUrl
from crowline.portmap.upnp.router import SEARCH_AGAIN, SEARCH_SOON, SECOND_REFRESH
from router_pair import LOCATION, OUTSIDE, SSDP, RouterPair, notice
from upnp_router import FIREWALL, GATEWAY, OWN_IPV6, V1, Refuse, Router

UDP_PORT = OpenPort(Transport.UDP, 4000)
TCP_PORT = OpenPort(Transport.TCP, 4000)
PROTOCOLS = {PortMapping.PCP: Protocol.PCP, PortMapping.NAT_PMP: Protocol.NAT_PMP}


def opened(port: int = 4000, protocol: Protocol = Protocol.UPNP, lifetime: float = 7200.0) -> Opened:
    return Opened(1, port, Address(OUTSIDE, port), lifetime, protocol)


@pytest.mark.parametrize("kind", PROTOCOLS, ids=lambda kind: kind.value)
@pytest.mark.parametrize("wanted", [UDP_PORT, TCP_PORT], ids=lambda wanted: wanted.transport.value)
def test_a_port_is_opened_by_pcp_or_nat_pmp(kind: PortMapping, wanted: OpenPort) -> None:
    """At once, and UPnP is asked for nothing although it is there."""
    router = Router(outside=OUTSIDE)
    pair = RouterPair(kind, router)
    assert pair.client.open(wanted, pair.now) == 1
    pair.run(0.01)
    assert pair.said(Opened) == [opened(protocol=PROTOCOLS[kind])]
    assert pair.client.protocols == (PROTOCOLS[kind], Protocol.UPNP)
    pair.run(60.0)
    assert "AddPortMapping" not in router.actions()
    assert pair.said(OutsideIs) == [OutsideIs(OUTSIDE)]


@pytest.mark.parametrize("wanted", [UDP_PORT, TCP_PORT], ids=lambda wanted: wanted.transport.value)
def test_a_port_is_opened_by_upnp_where_nothing_else_is_spoken(wanted: OpenPort) -> None:
    """After the head start of the others, without waiting for the end of their attempts."""
    router = Router(outside=OUTSIDE)
    pair = RouterPair(None, router)
    pair.client.open(wanted, pair.now)
    pair.run(HEAD_START + 0.01)
    assert pair.said(Opened) == [opened()]
    assert (wanted.transport.name, 4000) in router.entries
    assert pair.said(ProtocolFound) == [ProtocolFound(Protocol.UPNP)]


@pytest.mark.parametrize("kind", PROTOCOLS, ids=lambda kind: kind.value)
def test_a_port_that_is_refused_is_asked_of_upnp(kind: PortMapping) -> None:
    """A clear no is no reason to wait for the end of the head start."""
    pair = RouterPair(kind, Router(outside=OUTSIDE), temper=replace(PLAIN, allows=False))
    pair.client.open(UDP_PORT, pair.now)
    pair.run(0.01)
    assert pair.said(Opened) == [opened()]


def test_a_port_that_pcp_says_nothing_to_is_asked_of_upnp() -> None:
    """The router speaks PCP and does not answer for ports."""
    pair = RouterPair(PortMapping.PCP, Router(outside=OUTSIDE))
    pair.hears = lambda data: data[:2] != b"\x02\x01"
    pair.client.open(UDP_PORT, pair.now)
    pair.run(HEAD_START + 0.01)
    assert pair.said(Opened) == [opened()]


def test_a_router_that_speaks_nothing_is_told_once() -> None:
    """Every protocol was tried; the port is refused with a reason, and it is tried again later."""
    pair = RouterPair(None)
    pair.client.open(UDP_PORT, pair.now)
    assert not pair.client.is_settled
    pair.run(30.0)
    assert pair.said(RouterSilent) == [RouterSilent()] and pair.said(Settled) == [Settled()]
    assert pair.said(Refused) == [Refused(1, "the router opens no ports by any protocol")]
    assert pair.client.is_settled and pair.client.protocols == ()
    pair.run(SEARCH_AGAIN * 3)
    assert len(pair.said(RouterSilent)) == len(pair.said(Refused)) == 1


def test_a_port_that_is_asked_of_a_silent_router_is_refused_at_once() -> None:
    """Nobody waits for what is known."""
    pair = RouterPair(None)
    pair.run(30.0)
    number = pair.client.open(UDP_PORT, pair.now)
    pair.run(0.0)
    assert [event.number for event in pair.said(Refused)] == [number]


def test_a_protocol_that_is_switched_on_later_is_found() -> None:
    """The owner of the router may do so while we run."""
    pair = RouterPair(None)
    pair.client.open(UDP_PORT, pair.now)
    pair.run(30.0)
    pair.upnp = Router(outside=OUTSIDE)
    pair.run(SEARCH_AGAIN + 10.0)
    assert pair.said(Opened) == [opened()]


def test_what_upnp_refuses_is_refused_in_its_words() -> None:
    """The owner learns the router's reason rather than that another protocol is not spoken."""

    def refuse(action: str, values: dict[str, str]) -> None:
        if action == "AddPortMapping":
            raise Refuse(606)

    pair = RouterPair(None, Router(outside=OUTSIDE, before=refuse))
    pair.client.open(UDP_PORT, pair.now)
    pair.run(30.0)
    (refused,) = pair.said(Refused)
    assert "not" in refused.words and pair.said(Opened) == []


def test_closing_deletes_what_is_open_by_upnp() -> None:
    """Nothing is left, and the client is idle."""
    router = Router(outside=OUTSIDE)
    pair = RouterPair(None, router)
    number = pair.client.open(UDP_PORT, pair.now)
    pair.run(10.0)
    pair.client.close(number, pair.now)
    pair.run(0.01)
    assert pair.said(Closed) == [Closed(number, True)]
    assert router.entries == {}


@pytest.mark.parametrize("kind", [None, *PROTOCOLS], ids=str)
def test_the_end_closes_everything(kind: PortMapping | None) -> None:
    """`close_all` leaves nothing open, by whatever protocol."""
    router = Router(outside=OUTSIDE)
    pair = RouterPair(kind, router)
    pair.client.open(UDP_PORT, pair.now)
    pair.client.open(TCP_PORT, pair.now)
    pair.run(10.0)
    pair.client.close_all(pair.now)
    pair.run(5.0)
    assert pair.client.is_idle
    assert router.entries == {}
    assert pair.nat.inbound(17, Address(OUTSIDE, 4000), Address("198.51.100.9", 7), pair.now) is None
    with pytest.raises(UsageError):
        pair.client.open(OpenPort(Transport.UDP, 1), pair.now)


def test_the_end_does_not_wait_for_a_router_that_is_gone() -> None:
    """Three seconds, then it is over."""
    pair = RouterPair(None, Router(outside=OUTSIDE))
    pair.client.open(UDP_PORT, pair.now)
    pair.run(10.0)
    pair.upnp = None
    pair.client.close_all(pair.now)
    pair.run(3.1)
    assert pair.client.is_idle


def test_a_port_is_renewed() -> None:
    """By PCP at half of its time, which is told."""
    pair = RouterPair(PortMapping.PCP)
    pair.client.open(UDP_PORT, pair.now)
    pair.run(7200.0)
    assert [type(event) for event in pair.events].count(Renewed) >= 1
    assert len(pair.said(Opened)) == 1


def test_a_router_that_restarts_with_nothing_is_asked_anew_by_upnp() -> None:
    """Its notice has another boot number; what it has forgotten is made again, twice for the slow ones."""
    router = Router(outside=OUTSIDE)
    pair = RouterPair(None, router)
    pair.client.open(UDP_PORT, pair.now)
    pair.run(10.0)
    router.entries.clear()
    pair.tell(notice(boot=1))
    assert router.entries == {}
    pair.tell(notice(boot=2))
    assert ("UDP", 4000) in router.entries
    router.entries.clear()
    pair.run(SECOND_REFRESH + 0.1)
    assert ("UDP", 4000) in router.entries
    assert len(pair.said(Opened)) == 1


def test_a_router_without_boot_numbers_restarts_after_its_goodbye() -> None:
    """`ssdp:byebye`, then `ssdp:alive`."""
    router = Router(outside=OUTSIDE)
    pair = RouterPair(None, router)
    pair.client.open(UDP_PORT, pair.now)
    pair.run(10.0)
    router.entries.clear()
    pair.tell(notice(boot=None))
    assert router.entries == {}
    pair.tell(notice("byebye", boot=None))
    pair.tell(notice(boot=None))
    assert ("UDP", 4000) in router.entries


def test_a_router_that_restarts_on_another_port_is_followed() -> None:
    """Some choose a random port for their description at each start."""
    router = Router(outside=OUTSIDE)
    pair = RouterPair(None, router)
    pair.client.open(UDP_PORT, pair.now)
    pair.run(10.0)
    router.entries.clear()
    pair.location = f"http://{GATEWAY}:6000/other.xml"
    pair.tell(notice(location=pair.location, boot=2))
    assert ("UDP", 4000) in router.entries
    pair.client.close_all(pair.now)
    pair.run(1.0)
    assert router.entries == {}


def test_the_routers_other_devices_may_restart_as_they_like() -> None:
    """A media server in the same box, and a second gateway device with a number of its own."""
    router = Router(outside=OUTSIDE)
    pair = RouterPair(None, router)
    pair.client.open(UDP_PORT, pair.now)
    pair.run(10.0)
    before = len(router.asked)
    media = "urn:schemas-upnp-org:device:MediaServer:1"
    elsewhere = f"http://{GATEWAY}:8200/media.xml"
    for boot in (5, 6):
        pair.tell(notice("byebye", target=media, boot=boot))
        pair.tell(notice(location=elsewhere, target=media, boot=boot))
        pair.tell(notice(uuid="other", boot=77))
        pair.run(20.0)
    assert len(router.asked) == before
    assert pair.said(ProtocolFound) == [ProtocolFound(Protocol.UPNP)]


def test_a_router_that_comes_back_without_upnp_has_lost_the_ports() -> None:
    """Its new description cannot be read: the owner hears of it, and it is soon searched for again."""
    router = Router(outside=OUTSIDE)
    pair = RouterPair(None, router)
    pair.client.open(UDP_PORT, pair.now)
    pair.run(10.0)
    pair.location, pair.serves_http = f"http://{GATEWAY}:6000/other.xml", False
    pair.tell(notice(location=pair.location, boot=2))
    pair.run(10.0)
    assert len(pair.said(Lost)) == 1
    pair.serves_http = True
    pair.run(SEARCH_SOON)
    assert pair.said(Opened) == [opened(), opened()]


def test_notices_of_strangers_do_nothing() -> None:
    """Another host's word, and a flood of restarts that are none, cost the router nothing."""
    router = Router(outside=OUTSIDE)
    pair = RouterPair(None, router)
    pair.client.open(UDP_PORT, pair.now)
    pair.run(10.0)
    before = len(router.asked)
    pair.tell(notice(boot=9), Address("192.168.1.99", 1900))
    pair.tell(notice(boot=9, location="http://192.168.1.99:5000/x"))
    pair.tell(b"NOTIFY " + b"\xff" * 3000)
    assert len(router.asked) == before
    for boot in range(100, 1100):
        pair.tell(notice(boot=boot))
    assert len(router.asked) - before <= 4
    for number in range(1000):
        pair.tell(notice(boot=number, uuid=str(number)))
    assert pair.client.counters["refused"] >= 2


def test_a_stranger_opens_nothing() -> None:
    """An answer to the search that comes from another host, or names one, is not followed."""
    pair = RouterPair(None, Router(outside=OUTSIDE))
    pair.answers_from = Address("192.168.1.99", 1900)
    pair.client.open(UDP_PORT, pair.now)
    pair.run(10.0)
    assert pair.said(Opened) == []
    pair = RouterPair(None, Router(outside=OUTSIDE))
    pair.location = "http://192.168.1.99:5000/rootDesc.xml"
    pair.client.open(UDP_PORT, pair.now)
    pair.run(10.0)
    assert pair.said(Opened) == []


def test_a_router_that_falls_silent_loses_its_ports_and_is_sought() -> None:
    """What cannot be renewed in time is lost; the port comes back with the router."""
    router = Router(outside=OUTSIDE)
    pair = RouterPair(None, router)
    pair.client.open(UDP_PORT, pair.now)
    pair.run(10.0)
    pair.upnp = None
    pair.run(7300.0)
    assert len(pair.said(Lost)) == 1
    pair.upnp = router
    pair.run(SEARCH_AGAIN + 10.0)
    assert pair.said(Opened) == [opened(), opened()]


def test_a_new_outside_address_is_told() -> None:
    """The router's line got another address: strangers need that one."""
    router = Router(outside=OUTSIDE)
    pair = RouterPair(None, router)
    pair.client.open(UDP_PORT, pair.now)
    pair.run(10.0)
    router.outside = "44.9.9.9"
    pair.run(4000.0)
    assert pair.said(OutsideIs) == [OutsideIs(OUTSIDE), OutsideIs("44.9.9.9")]
    assert pair.said(Opened)[-1].outside == Address("44.9.9.9", 4000)


def test_a_router_without_an_outside_address_still_opens_ports() -> None:
    """The port may be reached at an address that somebody else knows."""
    pair = RouterPair(None, Router(outside="0.0.0.0"))
    pair.client.open(UDP_PORT, pair.now)
    pair.run(10.0)
    assert pair.said(Opened) == [Opened(1, 4000, None, 7200.0, Protocol.UPNP)]


def test_a_mapping_without_an_end_says_so() -> None:
    """A router that knows no leases (725)."""

    def refuse(action: str, values: dict[str, str]) -> None:
        if values.get("NewLeaseDuration", "0") != "0":
            raise Refuse(725)

    pair = RouterPair(None, Router(outside=OUTSIDE, before=refuse))
    pair.client.open(UDP_PORT, pair.now)
    pair.run(10.0)
    assert pair.said(Opened) == [opened(lifetime=float("inf"))]


# --- what is remembered -----------------------------------------------------------------------------------


def test_a_known_description_needs_no_search_and_no_head_start() -> None:
    """The port is open without a single answer to the search."""
    known = KnownRouter(Protocol.UPNP, GatewayUrl.parse(LOCATION, GATEWAY))
    pair = RouterPair(None, Router(outside=OUTSIDE), known=known)
    pair.hears = lambda data: False
    pair.client.open(UDP_PORT, pair.now)
    pair.run(0.001)
    assert pair.said(Opened) == [opened()]
    assert pair.client.known == known


def test_a_description_that_has_moved_is_found_by_the_search() -> None:
    """What was remembered is tried first and is no obstacle."""
    known = KnownRouter(Protocol.UPNP, GatewayUrl.parse(f"http://{GATEWAY}:9/old.xml", GATEWAY))
    pair = RouterPair(None, Router(outside=OUTSIDE), known=known)
    pair.client.open(UDP_PORT, pair.now)
    pair.run(1.0)
    assert pair.said(Opened) == [opened()]
    assert pair.client.known == KnownRouter(Protocol.UPNP, GatewayUrl.parse(LOCATION, GATEWAY))


def test_where_pcp_is_known_the_network_is_not_searched_at_once() -> None:
    """A search is a packet to every host of the network."""
    pair = RouterPair(PortMapping.PCP, Router(outside=OUTSIDE), known=KnownRouter(Protocol.PCP))
    pair.client.open(UDP_PORT, pair.now)
    pair.run(SEARCH_DELAY - 0.01)
    assert pair.said(Opened) == [opened(protocol=Protocol.PCP)]
    assert pair.searches() == 0


def test_nothing_is_remembered_of_a_router_that_opened_nothing() -> None:
    """Only what worked is worth it."""
    assert RouterPair(None).client.known is None


def test_a_port_is_taken_up_again_with_its_nonce() -> None:
    """Another client closes what the first one opened by PCP."""
    pair = RouterPair(PortMapping.PCP)
    number = pair.client.open(UDP_PORT, pair.now)
    pair.run()
    nonce = pair.client.nonce_of(number)
    assert len(nonce) == 12
    pair.client = RouterClient("192.168.1.7", GATEWAY, lambda count: b"\x05" * count, pair.now)
    number = pair.client.open(OpenPort(Transport.UDP, 4000, nonce=nonce), pair.now)
    pair.run()
    pair.client.close(number, pair.now)
    pair.run()
    assert pair.said(Closed) == [Closed(number, True)]
    assert pair.nat.inbound(17, Address(OUTSIDE, 4000), Address("198.51.100.9", 7), pair.now) is None


# --- IPv6 -------------------------------------------------------------------------------------------------

LINK_LOCAL = "fe80::1"
GLOBAL = "2001:db8::1"
IPV6_LOCATION = f"http://[{GLOBAL}]:5000/rootDesc.xml"


def ipv6_pair(router: Router, is_gateway: bool = True) -> RouterPair:
    pair = RouterPair(
        None,
        router,
        host=OWN_IPV6,
        gateway=LINK_LOCAL,
        is_gateway=lambda host: is_gateway and host == GLOBAL,
    )
    pair.location, pair.answers_from = IPV6_LOCATION, Address(GLOBAL, 1900)
    return pair


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
def test_a_pinhole_is_opened_at_a_router_whose_other_address_is_known(transport: Transport) -> None:
    """The way out is by a link-local address, the service is at a global one."""
    router = Router(services=((V1, "/a"), (FIREWALL, "/b")), outside=OUTSIDE)
    pair = ipv6_pair(router)
    pair.client.open(OpenPort(transport, 4000), pair.now)
    pair.run(10.0)
    expected = Opened(1, 4000, Address(OWN_IPV6, 4000), 7200.0, Protocol.UPNP)
    assert pair.said(Opened) == [expected]
    assert pair.said(OutsideIs) == []
    pair.client.close_all(pair.now)
    pair.run(1.0)
    assert router.pinholes == {}


def test_no_pinhole_is_asked_of_a_host_that_is_not_the_router() -> None:
    """Whoever answers from another address must be known to be the same box."""
    router = Router(services=((FIREWALL, "/b"),))
    pair = ipv6_pair(router, is_gateway=False)
    pair.client.open(UDP_PORT, pair.now)
    pair.run(10.0)
    assert pair.said(Opened) == [] and router.asked == []


def test_a_router_that_opens_no_pinholes_is_said_to_open_none() -> None:
    """It maps ports for IPv4 all the same, which is of no use here."""
    pair = ipv6_pair(Router(services=((V1, "/a"),)))
    pair.client.open(UDP_PORT, pair.now)
    pair.run(30.0)
    assert len(pair.said(Refused)) == 1 and pair.said(Opened) == []


# --- misuse -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transport", "port"), [(Transport.TLS, 1), (Transport.UDP, 0), (Transport.UDP, 65536)]
)
def test_what_no_router_opens_is_refused(transport: Transport, port: int) -> None:
    """Before anything is asked."""
    with pytest.raises(UsageError):
        OpenPort(transport, port)


def test_a_port_is_asked_for_once() -> None:
    """The second time is a mistake, and another transport is another port."""
    pair = RouterPair(None)
    pair.client.open(UDP_PORT, pair.now)
    pair.client.open(TCP_PORT, pair.now)
    with pytest.raises(UsageError):
        pair.client.open(UDP_PORT, pair.now)


def test_a_search_goes_to_the_group_and_to_the_router() -> None:
    """And nowhere else."""
    pair = RouterPair(None)
    pair.run(30.0)
    hosts = {destination.host for _, destination, _ in pair.asked}
    assert hosts == {GATEWAY, "239.255.255.250"} and SSDP in {each for _, each, _ in pair.asked}


def test_ports_that_are_being_deleted_make_no_trouble_for_new_ones() -> None:
    """A router that deletes slowly holds more than it may for a while; what is new is opened after that."""
    router = Router(outside=OUTSIDE)
    pair = RouterPair(None, router)
    pair.run(5.0)
    first = [pair.client.open(OpenPort(Transport.UDP, 4000 + each), pair.now) for each in range(40)]
    pair.run()
    assert len(router.entries) == 40
    for number in first:
        pair.client.close(number, pair.now)
    for each in range(40):
        pair.client.open(OpenPort(Transport.UDP, 5000 + each), pair.now)
    pair.run(120.0)
    assert sorted(port for _, port in router.entries) == list(range(5000, 5040))


@pytest.mark.parametrize("lease", range(1, 6))
def test_a_router_of_very_short_leases_is_not_asked_again_and_again(lease: int) -> None:
    """What it gives ends before it can be renewed, which is no reason to search the network every second."""
    router = Router(outside=OUTSIDE)
    pair = RouterPair(None, router)

    def shorten(action: str, values: dict[str, str]) -> None:
        if action == "AddPortMapping":
            values["NewLeaseDuration"] = str(lease)

    router.before = shorten
    pair.client.open(UDP_PORT, pair.now)
    pair.run(10.0)
    searches, asked = pair.searches(), len(router.asked)
    pair.run(600.0)
    assert pair.searches() - searches < 300
    assert len(router.asked) - asked < 100
    assert 20 < len(pair.said(Opened)) + len(pair.said(Lost)) < 50


@pytest.mark.parametrize("kind", [*PROTOCOLS, None], ids=lambda kind: kind.value if kind else "upnp")
def test_what_the_router_did_not_close_is_counted(kind: PortMapping | None) -> None:
    """It refuses, or answers no more: whoever wanted the port closed can be told."""
    router = Router(outside=OUTSIDE)
    pair = RouterPair(kind, router if kind is None else None)
    pair.client.open(UDP_PORT, pair.now)
    pair.run(5.0)

    def cling(action: str, values: dict[str, str]) -> None:
        if action == "DeletePortMapping":
            raise Refuse(606)

    router.before = cling
    pair.hears = lambda data: False
    assert pair.client.left == 0
    pair.client.close_all(pair.now)
    pair.run(4.0)
    assert pair.client.is_idle and pair.client.left == 1


def test_what_was_never_open_is_not_missed_at_the_end() -> None:
    """PCP refused, UPnP opened and closed: nothing is left."""
    pair = RouterPair(PortMapping.PCP, Router(outside=OUTSIDE), temper=replace(PLAIN, allows=False))
    pair.client.open(UDP_PORT, pair.now)
    pair.run(5.0)
    assert pair.said(Opened)
    pair.client.close_all(pair.now)
    pair.run(4.0)
    assert pair.client.is_idle and pair.client.left == 0


@pytest.mark.parametrize("is_end", [False, True], ids=["one", "all"])
def test_a_port_that_is_closed_within_the_head_start_keeps_nobody_busy(is_end: bool) -> None:
    """The router does not answer for its end, and UPnP's turn never comes: time goes on all the same."""
    pair = RouterPair(PortMapping.PCP, Router(outside=OUTSIDE))
    pair.run(5.0)
    pair.hears = lambda data: False
    number = pair.client.open(UDP_PORT, pair.now)
    pair.run(0.1)
    if is_end:
        pair.client.close_all(pair.now)
    else:
        pair.client.close(number, pair.now)
    pair.run(5.0)
    assert pair.said(Closed) == [Closed(number, confirmed=False)]
