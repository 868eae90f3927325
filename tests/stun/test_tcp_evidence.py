"""How a translator treats TCP, from what servers said of connections."""

from __future__ import annotations

from crowline.base.addresses import Address
from crowline.base.nat64 import Nat64Prefix
from crowline.stun.nat_findings import Facet, Mapping, Reason
from crowline.stun.tcp_evidence import TcpEvidence

SERVER, NEXT, OTHER = Address("44.1.0.1", 3478), Address("44.1.0.1", 3479), Address("44.1.0.2", 3478)
OUTSIDE = "44.100.7.1"


def inside(port: int) -> Address:
    return Address("192.168.7.10", port)


def outside(port: int) -> Address:
    return Address(OUTSIDE, port)


def test_nothing_seen_says_nothing() -> None:
    """No answer is the reason, and filtering is never known."""
    found = TcpEvidence(SERVER).findings()
    assert (found.mapping, found.samples) == (Mapping.UNKNOWN, ())
    assert found.unknown == {
        Facet.MAPPING: Reason.NO_ANSWER,
        Facet.FILTERING: Reason.NO_CALLS_BACK,
        Facet.HAIRPINNING: Reason.NOT_TRIED,
    }


def test_the_port_that_most_servers_saw_shows_the_mapping() -> None:
    """The others are samples, in the order in which they connected."""
    evidence = TcpEvidence(SERVER)
    evidence.seen(inside(5), SERVER, outside(905), 2.0)
    evidence.seen(inside(1), SERVER, outside(901), 0.0)
    evidence.seen(inside(1), NEXT, outside(911), 0.3)
    evidence.seen(inside(1), OTHER, outside(921), 0.3)
    found = evidence.findings()
    assert found.mapping is Mapping.ADDRESS_AND_PORT_DEPENDENT
    assert Facet.MAPPING not in found.unknown
    assert [(each.local.port, each.mapped.port, each.sent_at) for each in found.samples] == [
        (1, 901, 0.0),
        (5, 905, 2.0),
    ]


def test_a_port_that_only_another_address_saw_is_no_sample() -> None:
    """Samples are compared with each other, so they are of one server address."""
    evidence = TcpEvidence(SERVER)
    evidence.seen(inside(1), OTHER, outside(901), 0.0)
    assert evidence.findings().samples == ()


def test_what_cannot_be_ours_is_not_believed() -> None:
    """Another family, and port 0."""
    evidence = TcpEvidence(SERVER)
    assert not evidence.seen(inside(1), SERVER, Address("2a01:100::1", 7), 0.0)
    assert not evidence.seen(inside(1), SERVER, outside(0), 0.0)
    assert evidence.findings().samples == ()


def test_behind_a_nat64_servers_speak_of_ipv4() -> None:
    """The server is named by IPv6, and what it says is IPv4."""
    prefix = Nat64Prefix.parse("64:ff9b::/96")
    server = Address(prefix.synthesize(SERVER.host), SERVER.port)
    evidence = TcpEvidence(server, prefix)
    own = Address("2a01:100:7::a", 5)
    assert evidence.seen(own, server, outside(905), 0.0)
    assert not evidence.seen(own, server, own, 0.0)


def test_the_first_word_of_a_server_stays() -> None:
    """A mapping that changes in the meantime is another one."""
    evidence = TcpEvidence(SERVER)
    evidence.seen(inside(1), SERVER, outside(901), 0.0)
    evidence.seen(inside(1), SERVER, outside(902), 9.0)
    (sample,) = evidence.findings().samples
    assert (sample.mapped.port, sample.sent_at) == (901, 0.0)
