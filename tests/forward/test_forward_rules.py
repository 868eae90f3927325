"""What people write: rules as `ssh` has them, and patterns of what is allowed."""

from __future__ import annotations

import pytest

from crowline.base.errors import UsageError
from crowline.forward.permits import Permit, Permits, parse_listen_permit
from crowline.forward.rules import (
    Dynamic,
    Local,
    Remote,
    Target,
    parse_dynamic,
    parse_local,
    parse_remote,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080:web.example:80", Local("tcp", Target("127.0.0.1", 8080), Target("web.example", 80))),
        ("0.0.0.0:8080:web.example:80", Local("tcp", Target("0.0.0.0", 8080), Target("web.example", 80))),
        ("*:8080:web.example:80", Local("tcp", Target("0.0.0.0", 8080), Target("web.example", 80))),
        (":8080:web.example:80", Local("tcp", Target("127.0.0.1", 8080), Target("web.example", 80))),
        ("[::1]:53:[2001:db8::1]:5353/udp", Local("udp", Target("::1", 53), Target("2001:db8::1", 5353))),
        ("0:192.0.2.7:22/tcp", Local("tcp", Target("127.0.0.1", 0), Target("192.0.2.7", 22))),
        ("3000", Local("tcp", Target("127.0.0.1", 3000), Target("localhost", 3000))),
        ("3000/udp", Local("udp", Target("127.0.0.1", 3000), Target("localhost", 3000))),
    ],
)
def test_rules_read_as_people_know_them(text: str, expected: Local) -> None:
    """The same notation for both directions."""
    assert parse_local(text) == expected
    assert parse_remote(text) == Remote(expected.transport, expected.bind, expected.target)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a:b",
        "80:host",
        "80:host:",
        "80::80",
        "80:host:0",
        "80:host:65536",
        "80:host:٣",
        "-1:host:80",
        "80:host:80/sctp",
        "80:host:80/",
        "1:2:3:4:5",
        "80:[::1:80",
        "80:::1:80",
        "8_0:host:80",
        f"80:{'x' * 300}:80",
        f"{'x' * 300}:80:host:80",
        "80:a host:80",
    ],
)
def test_what_is_no_rule_is_refused_with_an_example(text: str) -> None:
    """The hint shows what one looks like."""
    with pytest.raises(UsageError) as caught:
        parse_local(text)
    assert "host.example.org" in caught.value.hint


def test_a_socks_server_has_a_port_and_perhaps_an_address() -> None:
    """For this machine's programs unless another address is named."""
    assert parse_dynamic("1080") == Dynamic(Target("127.0.0.1", 1080))
    assert parse_dynamic("[::]:1080") == Dynamic(Target("::", 1080))
    for text in ("", "host", "1080:host:80"):
        with pytest.raises(UsageError):
            parse_dynamic(text)


# pattern, host as named, address it leads to, port, allowed
CASES = [
    ("web.example:80", "web.example", "192.0.2.7", 80, True),
    ("web.example:80", "WEB.example.", "127.0.0.1", 80, True),
    ("web.example:80", "web.example", "192.0.2.7", 81, False),
    ("web.example:80", "other.example", "192.0.2.7", 80, False),
    ("web.example:80-90", "web.example", "192.0.2.7", 85, True),
    ("web.example:*", "web.example", "192.0.2.7", 65535, True),
    ("192.0.2.7:22", "192.0.2.7", "192.0.2.7", 22, True),
    ("192.0.2.7:22", "named.example", "192.0.2.7", 22, True),
    ("192.0.2.7:22", "::ffff:192.0.2.7", "::ffff:192.0.2.7", 22, True),
    ("192.0.2.7:22", "192.0.2.8", "192.0.2.8", 22, False),
    ("192.168.1.0/24:*", "nas", "192.168.1.20", 445, True),
    ("192.168.1.0/24:*", "192.168.2.1", "192.168.2.1", 445, False),
    ("[2001:db8::/32]:443", "2001:db8::5", "2001:db8::5", 443, True),
    ("localhost:80", "localhost", "127.0.0.1", 80, True),
    ("localhost:80", "::1", "::1", 80, True),
    ("localhost:80", "localhost", "192.0.2.7", 80, False),
    ("*:443", "example.org", "8.8.8.8", 443, True),
    ("*:443", "8.8.8.8", "8.8.8.8", 443, True),
    ("*:*", "localhost", "127.0.0.1", 80, False),
    ("*:*", "evil.example", "127.0.0.1", 80, False),
    ("*:*", "evil.example", "::1", 80, False),
    ("*:*", "evil.example", "::ffff:127.0.0.1", 80, False),
    ("*:*", "evil.example", "64:ff9b::7f00:1", 80, False),
    ("*:*", "evil.example", "10.0.0.1", 80, False),
    ("*:*", "evil.example", "fe80::1%eth0", 80, False),
    ("*:*", "evil.example", "169.254.169.254", 80, False),
    ("*:*", "evil.example", "0.0.0.0", 80, False),
    ("*.example.org:443", "www.example.org", "8.8.8.8", 443, True),
    ("*.example.org:443", "www.example.org", "192.168.1.1", 443, False),
    ("*.example.org:443", "example.org", "8.8.8.8", 443, False),
    ("*.example.org:443", "evilexample.org", "8.8.8.8", 443, False),
    ("*.example.org:443", "8.8.8.8", "8.8.8.8", 443, False),
    ("mcast.example:*", "mcast.example", "224.0.0.251", 5353, False),
    ("0.0.0.0/0:*", "255.255.255.255", "255.255.255.255", 9, False),
]


