"""The laboratory's UPnP gateways: each behaves as its name says, and our client gets what can be had."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crowline.base.addresses import Address
from crowline.lab.behaviour import TCP, UDP
from crowline.lab.router_temper import PLAIN, STRANGER, WORKING, ZOO
from crowline.lab.upnp_http import HttpAsked
from crowline.portmap.upnp.events import MapFailed, Mapped, NoService, Outside, OutsideAddress
from crowline.portmap.upnp.upnp_error import UpnpError
from upnp_zoo import GATEWAY, HOST, OUTSIDE, PORT, ZooPair, locations, search

INSIDE = Address(HOST, PORT)
UNREADABLE = ("silent", "redirecting", "giant", "deep", "entities", "half", "login-page")


@pytest.mark.parametrize("name", WORKING)
def test_a_port_is_opened_and_closed(name: str) -> None:
    """A stranger gets in by the port that the client was told, and after the end nobody does."""
    pair = ZooPair(name)
    pair.start()
    key = pair.client.open(pair.wanted(), pair.now)
    pair.run(60.0)
    (mapped,) = pair.said(Mapped)
    assert mapped.outside == Address(OUTSIDE, mapped.port)
    assert pair.enters(mapped.port) == INSIDE
    pair.client.release(key, pair.now)
    pair.run(60.0)
    assert pair.enters(mapped.port) is None
    assert pair.device.mappings(pair.now) == {}
    assert pair.said(MapFailed) == []


@pytest.mark.parametrize("name", [name for name in WORKING if name != "jealous"])
def test_what_is_open_stays_open(name: str) -> None:
    """For six hours, and at every minute of them, without a second outside port."""
    pair = ZooPair(name)
    pair.start()
    pair.client.open(pair.wanted(), pair.now)
    pair.run(60.0)
    (mapped,) = pair.said(Mapped)
    for _ in range(360):
        pair.run(60.0)
        assert pair.enters(mapped.port) == INSIDE
    assert len(pair.said(Mapped)) == 1


def test_a_router_that_renews_nothing_is_asked_anew() -> None:
    """The mapping is deleted and made again, at the same port, so that nobody has to be told."""
    pair = ZooPair("jealous")
    pair.start()
    pair.client.open(pair.wanted(lease=600), pair.now)
    pair.run(7200.0)
    (mapped,) = pair.said(Mapped)
    assert pair.enters(mapped.port) == INSIDE
    assert pair.device.counters["DeletePortMapping"] > 10


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_router_without_a_readable_description_is_given_up(name: str) -> None:
    """Nothing is asked but its description, and the reason is a phrase."""
    pair = ZooPair(name)
    pair.start()
    (reason,) = pair.said(NoService)
    assert reason.words
    assert [request.method for request in pair.asked] == ["GET"]
    assert all(request.url.address.host == GATEWAY for request in pair.asked)


def test_a_router_that_allows_nothing_says_so() -> None:
    """The refusal is final: it is not asked again and again."""
    pair = ZooPair("locked")
    pair.start()
    pair.client.open(pair.wanted(), pair.now)
    pair.run(3600.0)
    (failed,) = pair.said(MapFailed)
    assert failed.code == UpnpError.NOT_AUTHORIZED
    assert pair.device.counters["AddPortMapping"] == 1


@pytest.mark.parametrize(
    ("name", "worth"),
    [
        ("plain", Outside.PUBLIC),
        ("liar", Outside.PRIVATE),
        ("behind-another", Outside.PRIVATE),
        ("homeless", Outside.ABSENT),
    ],
)
def test_the_outside_address_is_judged(name: str, worth: Outside) -> None:
    """One that nobody can reach is told from one that everybody can."""
    pair = ZooPair(name)
    pair.start()
    (outside,) = pair.said(OutsideAddress)
    assert outside.worth is worth


def test_a_public_lie_is_repeated_for_others_to_judge() -> None:
    """Only a STUN server's answer shows that it is one."""
    pair = ZooPair(replace(ZOO["liar"], outside="44.200.0.1"))
    pair.start()
    pair.client.open(pair.wanted(), pair.now)
    pair.run(60.0)
    assert pair.said(Mapped)[0].outside == Address("44.200.0.1", PORT)


