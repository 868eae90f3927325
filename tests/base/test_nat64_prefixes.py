"""NAT64 prefixes: IPv4 hosts as IPv6 ones, and a prefix found in what a resolver or a router says."""

from __future__ import annotations

import ipaddress
import struct

import hypothesis.strategies as st
import pytest
from hypothesis import given

from crowline.base.nat64 import (
    MAX_PREFIXES,
    PREFIX_LENGTHS,
    WELL_KNOWN_HOSTS,
    Nat64Prefix,
    Pref64,
    find_prefixes,
    read_pref64,
)

# RFC 6052 §2.4: prefix, and what 192.0.2.33 is written as.
EXAMPLES = [
    ("2001:db8::/32", "2001:db8:c000:221::"),
    ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
    ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
    ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
    ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
    ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
    ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
]


def plain(host: str) -> str:
    return str(ipaddress.ip_address(host))


@pytest.mark.parametrize(("prefix", "host"), EXAMPLES)
def test_rfc_6052_examples(prefix: str, host: str) -> None:
    """Each of the six lengths puts the four bytes elsewhere, around bits 64 to 71."""
    read = Nat64Prefix.parse(prefix)
    assert read.synthesize("192.0.2.33") == plain(host)
    assert read.extract(plain(host)) == "192.0.2.33"
    assert str(read) == prefix


@pytest.mark.parametrize("prefix", [prefix for prefix, _ in EXAMPLES])
def test_a_prefix_is_found_in_the_well_known_addresses(prefix: str) -> None:
    """RFC 7050 §3: either of the two is enough."""
    read = Nat64Prefix.parse(prefix)
    both = [read.synthesize(host) for host in WELL_KNOWN_HOSTS]
    assert find_prefixes(both) == [read]
    assert find_prefixes(both[:1]) == find_prefixes(both[1:]) == [read]


def test_several_prefixes_are_found_in_order_and_bounded() -> None:
    """A network that changes its prefix has two for a while; a resolver may say a thousand."""
    prefixes = [Nat64Prefix.parse(f"2001:db8:{number:x}::/96") for number in range(1, 1000)]
    hosts = [prefix.synthesize("192.0.0.170") for prefix in prefixes]
    assert find_prefixes(hosts[:2]) == prefixes[:2]
    assert find_prefixes(hosts) == prefixes[:MAX_PREFIXES]


def test_an_ambiguous_address_is_read_with_the_help_of_the_other() -> None:
    """The prefix may have a well-known address in it, too: the place at which it changes is right."""
    prefix = Nat64Prefix.parse("2001:db8:c000:aa::/96")  # 192.0.0.170 at /32 as well
    first, second = (prefix.synthesize(host) for host in WELL_KNOWN_HOSTS)
    assert find_prefixes([first]) == []
    assert find_prefixes([first, second]) == [prefix]


@pytest.mark.parametrize(
    "host",
    [
        "2001:db8::1",
        "::ffff:192.0.0.170",
        "fe80::192.0.0.170",
        "2002::192.0.0.170",
        "192.0.0.170",
        "name",
        "::",
    ],
)
def test_other_addresses_say_nothing(host: str) -> None:
    """Native ones, ranges in which nobody translates, and what is no IPv6 address."""
    assert find_prefixes([host]) == []


@pytest.mark.parametrize(
    "text", ["64:ff9b::/95", "2001:db8::/128", "::ffff:0:0/96", "2001:db8:0:0:100::/96", "x"]
)
def test_what_is_no_prefix_is_refused(text: str) -> None:
    """Lengths that do not exist, mapped addresses, bits 64 to 71."""
    with pytest.raises(ValueError):
        Nat64Prefix.parse(text)


def test_hosts_outside_a_prefix_stand_for_themselves() -> None:
    """Other networks, IPv4, and text."""
    prefix = Nat64Prefix.parse("64:ff9b::/96")
    assert prefix.extract("64:ff9b:1::1") is prefix.extract("192.0.2.1") is prefix.extract("name") is None
    with pytest.raises(ValueError, match="name"):
        prefix.synthesize("name")


def pref64(prefix: str, code: int, lifetime: int = 600, kind: int = 38, units: int = 2) -> bytes:
    start = ipaddress.ip_address(prefix).packed[:12]
    return struct.pack("!BBH", kind, units, lifetime & ~7 | code) + start


@pytest.mark.parametrize(("code", "length"), list(enumerate(reversed(PREFIX_LENGTHS))))
def test_a_router_says_a_prefix_of_any_length(code: int, length: int) -> None:
    """RFC 8781 §4: lifetime in units of eight seconds, the length as a code."""
    said = read_pref64(pref64("2001:db8:1:2::", code))
    network = ipaddress.IPv6Network(("2001:db8:1:2::", length), strict=False)
    assert said == Pref64(Nat64Prefix(network), 600)


def test_a_router_takes_a_prefix_back() -> None:
    """With a lifetime of zero."""
    said = read_pref64(pref64("64:ff9b::", 0, lifetime=0))
    assert said is not None
    assert said.lifetime == 0


@pytest.mark.parametrize(
    "option",
    [
        b"",
        pref64("64:ff9b::", 6),
        pref64("64:ff9b::", 0, kind=25),
        pref64("64:ff9b::", 0, units=3),
        pref64("64:ff9b::", 0)[:-1],
        pref64("ff02::", 0),
    ],
    ids=["empty", "length-code", "kind", "units", "cut", "multicast"],
)
def test_broken_options_say_nothing(option: bytes) -> None:
    """Unknown lengths, other options, cut ones, and ranges in which nobody translates."""
    assert read_pref64(option) is None


@given(st.sampled_from(PREFIX_LENGTHS), st.integers(0, 2**96 - 1), st.ip_addresses(v=4))
def test_what_is_written_is_read_again(length: int, bits: int, host: ipaddress.IPv4Address) -> None:
    """For every prefix that is one, and every host."""
    network = ipaddress.IPv6Network((bits << 32, length), strict=False)
    try:
        prefix = Nat64Prefix(network)
    except ValueError:
        return
    assert prefix.extract(prefix.synthesize(str(host))) == str(host)


@given(st.lists(st.ip_addresses(v=6).map(str), max_size=8), st.binary(max_size=20))
def test_any_answer_is_read_without_an_error(hosts: list[str], option: bytes) -> None:
    """Resolvers and routers are strangers."""
    assert len(find_prefixes(hosts)) <= MAX_PREFIXES
    read_pref64(option)
