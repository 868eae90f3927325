"""How a translator treats TCP, from what servers said of connections."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.nat64 import Nat64Prefix
from crowline.stun.nat_findings import Facet, Hairpinning, Mapping, Reason
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
        Facet.HAIRPINNING: Reason.NO_ANSWER,
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


def three_ports(mapping: int = 0) -> TcpEvidence:
    """The first for the mapping, which may vary by so much, two for the hairpin."""
    evidence = TcpEvidence(SERVER)
    for port in (1, 2, 3):
        evidence.seen(inside(port), SERVER, outside(900 + port), port / 100)
    evidence.seen(inside(1), OTHER, outside(901 + mapping), 0.3)
    return evidence


def test_two_ports_try_to_reach_each_other() -> None:
    """The second and the third; until they have, it is not known whether they do."""
    evidence = three_ports()
    ends = evidence.hairpin_ends()
    assert ends is not None
    assert [(each.local, each.mapped) for each in ends] == [
        (inside(2), outside(902)),
        (inside(3), outside(903)),
    ]
    assert evidence.findings().unknown[Facet.HAIRPINNING] is Reason.NOT_TRIED


@pytest.mark.parametrize("seen", [Hairpinning.INTERNAL_SOURCE, Hairpinning.EXTERNAL_SOURCE, None])
def test_what_came_back_shows_the_hairpin(seen: Hairpinning | None) -> None:
    """Nothing means none, where mappings do not vary."""
    evidence = three_ports()
    evidence.hairpin, evidence.has_tried_hairpin = seen, True
    found = evidence.findings()
    assert found.hairpinning is (seen or Hairpinning.NO)
    assert Facet.HAIRPINNING not in found.unknown


def test_silence_behind_a_varying_mapping_says_nothing() -> None:
    """The ports that were dialled may not have been the right ones."""
    evidence = three_ports(mapping=50)
    evidence.has_tried_hairpin = True
    found = evidence.findings()
    assert (found.hairpinning, found.unknown[Facet.HAIRPINNING]) == (
        Hairpinning.UNKNOWN,
        Reason.HIDDEN_BY_MAPPING,
    )


@pytest.mark.parametrize(
    "hosts",
    [("192.168.1.9", "192.168.1.9"), ("44.100.7.1", "44.100.7.2"), ("192.168.7.10", "192.168.7.10")],
    ids=["an inside address", "two addresses", "no translator"],
)
def test_no_port_dials_where_nothing_could_be_learnt(hosts: tuple[str, str]) -> None:
    """Nor anybody's inside network, whatever the server says."""
    evidence = TcpEvidence(SERVER)
    evidence.seen(inside(1), SERVER, outside(901), 0.0)
    for port, host in zip((2, 3), hosts, strict=True):
        evidence.seen(inside(port), SERVER, Address(host, port), port / 100)
    assert evidence.hairpin_ends() is None
    assert evidence.findings().hairpinning is Hairpinning.UNKNOWN
