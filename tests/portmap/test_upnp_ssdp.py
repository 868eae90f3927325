"""The search for a gateway: what is sent, and whom it believes."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.portmap.upnp import ssdp
from crowline.portmap.upnp.discovery import (
    MAX_LOCATIONS,
    ROUND_INTERVAL,
    ROUNDS,
    SEARCH_LIMIT,
    Discovery,
    LocationFound,
    SearchEnded,
)
from crowline.portmap.upnp.element import MalformedUpnp
from upnp_router import GATEWAY

SOURCE = Address(GATEWAY, 1900)


def answer(location: str = f"http://{GATEWAY}:5000/rootDesc.xml", *lines: str) -> bytes:
    """An answer as miniupnpd gives it."""
    head = ("HTTP/1.1 200 OK", "CACHE-CONTROL: max-age=120", f"ST: {ssdp.TARGETS[0]}", "USN: uuid:1")
    return "\r\n".join((*head, "EXT:", f"LOCATION: {location}", *lines, "", "")).encode()


def drain(discovery: Discovery) -> list[tuple[Address, bytes]]:
    sent = []
    while (transmit := discovery.next_transmit()) is not None:
        sent.append((transmit.destination, bytes(transmit.data)))
    return sent


def test_a_search_is_an_m_search_with_crlf() -> None:
    """Gateways do not answer requests with bare line feeds."""
    assert ssdp.write_search(ssdp.TARGETS[0], ssdp.GROUP_IPV4) == (
        b'M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: "ssdp:discover"\r\nMX: 2\r\n'
        b"ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n"
    )


def test_a_direct_search_has_no_mx() -> None:
    """One host that is asked has nobody to wait for (UPnP Device Architecture 1.1 §1.3.2)."""
    assert b"MX" not in ssdp.write_search(ssdp.TARGETS[0], SOURCE)


def test_an_answer_of_the_gateway_is_read() -> None:
    """The location, the target and the count of restarts."""
    found = ssdp.parse_answer(answer(f"http://{GATEWAY}:5000/a?b=c", "BOOTID.UPNP.ORG: 7"), SOURCE, GATEWAY)
    assert (found.location.address, found.location.target) == (Address(GATEWAY, 5000), "/a?b=c")
    assert (found.target, found.usn, found.boot) == (ssdp.TARGETS[0], "uuid:1", 7)


def test_an_answer_with_odd_letters_and_line_ends_is_read() -> None:
    """Header names of any case, bare line feeds, no blank after the colon, no port in the URL."""
    data = f"http/1.0 200 ok\nst:x\nLocation:http://{GATEWAY}/d.xml\nBOOTID.UPNP.ORG: soon\n\n".encode()
    found = ssdp.parse_answer(data, SOURCE, GATEWAY)
    assert (found.location.address, found.boot) == (Address(GATEWAY, 80), None)


def test_ipv6_gateways_are_read() -> None:
    """A link-local location may carry the zone of the router's own interface."""
    gateway = "fe80::1"
    found = ssdp.parse_answer(answer("http://[fe80::1%25br0]:5000/d"), Address(gateway, 1900), gateway)
    assert found.location.address == Address("fe80::1", 5000)


@pytest.mark.parametrize(
    "location",
    [
        "http://192.168.1.2:5000/d",
        "http://44.1.1.1/d",
        "http://router.lan/d",
        "http://192.168.1.1.evil.example/d",
        "http://192.168.1.1@44.1.1.1/d",
        "http://44.1.1.1@192.168.1.1/d",
        "http://192.168.1.1:70000/d",
        "http://192.168.1.1:x/d",
        "http://[192.168.1.1/d",
        "http://0300.0250.0.1/d",
        "https://192.168.1.1/d",
        "file:///etc/passwd",
        "//192.168.1.1/d",
        "http://192.168.1.1/a b",
        "http://192.168.1.1/\u00e4",
        f"http://192.168.1.1/{'a' * 1024}",
        "",
    ],
)
def test_a_location_elsewhere_or_of_another_kind_is_refused(location: str) -> None:
    """Plain HTTP, to the gateway, by its number."""
    with pytest.raises(MalformedUpnp):
        ssdp.parse_answer(answer(location), SOURCE, GATEWAY)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 100,
        b"HTTP/1.1 404 Not Found\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"NOTIFY * HTTP/1.1\r\nLOCATION: http://192.168.1.1/d\r\n\r\n",
        answer() + b"x" * ssdp.MAX_ANSWER,
    ],
)
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    """Noise, errors, announcements and giants."""
    with pytest.raises(MalformedUpnp):
        ssdp.parse_answer(data, SOURCE, GATEWAY)


def test_another_host_is_not_believed_even_about_the_gateway() -> None:
    """Whoever answers first must not choose where we go."""
    with pytest.raises(MalformedUpnp):
        ssdp.parse_answer(answer(), Address("192.168.1.66", 1900), GATEWAY)


def test_discovery_asks_three_times_and_ends() -> None:
    """Every target goes to the group and to the gateway itself; silence ends the search."""
    discovery = Discovery(GATEWAY)
    discovery.start(0.0)
    rounds = [drain(discovery)]
    while (due := discovery.next_timeout()) is not None:
        discovery.handle_timeout(due)
        rounds.append(drain(discovery))
    assert [len(sent) for sent in rounds] == [10, 10, 14, 0]
    assert len(rounds) == ROUNDS + 1
    assert {destination for destination, _ in rounds[0]} == {ssdp.GROUP_IPV4, SOURCE}
    assert any(b"ssdp:all" in data for _, data in rounds[2])
    assert discovery.next_event() == SearchEnded(0)
    with pytest.raises(UsageError):
        discovery.start(9.0)


def test_discovery_reports_each_location_once_and_stops_asking() -> None:
    """Answers come in duplicate; strangers and liars are counted and change nothing."""
    discovery = Discovery(GATEWAY)
    discovery.start(0.0)
    drain(discovery)
    discovery.receive(answer(), Address("192.168.1.66", 1900), 0.1)
    discovery.receive(answer("http://192.168.1.66/d"), SOURCE, 0.1)
    for _ in range(3):
        discovery.receive(answer(), SOURCE, 0.1)
    discovery.handle_timeout(ROUND_INTERVAL)
    assert drain(discovery) == []
    discovery.handle_timeout(SEARCH_LIMIT)
    found = discovery.next_event()
    assert isinstance(found, LocationFound)
    assert discovery.next_event() == SearchEnded(1)
    assert discovery.counters == {"refused": 2, "repeated": 2}
    discovery.receive(answer(), SOURCE, SEARCH_LIMIT + 1)
    assert discovery.next_event() is None


def test_a_gateway_cannot_report_locations_without_end() -> None:
    """Each would cost a connection."""
    discovery = Discovery(GATEWAY)
    discovery.start(0.0)
    for port in range(1, 50):
        discovery.receive(answer(f"http://{GATEWAY}:{port}/d"), SOURCE, 0.1)
    discovery.handle_timeout(SEARCH_LIMIT)
    events = [discovery.next_event() for _ in range(MAX_LOCATIONS + 2)]
    assert events[-2:] == [SearchEnded(MAX_LOCATIONS), None]
