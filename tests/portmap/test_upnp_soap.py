"""Envelopes out, results and faults in."""

from __future__ import annotations

import pytest

from crowline.base.errors import UsageError
from crowline.portmap.upnp import pinhole_actions as pinholes
from crowline.portmap.upnp import port_actions as ports
from crowline.portmap.upnp.description import Service, ServiceType
from crowline.portmap.upnp.element import parse
from crowline.portmap.upnp.pinhole_actions import FirewallStatus, Pinhole, PinholeProtocol
from crowline.portmap.upnp.port_actions import MappingEntry, PortMapping, Protocol
from crowline.portmap.upnp.soap import (
    MAX_VALUE,
    Action,
    Answered,
    Fault,
    Unanswered,
    parse_outcome,
    write_envelope,
    write_headers,
)
from crowline.portmap.upnp.upnp_error import UpnpError, words_of
from upnp_router import LOCATION, OWN, OWN_IPV6, PUBLIC, V1, fault, success

SERVICE = Service(ServiceType.WAN_IP_1, LOCATION)
MAPPING = PortMapping(Protocol.UDP, 4000, 5000, OWN, 3600)
ASK = ports.get_external_address()
ANSWER = success("GetExternalIPAddress", V1, NewExternalIPAddress=PUBLIC)


def test_a_mapping_is_asked_for_in_the_order_of_the_specification() -> None:
    """Gateways with hand-made parsers read arguments by their place."""
    action = ports.add_port_mapping(MAPPING)
    body = write_envelope(SERVICE, action).decode()
    assert f'<u:AddPortMapping xmlns:u="{V1}"><NewRemoteHost></NewRemoteHost>' in body
    element = parse(body.encode()).find("addportmapping")
    assert element is not None
    assert [(each.name, each.text) for each in element.children] == [
        ("newremotehost", ""),
        ("newexternalport", "4000"),
        ("newprotocol", "UDP"),
        ("newinternalport", "5000"),
        ("newinternalclient", OWN),
        ("newenabled", "1"),
        ("newportmappingdescription", "crowline"),
        ("newleaseduration", "3600"),
    ]
    assert dict(write_headers(SERVICE, action))["SOAPAction"] == f'"{V1}#AddPortMapping"'


def test_the_other_actions_have_their_arguments() -> None:
    """Names and order of each."""
    pinhole = Pinhole(PinholeProtocol.UDP, OWN_IPV6, 5000, 600)
    key = (("NewRemoteHost", ""), ("NewExternalPort", "4000"), ("NewProtocol", "TCP"))
    assert ports.delete_port_mapping(Protocol.TCP, 4000) == Action("DeletePortMapping", key)
    assert ports.get_port_mapping(Protocol.TCP, 4000) == Action("GetSpecificPortMappingEntry", key)
    assert ports.add_any_port_mapping(MAPPING).arguments == ports.add_port_mapping(MAPPING).arguments
    assert pinholes.add_pinhole(pinhole).arguments == (
        ("RemoteHost", ""),
        ("RemotePort", "0"),
        ("InternalClient", OWN_IPV6),
        ("InternalPort", "5000"),
        ("Protocol", "17"),
        ("LeaseTime", "600"),
    )
    assert pinholes.update_pinhole(3, 60).arguments == (("UniqueID", "3"), ("NewLeaseTime", "60"))
    assert pinholes.delete_pinhole(3).arguments == (("UniqueID", "3"),)


def test_values_are_escaped() -> None:
    """No value ends its element."""
    text = "</NewX><a b='\"&amp;"
    body = write_envelope(SERVICE, Action("Say", (("NewX", text),)))
    found = parse(body).find("newx")
    assert found is not None and found.text == text


@pytest.mark.parametrize(
    "value", ["a\nb", "a\0", "\x1b[2J", "\x7f", "\x85", "\ud800", "\ufffe", "x" * (MAX_VALUE + 1)]
)
def test_control_characters_and_giants_are_refused(value: str) -> None:
    """Routers show descriptions to people, and print them into their tables."""
    with pytest.raises(UsageError):
        write_envelope(SERVICE, Action("Say", (("NewX", value),)))
    with pytest.raises(UsageError):
        PortMapping(Protocol.UDP, 4000, 5000, OWN, 3600, value)


@pytest.mark.parametrize(
    ("outside", "inside", "host", "lease"),
    [
        (0, 1, OWN, 1),
        (1, 0, OWN, 1),
        (65536, 1, OWN, 1),
        (1, 1, OWN_IPV6, 1),
        (1, 1, "", 1),
        (1, 1, OWN, 604_801),
    ],
)
def test_an_impossible_mapping_is_misuse(outside: int, inside: int, host: str, lease: int) -> None:
    """Ports, an IPv4 address, at most a week."""
    with pytest.raises(UsageError):
        PortMapping(Protocol.UDP, outside, inside, host, lease)