@pytest.mark.parametrize(("pattern", "host", "address", "port", "allowed"), CASES)
def test_a_pattern_allows_what_it_says(
    pattern: str, host: str, address: str, port: int, allowed: bool
) -> None:
    """A star is the internet: no name and no form of an address makes it this machine or its network."""
    assert Permits([Permit.parse(pattern)]).choose(host, port, [address]) == [address] * allowed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host:",
        ":80",
        "host:0",
        "host:90-80",
        "ho*st:80",
        "*.*.x:80",
        "a:-1",
        "a:1-",
        "a:٣",
        "a b:80",
        "192.0.2.0/33:80",
    ],
)
def test_what_is_no_pattern_is_refused(text: str) -> None:
    """With an example."""
    with pytest.raises(UsageError):
        Permit.parse(text)


@pytest.mark.parametrize(
    ("permit", "address", "port", "allowed"),
    [
        ("9000", "127.0.0.1", 9000, True),
        ("9000", "::1", 9000, True),
        ("9000", "127.0.0.1", 9001, False),
        ("9000", "0.0.0.0", 9000, False),
        ("0.0.0.0:9000", "0.0.0.0", 9000, True),
        ("[::]:9000", "::", 9000, True),
        ("192.168.1.7:9000-9010", "192.168.1.7", 9005, True),
        ("192.168.1.7:9000", "192.168.1.8", 9000, False),
        ("*:9000", "0.0.0.0", 9000, True),
        ("*:9000", "192.168.1.7", 9000, True),
        ("9000", "127.0.0.1", 0, False),
        ("*", "127.0.0.1", 0, True),
        ("*", "0.0.0.0", 80, False),
        ("*:*", "web.example", 80, False),
    ],
)
def test_where_may_be_listened(permit: str, address: str, port: int, allowed: bool) -> None:
    """For this machine's programs alone unless an address says more; a star is all of them."""
    assert parse_listen_permit(permit).allows_listening(address, port) is allowed


@pytest.mark.parametrize("text", ["web.example:80", "*.example:80", "0", "x", ""])
def test_what_cannot_be_listened_at_is_refused(text: str) -> None:
    """Before anybody is met."""
    with pytest.raises(UsageError):
        parse_listen_permit(text)


def test_what_somebody_agreed_to_is_exactly_that() -> None:
    """One host, one port, wherever the name leads but to many at once."""
    permit = Permits([Permit.exactly("nas", 445)])
    assert permit.choose("nas", 445, ["192.168.1.2", "224.0.0.1"]) == ["192.168.1.2"]
    assert not permit.choose("nas", 446, ["192.168.1.2"])
    assert not permit.choose("nas2", 445, ["192.168.1.2"])
    assert str(Permit.exactly("2001:db8::1", 5)) == "[2001:db8::1]:5" and str(Permit.parse("*:*")) == "*:*"