def test_a_yes_man_is_found_out_by_nobody_but_a_stranger() -> None:
    """It lists the mapping and passes nothing: what it says is no proof."""
    pair = ZooPair("yes-man")
    pair.start()
    pair.client.open(pair.wanted(), pair.now)
    pair.run(60.0)
    assert pair.said(Mapped)[0].is_verified
    assert pair.enters(PORT) is None


def test_a_restarted_router_is_given_its_mappings_again() -> None:
    """As soon as somebody has noticed, at the same port."""
    pair = ZooPair("plain")
    pair.start()
    pair.client.open(pair.wanted(), pair.now)
    pair.run(60.0)
    pair.device.restart(pair.now)
    assert pair.enters(PORT) is None
    pair.client.refresh(pair.now)
    pair.run(10.0)
    assert pair.enters(PORT) == INSIDE


def test_what_is_forgotten_is_opened_again_at_its_renewal() -> None:
    """Nothing tells of it earlier; a short lease bounds how long it is."""
    pair = ZooPair("forgetful")
    pair.start()
    pair.client.open(pair.wanted(lease=300), pair.now)
    pair.run(30.0)
    assert pair.enters(PORT) == INSIDE
    pair.run(60.0)
    assert pair.enters(PORT) is None
    pair.run(80.0)
    assert pair.enters(PORT) == INSIDE


def test_nobody_maps_ports_for_another_host() -> None:
    """Neither opening nor closing, whatever a request says."""
    pair = ZooPair("plain")
    pair.start()
    pair.client.open(pair.wanted(), pair.now)
    pair.run(60.0)
    (request,) = [each for each in pair.asked if b"AddPortMapping" in each.body]
    headers = {name.lower(): value for name, value in request.headers}
    for body in (request.body, request.body.replace(b"AddPort", b"DeletePort")):
        soap = headers["soapaction"].replace("AddPort", "DeletePort" if b"DeletePort" in body else "AddPort")
        asked = HttpAsked("POST", request.url.target, {**headers, "soapaction": soap}, body)
        reply = pair.device.answer(asked, "192.168.1.66", pair.now)
        assert reply is not None
        assert reply.status == 500
        assert b"606" in reply.body
    assert pair.enters(PORT) == INSIDE


def test_udp_and_tcp_are_apart() -> None:
    """A port of the one is closed in the other."""
    pair = ZooPair("plain")
    pair.start()
    pair.client.open(pair.wanted(), pair.now)
    pair.run(60.0)
    assert list(pair.device.mappings(pair.now)) == [(UDP, PORT)]
    assert pair.nat.inbound(TCP, Address(OUTSIDE, PORT), Address("44.9.0.1", 7), pair.now) is None


def test_searches_find_the_description() -> None:
    """One location, however often and for whatever it was asked; also of a device that stutters."""
    for name in ("plain", "version-1", "stutterer"):
        device = ZooPair(name).device
        assert locations(search(device)) == [f"http://{GATEWAY}:5000/rootDesc.xml"]


@pytest.mark.parametrize("name", ["elsewhere", "ventriloquist"])
def test_who_speaks_for_another_is_not_heard(name: str) -> None:
    """Neither an answer of another host counts, nor a location on one."""
    device = ZooPair(name).device
    assert locations(search(device)) == []
    assert device.counters["search"] > 0
    assert STRANGER in (ZOO[name].location_host, ZOO[name].speaks_from)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"NOTIFY * HTTP/1.1\r\n\r\n",
        b'M-SEARCH * HTTP/1.1\nMAN: "ssdp:discover"\nST: ssdp:all\n\n',
        b'M-SEARCH * HTTP/1.1\r\nMAN: "ssdp:discover"\r\nST: urn:schemas-upnp-org:device:Printer:1\r\n\r\n',
        b"M-SEARCH * HTTP/1.1\r\nST: ssdp:all\r\n\r\n",
    ],
)
def test_what_is_no_search_for_a_gateway_is_not_answered(data: bytes) -> None:
    """Lines must end as HTTP's do, and it must be a search, and for something that the box is."""
    assert ZooPair("plain").device.search(data) == []


def test_every_router_says_what_is_odd_about_it() -> None:
    """Each has a sentence of its own, and differs from the plain one."""
    assert len({temper.summary for temper in ZOO.values()}) == len(ZOO)
    assert all(replace(temper, summary="") != replace(PLAIN, summary="") for temper in list(ZOO.values())[1:])
    assert set(WORKING) <= set(ZOO)
