"""What Linux says of links, addresses and routes, read from bytes."""

from __future__ import annotations

import ipaddress
import struct

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from crowline.net import rtnetlink as rt

UNICAST, BLACKHOLE = 1, 6  # linux/rtnetlink.h
INET, INET6 = 2, 10


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, body: bytes, *, flags: int = 0, sequence: int = 7) -> bytes:
    whole = struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body
    return whole + bytes(-len(whole) % 4)


def packed(host: str) -> bytes:
    return ipaddress.ip_address(host).packed


def link_body(name: bytes = b"wg0\0", kind: bytes = b"wireguard\0") -> bytes:
    info = attribute(18, attribute(1, kind) + attribute(2, b"whatever"))
    return struct.pack("=BxHiII", 0, 0xFFFE, 5, rt.UP | rt.RUNNING, 0) + attribute(3, name) + info


def address_body(family: int, prefix: int, *attributes: bytes, flags: int = 0) -> bytes:
    return struct.pack("=BBBBI", family, prefix, flags, 0, 5) + b"".join(attributes)


def route_body(family: int, kind: int, *attributes: bytes) -> bytes:
    return struct.pack("=8BI", family, 0, 0, 0, 254, 3, 0, kind, 0) + b"".join(attributes)


def option_body(options: bytes, *, size: int | None = None, kind: int = 134, family: int = INET6) -> bytes:
    length = len(options) if size is None else size
    return struct.pack("=BxHiBB6x", family, length, 5, kind, 0) + options


def view(data: bytes) -> memoryview:
    return memoryview(data)


def test_messages_of_one_read_follow_each_other() -> None:
    """Each begins at a multiple of four bytes."""
    data = message(rt.NEW_LINK, b"abc", flags=2) + message(rt.NLMSG_DONE, b"")
    first, second = rt.messages(view(data))
    assert (first.type, first.flags, first.sequence, bytes(first.payload)) == (rt.NEW_LINK, 2, 7, b"abc")
    assert second.type == rt.NLMSG_DONE


@pytest.mark.parametrize("length", [0, 15, 17, 0xFFFFFFFF])
def test_an_impossible_length_ends_the_read(length: int) -> None:
    """Shorter than a header, or longer than what is there; what came before it counts."""
    broken = struct.pack("=IHHII", length, rt.NEW_LINK, 0, 7, 0)
    assert [each.type for each in rt.messages(view(message(rt.NLMSG_DONE, b"") + broken))] == [rt.NLMSG_DONE]


def test_a_link_has_a_name_and_a_kind() -> None:
    """The kind stands in an attribute inside of another."""
    assert rt.read_link(view(link_body())) == rt.Link(5, "wg0", "wireguard", 0xFFFE, rt.UP | rt.RUNNING)


def test_names_are_bounded_and_text() -> None:
    """Whatever bytes a name has, it is short text."""
    link = rt.read_link(view(link_body(name=b"\xff" * 5000)))
    assert link is not None
    assert len(link.name) == rt.MAX_NAME + 1


def test_an_address_is_the_local_one() -> None:
    """On a tunnel the other attribute is the other end."""
    both = attribute(1, packed("192.0.2.2")), attribute(2, packed("192.0.2.1"))
    for attributes in (both, both[::-1]):
        found = rt.read_address(view(address_body(INET, 32, *attributes)))
        assert found == rt.LinkAddress(5, "192.0.2.1", 32, 0)


def test_the_flags_of_an_address_are_the_long_ones() -> None:
    """The header has eight bits of them, an attribute all."""
    host = attribute(1, packed("2001:db8::1"))
    short = rt.read_address(view(address_body(INET6, 64, host, flags=rt.TENTATIVE)))
    assert short == rt.LinkAddress(5, "2001:db8::1", 64, rt.TENTATIVE)
    flags = attribute(8, struct.pack("=I", rt.TEMPORARY | 0x800))
    long = rt.read_address(view(address_body(INET6, 64, host, flags, flags=rt.TENTATIVE)))
    assert long == rt.LinkAddress(5, "2001:db8::1", 64, rt.TEMPORARY | 0x800)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        address_body(INET, 24),
        address_body(INET, 33, attribute(1, packed("192.0.2.1"))),
        address_body(INET6, 129, attribute(1, packed("2001:db8::1"))),
        address_body(INET, 24, attribute(1, packed("2001:db8::1"))),
        address_body(17, 24, attribute(1, packed("192.0.2.1"))),
        address_body(INET, 24, struct.pack("=HH", 3, 1) + packed("192.0.2.1")),
        address_body(INET, 24, struct.pack("=HH", 9, 1) + packed("192.0.2.1")),
    ],
    ids=["empty", "bare", "bits4", "bits6", "family", "other-family", "short", "long"],
)
def test_an_address_that_makes_no_sense_is_none(body: bytes) -> None:
    """Without an address, with too many bits, of the wrong size, with attributes of impossible length."""
    assert rt.read_address(view(body)) is None