@pytest.mark.parametrize(
    ("host", "port", "lease"), [(OWN, 1, 1), (OWN_IPV6, 0, 1), (OWN_IPV6, 1, 0), (OWN_IPV6, 1, 86_401)]
)
def test_an_impossible_pinhole_is_misuse(host: str, port: int, lease: int) -> None:
    """An IPv6 address, a port, at most a day."""
    with pytest.raises(UsageError):
        Pinhole(PinholeProtocol.TCP, host, port, lease)


def test_results_are_read() -> None:
    """Each by its own reader."""
    assert ports.read_external_address(Answered({"newexternalipaddress": PUBLIC})) == PUBLIC
    assert ports.read_reserved_port(Answered({"newreservedport": "1024"})) == 1024
    entry = {"newinternalclient": OWN, "newinternalport": "5000", "newleaseduration": "77"}
    assert ports.read_entry(Answered(entry)) == MappingEntry(OWN, 5000, 77)
    assert pinholes.read_identity(Answered({"uniqueid": "7"})) == 7
    status = {"firewallenabled": "true", "inboundpinholeallowed": "0"}
    assert pinholes.read_firewall_status(Answered(status)) == FirewallStatus(True, False)


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "٣", "9" * 30, "99999"])
def test_results_that_make_no_sense_are_none(text: str) -> None:
    """A lying router gives no number, address or port."""
    assert ports.read_external_address(Answered({"newexternalipaddress": text})) is None
    assert ports.read_reserved_port(Answered({"newreservedport": text})) is None
    assert pinholes.read_identity(Answered({"uniqueid": text})) is None
    assert pinholes.read_firewall_status(Answered({"firewallenabled": text})) is None
    assert ports.read_entry(Answered({"newinternalport": text})) is None


AWKWARD = {
    "orderly": ANSWER,
    "in capitals": ANSWER.upper().replace(b"<?XML VERSION", b"<?xml version"),
    "another version of the service": ANSWER.replace(b"WANIPConnection:1", b"WANIPConnection:2"),
    "prefixes that are not declared": ANSWER.replace(b"xmlns:s=", b"a="),
    "no prefix": ANSWER.replace(b"u:", b"")
    .replace(b"s:", b"")
    .replace(b"xmlnu", b"b")
    .replace(b"xmlns", b"c"),
    "blanks around": b"\r\n" + ANSWER.replace(PUBLIC.encode(), f"\n {PUBLIC}\t".encode()) + b"\0",
}


@pytest.mark.parametrize("body", AWKWARD.values(), ids=AWKWARD.keys())
def test_an_awkward_answer_is_understood(body: bytes) -> None:
    """Names count, namespaces do not; no content type is asked for."""
    outcome = parse_outcome(ASK, 200, body)
    assert isinstance(outcome, Answered)
    assert ports.read_external_address(outcome) == PUBLIC


@pytest.mark.parametrize("status", [500, 200, 400])
def test_a_fault_counts_with_any_status(status: int) -> None:
    """Some routers say no with 200."""
    assert parse_outcome(ASK, status, fault(718)) == Fault(UpnpError.CONFLICT)


def test_a_fault_without_a_number_is_a_fault() -> None:
    """Its code is then one that nothing has."""
    assert parse_outcome(ASK, 500, fault(718).replace(b"718", b"none")) == Fault(0)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (302, ANSWER),
        (302, fault(718)),
        (404, b"<html><body>Not Found"),
        (401, b""),
        (500, b""),
        (500, ANSWER),
        (200, success("GetStatusInfo", V1)),
        (200, b"<html/>"),
        (200, b"\xff\xfe"),
        (200, b"<!DOCTYPE a [<!ENTITY b 'c'>]>" + ANSWER),
        (200, ANSWER.replace(b"<u:", b"<a>" * 40 + b"<u:")),
    ],
)
def test_anything_else_is_no_answer(status: int, body: bytes) -> None:
    """Redirects are not followed, and pages, other answers and hostile XML say nothing."""
    outcome = parse_outcome(ASK, status, body)
    assert isinstance(outcome, Unanswered) and outcome.words


def test_an_empty_success_is_one_without_results() -> None:
    """Some routers have nothing to say about what they have done."""
    assert parse_outcome(ports.delete_port_mapping(Protocol.UDP, 1), 200, b" \r\n") == Answered({})


def test_every_code_has_its_words() -> None:
    """And one that nobody knows is named by its number."""
    assert all(code.words for code in UpnpError)
    assert "799" in words_of(799)
    assert "another device" in Fault(718).words
