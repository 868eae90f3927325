"""The address policy against every spelling of every address that must not be talked to."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowline.base.addresses import Address, AddressClass, AddressPolicy, classify, is_shared

NEVER, CLOSED, OPEN = AddressClass.NEVER, AddressClass.CLOSED, AddressClass.OPEN

RANGES = {
    # range: class inside, class just before, class just after
    "0.0.0.0/8": (NEVER, None, OPEN),
    "10.0.0.0/8": (CLOSED, OPEN, OPEN),
    "100.64.0.0/10": (CLOSED, OPEN, OPEN),
    "127.0.0.0/8": (NEVER, OPEN, OPEN),
    "169.254.0.0/16": (CLOSED, OPEN, OPEN),
    "172.16.0.0/12": (CLOSED, OPEN, OPEN),
    "192.0.0.0/24": (CLOSED, OPEN, OPEN),
    "192.0.2.0/24": (CLOSED, OPEN, OPEN),
    "192.88.99.0/24": (NEVER, OPEN, OPEN),
    "192.168.0.0/16": (CLOSED, OPEN, OPEN),
    "198.18.0.0/15": (CLOSED, OPEN, OPEN),
    "198.51.100.0/24": (CLOSED, OPEN, OPEN),
    "203.0.113.0/24": (CLOSED, OPEN, OPEN),
    "224.0.0.0/4": (NEVER, OPEN, NEVER),
    "240.0.0.0/4": (NEVER, NEVER, None),
    "::/96": (NEVER, None, NEVER),
    "64:ff9b:1::/48": (NEVER, NEVER, NEVER),
    "100::/64": (NEVER, NEVER, NEVER),
    "2000::/3": (OPEN, NEVER, NEVER),
    "2001::/32": (NEVER, OPEN, CLOSED),
    "2001:2::/48": (CLOSED, CLOSED, CLOSED),
    "2001:db8::/32": (CLOSED, OPEN, OPEN),
    "2002::/16": (NEVER, OPEN, OPEN),
    "3fff::/20": (CLOSED, OPEN, OPEN),
    "5f00::/16": (NEVER, NEVER, NEVER),
    "fc00::/7": (CLOSED, NEVER, NEVER),
    "fe80::/10": (CLOSED, NEVER, CLOSED),
    "fec0::/10": (CLOSED, CLOSED, NEVER),
    "ff00::/8": (NEVER, CLOSED, None),
}

METADATA = [
    "169.254.169.254", "169.254.170.2", "169.254.170.23", "168.63.129.16", "100.100.100.200", "192.0.0.192",
    "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254",
]  # fmt: skip

# Every spelling for which a flag of the standard library's `ipaddress` gives a wrong answer.
ACCOMPLICES = [
    "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "::ffff:0:127.0.0.1",
    "2002:7f00:1::", "2002:a9fe:a9fe::", "fec0::1", "224.0.0.1", "ff02::1", "168.63.129.16", "192.0.0.192",
    "192.88.99.1", "3fff::1", "5f00::1", "100.64.0.1", "100.100.100.200", "2001:0:53aa:64c::1", "0.0.0.0",
    "::", "::1", "255.255.255.255", "fe80::1", "fd00:ec2::254",
]  # fmt: skip

OPEN_HOSTS = [
    "8.8.8.8",
    "44.1.1.1",
    "1.1.1.1",
    "192.31.196.1",
    "2a01:4f8::1",
    "2606:4700::1111",
    "2620:4f:8000::1",
]


def embeddings(host: str) -> list[str]:
    """The eight ways to hide an IPv4 address in an IPv6 one."""
    packed = ipaddress.IPv4Address(host).packed
    inverted = bytes(255 - byte for byte in packed)
    forms = [
        bytes(10) + b"\xff\xff" + packed,
        bytes(8) + b"\xff\xff\0\0" + packed,
        bytes(12) + packed,
        bytes.fromhex("0064ff9b") + bytes(8) + packed,
        bytes.fromhex("0064ff9b0001") + bytes(6) + packed,
        b"\x20\x02" + packed + bytes(10),
        bytes.fromhex("20010000") + packed + bytes(4) + inverted,
        bytes.fromhex("2a0104f800000000") + bytes.fromhex("00005efe") + packed,
    ]
    return [str(ipaddress.IPv6Address(form)) for form in forms]


def permitted(host: str, policy: AddressPolicy | None = None) -> bool:
    return (policy or AddressPolicy()).permits(Address(host, 9))


@pytest.mark.parametrize("name", RANGES)
def test_range_edges(name: str) -> None:
    """First and last address of each range, and the neighbours outside, have exactly their class."""
    network = ipaddress.ip_network(name)
    inside, before, after = RANGES[name]
    assert classify(str(network[0])) == inside
    assert classify(str(network[-1])) == inside
    if before is not None:
        assert classify(str(network[0] - 1)) == before
    if after is not None:
        assert classify(str(network[-1] + 1)) == after


@pytest.mark.parametrize("host", ACCOMPLICES)
def test_spellings_that_fool_the_standard_library(host: str) -> None:
    """None of the addresses that `ipaddress` calls global or public is permitted."""
    assert classify(host) > OPEN
    assert not permitted(host)


@pytest.mark.parametrize("name", [name for name in RANGES if "." in name])
def test_eight_embeddings_of_each_range(name: str) -> None:
    """No way to hide an address of a denied range in an IPv6 address opens it."""
    network = ipaddress.ip_network(name)
    for inner in (network[0], network[1], network[-1]):
        for form in embeddings(str(inner)):
            assert classify(form) >= RANGES[name][0], form
            assert not permitted(form), form


@pytest.mark.parametrize("host", METADATA)
def test_metadata_is_never_opened(host: str) -> None:
    """No range, however wide, opens a metadata service or a way to spell it."""
    everything = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    policy = AddressPolicy(everything, allow_loopback=True)
    for form in [host, *(embeddings(host) if "." in host else [])]:
        assert classify(form) is NEVER
        assert not permitted(form, policy)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "ff02::1"]
)
def test_no_range_opens_what_is_never(host: str) -> None:
    """Loopback, multicast, broadcast and the unspecified address stay closed to the widest range."""
    everything = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    assert not permitted(host, AddressPolicy(everything))


def test_loopback_switch_opens_loopback_only() -> None:
    """The switch for tests opens 127/8 and ::1 and nothing else."""
    policy = AddressPolicy(allow_loopback=True)
    assert permitted("127.0.0.1", policy)
    assert permitted("127.9.9.9", policy)
    assert permitted("::1", policy)
    for host in ("10.0.0.1", "0.0.0.0", "::", "169.254.169.254", "::127.0.0.1", "2002:7f00:1::"):
        assert not permitted(host, policy)


@pytest.mark.parametrize("host", OPEN_HOSTS)
def test_global_unicast_is_open(host: str) -> None:
    """Ordinary addresses of the internet are permitted without any range."""
    assert classify(host) is OPEN
    assert permitted(host)


@pytest.mark.parametrize("host", ["::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_transparent_forms_of_open_addresses_are_open(host: str) -> None:
    """Mapped and NAT64 forms are judged by the address inside."""
    assert permitted(host)


def test_named_ranges_open_exactly_themselves() -> None:
    """A range opens its closed addresses to the bit, also where it does not end on a byte boundary."""
    policy = AddressPolicy([ipaddress.ip_network("10.64.0.0/11"), ipaddress.ip_network("fd12:3440::/27")])
    assert permitted("10.64.0.0", policy)
    assert permitted("10.95.255.255", policy)
    assert not permitted("10.63.255.255", policy)
    assert not permitted("10.96.0.0", policy)
    assert permitted("fd12:3440::1", policy)
    assert permitted("fd12:345f:ffff::1", policy)
    assert not permitted("fd12:343f:ffff::1", policy)
    assert not permitted("fd12:3460::1", policy)
    assert permitted("::ffff:10.64.0.1", policy)
    assert not permitted("2002:a40:1::", policy)


@pytest.mark.parametrize(
    "host", ["fe80::1%1", "fe80::1%eth0", "example.org", "", "1.2.3", "0x7f.1", "017700000001", "１.1.1.1"]
)
def test_what_is_no_address_is_never(host: str) -> None:
    """Names, zones and creative spellings of numbers are not addresses."""
    assert classify(host) is NEVER
    assert not permitted(host, AddressPolicy([ipaddress.ip_network("::/0")], allow_loopback=True))


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_impossible_ports_are_refused(port: int) -> None:
    """Port 0 and ports out of range are refused, whatever the address."""
    assert not AddressPolicy().permits(Address("8.8.8.8", port))


@given(st.ip_addresses(v=4))
def test_hiding_never_helps(host: ipaddress.IPv4Address) -> None:
    """No embedding of any IPv4 address is judged milder than the address itself."""
    plain = classify(str(host))
    assert all(classify(form) >= plain for form in embeddings(str(host)))


@given(st.ip_addresses(v=6))
def test_ipv6_outside_global_unicast_is_not_open(host: ipaddress.IPv6Address) -> None:
    """Outside 2000::/3 only the two transparent prefixes can be open."""
    if host in ipaddress.IPv6Network("2000::/3") or host.ipv4_mapped is not None:
        return
    if host in ipaddress.IPv6Network("64:ff9b::/96"):
        return
    assert classify(str(host)) > OPEN


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("100.63.255.255", False),
        ("100.64.0.0", True),
        ("100.127.255.255", True),
        ("100.128.0.0", False),
        ("2001:db8::1", False),
        ("no address", False),
    ],
)
def test_what_carriers_share_is_known(host: str, expected: bool) -> None:
    """The range of RFC 6598, and nothing else."""
    assert is_shared(host) is expected