def test_a_route_says_where_packets_go() -> None:
    """Device, next hop and source."""
    device = attribute(4, struct.pack("=I", 5))
    hops = attribute(5, packed("192.0.2.254")), attribute(7, packed("192.0.2.1"))
    found = rt.read_route(view(route_body(INET, UNICAST, device, *hops)))
    assert found == rt.RouteStep(5, "192.0.2.254", "192.0.2.1")
    assert rt.read_route(view(route_body(INET, UNICAST, device))) == rt.RouteStep(5, "", "")


def test_a_route_to_nowhere_is_none() -> None:
    """Black holes, and routes without a device."""
    device = attribute(4, struct.pack("=I", 5))
    assert rt.read_route(view(route_body(INET, BLACKHOLE, device))) is None
    assert rt.read_route(view(route_body(INET, UNICAST))) is None
    assert rt.read_route(view(b"")) is None


def test_router_options_are_cut_at_their_lengths() -> None:
    """Units of eight bytes, up to the first that is empty or too long."""
    one, two = bytes([38, 2]) + bytes(14), bytes([25, 1]) + bytes(6)
    found = rt.read_router_option(view(option_body(one + two) + attribute(1, b"source")))
    assert found == rt.RouterOption(5, one + two)
    assert list(rt.each_option(one + two)) == [one, two]
    assert list(rt.each_option(one + bytes(8) + two)) == [one]
    assert list(rt.each_option(one + b"\x19\x09" + bytes(6))) == [one]


@pytest.mark.parametrize(
    "body",
    [b"", option_body(b"", size=8), option_body(bytes(8), kind=137), option_body(bytes(8), family=INET)],
    ids=["empty", "cut", "redirect", "family"],
)
def test_what_is_no_router_advertisement_is_none(body: bytes) -> None:
    """Broken ones, and those of another kind."""
    assert rt.read_router_option(view(body)) is None


def test_errors_have_their_number() -> None:
    """The kernel says it negative; 0 is no error."""
    assert rt.read_error(view(struct.pack("=i", -101))) == 101
    assert rt.read_error(view(b"")) == 0


def test_questions_read_as_messages() -> None:
    """What is asked has the form of what is told."""
    (dump,) = rt.messages(view(rt.dump_request(rt.GET_LINK, 3)))
    assert (dump.type, dump.flags, dump.sequence) == (rt.GET_LINK, rt.NLM_F_REQUEST | rt.NLM_F_DUMP, 3)
    for host in ("192.0.2.1", "2001:db8::1"):
        (route,) = rt.messages(view(rt.route_request(host, 4)))
        assert (route.type, route.flags, route.sequence) == (rt.GET_ROUTE, rt.NLM_F_REQUEST, 4)
        assert bytes(route.payload).endswith(packed(host))


@given(st.binary(max_size=300))
@example(message(rt.NEW_LINK, link_body()))
@example(message(rt.NEW_ADDRESS, address_body(INET, 24, attribute(1, packed("192.0.2.1")))))
def test_any_bytes_are_read_without_an_error(data: bytes) -> None:
    """Every reader takes every payload, and looks at each byte at most once on its level."""
    assert len(list(rt.messages(view(data)))) <= len(data) // 16
    for read in (rt.read_link, rt.read_address, rt.read_route, rt.read_router_option, rt.read_error):
        read(view(data))
        for found in rt.messages(view(data)):
            read(found.payload)
    assert sum(map(len, rt.each_option(data))) <= len(data)
