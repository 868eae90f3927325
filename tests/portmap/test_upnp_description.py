"""Descriptions of gateways, from the orderly to the hostile."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.portmap.upnp import element
from crowline.portmap.upnp.description import MAX_SERVICES, ServiceType, parse_description
from crowline.portmap.upnp.element import MalformedUpnp
from crowline.portmap.upnp.gateway_url import GatewayUrl
from upnp_router import FIREWALL, GATEWAY, LOCATION, PPP, V1, V2, description


def test_services_come_in_order_of_quality() -> None:
    """Version 2 first, PPP after IP, pinholes last; other services are left out."""
    document = description((FIREWALL, "/6"), (PPP, "/p"), (V1, "/1"), (V2, "/2"))
    services = parse_description(document, LOCATION)
    assert [(each.type, each.control.target) for each in services] == [
        (ServiceType.WAN_IP_2, "/2"),
        (ServiceType.WAN_IP_1, "/1"),
        (ServiceType.WAN_PPP_1, "/p"),
        (ServiceType.IPV6_FIREWALL_1, "/6"),
    ]
    assert {each.control.address for each in services} == {Address(GATEWAY, 5000)}


@pytest.mark.parametrize(
    ("control", "port", "target"),
    [
        ("/ctl", 5000, "/ctl"),
        ("ctl", 5000, "/dir/ctl"),
        ("../ctl?x=1&amp;y=2", 5000, "/ctl?x=1&y=2"),
        ("http://192.168.1.1:49152/ctl", 49152, "/ctl"),
        ("HTTP://192.168.1.1/ctl#part", 80, "/ctl"),
        ("  /ctl\n", 5000, "/ctl"),
    ],
)
def test_control_urls_are_resolved(control: str, port: int, target: str) -> None:
    """Absolute and relative ones, as RFC 3986 has it."""
    location = GatewayUrl.parse(f"http://{GATEWAY}:5000/dir/d.xml", GATEWAY)
    (service,) = parse_description(description((V1, control)), location)
    assert service.control == GatewayUrl(Address(GATEWAY, port), target)


@pytest.mark.parametrize(
    "control",
    [
        "http://192.168.1.2/ctl",
        "//44.1.1.1/ctl",
        "https://192.168.1.1/ctl",
        "ftp://192.168.1.1/",
        "http://192.168.1.1:0x50/",
        "http://[::1/ctl",
        "/a b",
        "/a&#13;&#10;Host:x",
        "",
    ],
)
def test_a_control_url_that_leads_elsewhere_is_left_out(control: str) -> None:
    """The other services stay."""
    services = parse_description(description((V1, control), (PPP, "/p")), LOCATION)
    assert [each.type for each in services] == [ServiceType.WAN_PPP_1]


@pytest.mark.parametrize(
    ("base", "port"),
    [
        (f"<URLBase>http://{GATEWAY}:80/up/</URLBase>", 80),
        ("<URLBase>http://44.1.1.1:80/up/</URLBase>", 5000),
        ("<URLBase>http://0.0.0.0/</URLBase>", 5000),
        ("<URLBase></URLBase>", 5000),
    ],
)
def test_a_base_of_another_host_means_where_it_was_found(base: str, port: int) -> None:
    """UPnP 1.0's URLBase counts only when it is the gateway's."""
    (service,) = parse_description(description((V1, "/ctl"), base=base), LOCATION)
    assert service.control.address == Address(GATEWAY, port)


AWKWARD = {
    "tags in capitals": description((V1, "/ctl")).upper().replace(b"<?XML VERSION", b"<?xml version"),
    "types in small letters": description((V1.lower(), "/ctl")),
    "a namespace of its own": description((V1, "/ctl")).replace(b"device-1-0", b"vendor-9"),
    "prefixes that are declared": description((V1, "/ctl"))
    .replace(b"<service", b"<d:service")
    .replace(b"</service", b"</d:service")
    .replace(b"xmlns=", b'xmlns:d="urn:d" xmlns='),
    "prefixes that are not declared": description((V1, "/ctl"))
    .replace(b"<service>", b'<d:service d:x="1">')
    .replace(b"</service>", b"</d:service>"),
    "blank lines and a byte order mark before": b"\xef\xbb\xbf\r\n\r\n " + description((V1, "/ctl")),
    "zero bytes after": description((V1, "/ctl")) + b"\r\n\0\0",
    "Latin-1 where UTF-8 was said": description((V1, "/ctl")).replace(b">x<", b">B\xfcro<"),
    "an unknown encoding": description((V1, "/ctl")).replace(b'"1.0"', b'"1.0" encoding="klingon"'),
    "blanks around the values": description((f"\n  {V1}\t", "\n /ctl ")),
    "comments and CDATA": description((f"<!-- a --><![CDATA[{V1}]]>", "/<!-- b -->ctl")),
    "the same service twice": description((V1, "/ctl"), (V1, "/ctl")),
    "a version nobody knows beside it": description(("urn:x:service:WANIPConnection:9", "/9"), (V1, "/ctl")),
}


@pytest.mark.parametrize("document", AWKWARD.values(), ids=AWKWARD.keys())
def test_an_awkward_description_is_read(document: bytes) -> None:
    """What real routers send, and what means the same."""
    (service,) = parse_description(document, LOCATION)
    assert service.type is ServiceType.WAN_IP_1
    assert service.control.target.lower() == "/ctl"


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
REFUSED = {
    "nothing": b"",
    "no XML": b"\x89PNG\r\n\x1a\n",
    "a web page": b"<html><head><title>Login</title></head><body><br></body></html>",
    "a page that is XML": b"<html><body/></html>",
    "cut off": description((V1, "/ctl"))[:-20],
    "a document type": b"<!DOCTYPE root>" + description((V1, "/ctl")),
    "a million laughs": f'<!DOCTYPE root [<!ENTITY l0 "ha">{LAUGHS}]><root>&l9;</root>'.encode(),
    "an entity from a file": b'<!DOCTYPE r [<!ENTITY e SYSTEM "file:///etc/passwd">]><root>&e;</root>',
    "a document type from afar": b'<!DOCTYPE r SYSTEM "http://44.1.1.1/d.dtd"><root/>',
    "an entity that is not declared": b"<root>&nope;</root>",
    "too long": description((V1, "/ctl")) + b" " * element.MAX_DOCUMENT,
    "too deep": b"<root>" + b"<a>" * element.MAX_DEPTH + b"</a>" * element.MAX_DEPTH + b"</root>",
    "very deep": b"<a>" * (element.MAX_DOCUMENT // 3),
    "too many elements": b"<root>" + b"<a/>" * element.MAX_ELEMENTS + b"</root>",
    "UTF-16": description((V1, "/ctl")).decode().encode("utf-16"),
}


@pytest.mark.parametrize("document", REFUSED.values(), ids=REFUSED.keys())
def test_a_hostile_or_broken_document_is_refused(document: bytes) -> None:
    """With the one error, before it costs anything."""
    with pytest.raises(MalformedUpnp):
        parse_description(document, LOCATION)


def test_depth_and_number_are_allowed_up_to_the_caps() -> None:
    """The caps refuse what is beyond them, and nothing else."""
    depth = element.MAX_DEPTH - 1
    assert element.parse(b"<root>" + b"<a>" * depth + b"</a>" * depth + b"</root>").name == "root"
    assert element.parse(b"<r>" + b"<a/>" * (element.MAX_ELEMENTS - 1) + b"</r>").name == "r"


def test_a_router_cannot_offer_services_without_end() -> None:
    """Each might be asked for its address."""
    document = description(*((V1, f"/{number}") for number in range(50)))
    assert len(parse_description(document, LOCATION)) == MAX_SERVICES
