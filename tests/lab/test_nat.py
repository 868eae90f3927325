"""The translator model, seen from outside: packets in, addresses out."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.lab.behaviour import ICMP, TCP, UDP, Hairpin, Lifetimes, Mapping, NatBehaviour
from crowline.lab.nat import Nat
from crowline.lab.presets import ADDRESS_RESTRICTED, FULL_CONE, HOME, SYMMETRIC, SYMMETRIC_SEQUENTIAL

INSIDE = Address("10.0.0.2", 5000)
NEIGHBOUR = Address("10.0.0.3", 5000)
SERVER = Address("198.51.100.1", 3478)
SERVER_OTHER_PORT = Address("198.51.100.1", 3479)
STRANGER = Address("198.51.100.9", 3478)
OUTSIDE = "203.0.113.7"


def nat(behaviour: NatBehaviour, seed: int = 1) -> Nat:
    return Nat(behaviour, OUTSIDE, random.Random(seed).randbytes)


def mapped(box: Nat, source: Address, destination: Address, now: float = 0.0, protocol: int = UDP) -> Address:
    external = box.outbound(protocol, source, destination, now)
    assert external is not None
    return external


def test_endpoint_independent_mapping_is_the_same_for_every_destination() -> None:
    """One inside address has one outside address, whomever it talks to."""
    box = nat(HOME)
    assert mapped(box, INSIDE, SERVER) == mapped(box, INSIDE, STRANGER) == Address(OUTSIDE, 5000)


def test_address_dependent_mapping_changes_with_the_host_only() -> None:
    """Another port of the same host shares the mapping; another host does not."""
    box = nat(replace(SYMMETRIC, mapping=Mapping.ADDRESS_DEPENDENT))
    first = mapped(box, INSIDE, SERVER)
    assert mapped(box, INSIDE, SERVER_OTHER_PORT) == first
    assert mapped(box, INSIDE, STRANGER) != first


def test_address_and_port_dependent_mapping_changes_with_every_destination() -> None:
    """Three destinations, three outside ports; the same destination keeps its own."""
    box = nat(SYMMETRIC)
    ports = {mapped(box, INSIDE, to).port for to in (SERVER, SERVER_OTHER_PORT, STRANGER)}
    assert len(ports) == 3
    assert mapped(box, INSIDE, SERVER).port in ports


def test_full_cone_lets_anyone_in() -> None:
    """Endpoint-independent filtering passes a stranger's packet to the mapping."""
    box = nat(FULL_CONE)
    external = mapped(box, INSIDE, SERVER)
    assert box.inbound(UDP, external, STRANGER, 0.0) == INSIDE


def test_address_dependent_filtering_looks_at_the_host_only() -> None:
    """Any port of a contacted host may send in; another host may not."""
    box = nat(ADDRESS_RESTRICTED)
    external = mapped(box, INSIDE, SERVER)
    assert box.inbound(UDP, external, SERVER_OTHER_PORT, 0.0) == INSIDE
    assert box.inbound(UDP, external, STRANGER, 0.0) is None


def test_address_and_port_dependent_filtering_wants_the_exact_address() -> None:
    """Only the very address that was contacted may send in."""
    box = nat(HOME)
    external = mapped(box, INSIDE, SERVER)
    assert box.inbound(UDP, external, SERVER, 0.0) == INSIDE
    assert box.inbound(UDP, external, SERVER_OTHER_PORT, 0.0) is None


def test_an_unmapped_port_and_a_foreign_host_are_dropped() -> None:
    """Nothing goes in where nothing went out."""
    box = nat(FULL_CONE)
    external = mapped(box, INSIDE, SERVER)
    assert box.inbound(UDP, Address(OUTSIDE, external.port + 1), SERVER, 0.0) is None
    assert box.inbound(UDP, Address("203.0.113.8", external.port), SERVER, 0.0) is None


def test_port_preserving_falls_back_to_another_port_on_collision() -> None:
    """Two inside hosts with the same port get different outside ports, the first keeps its own."""
    box = nat(HOME)
    first, second = mapped(box, INSIDE, SERVER), mapped(box, NEIGHBOUR, SERVER)
    assert first.port == 5000
    assert second.port != 5000
    assert box.inbound(UDP, second, SERVER, 0.0) == NEIGHBOUR


def test_sequential_allocation_counts_up_and_wraps_past_ports_in_use() -> None:
    """Each new mapping gets the next port; at the top it starts again at the first free one."""
    box = nat(replace(SYMMETRIC_SEQUENTIAL, ports=(2000, 2002)))
    ports = [mapped(box, INSIDE, Address("198.51.100.1", port)).port for port in (1, 2, 3)]
    assert ports == [2000, 2001, 2002]
    assert mapped(box, INSIDE, Address("198.51.100.1", 1), now=100.0).port == 2000
    assert mapped(box, INSIDE, Address("198.51.100.1", 4), now=130.0).port == 2001


def test_random_allocation_follows_its_entropy_and_stays_in_range() -> None:
    """Same seed, same ports; another seed, others; all within the range."""
    behaviour = replace(SYMMETRIC, ports=(40000, 40999))

    def ports(seed: int) -> list[int]:
        box = nat(behaviour, seed)
        return [mapped(box, INSIDE, Address("198.51.100.1", port)).port for port in range(1, 50)]

    assert ports(1) == ports(1) != ports(2)
    assert len(set(ports(1))) == 49
    assert all(40000 <= port <= 40999 for port in ports(1))


def test_ports_run_out_and_then_packets_are_dropped() -> None:
    """With every port taken a new flow is dropped, the old ones go on."""
    box = nat(replace(SYMMETRIC, ports=(40000, 40003)))
    flows = [mapped(box, INSIDE, Address("198.51.100.1", port)) for port in (1, 2, 3, 4)]
    assert len(set(flows)) == 4
    assert box.outbound(UDP, INSIDE, SERVER, 0.0) is None
    assert mapped(box, INSIDE, Address("198.51.100.1", 2)) == flows[1]


def test_the_table_is_bounded_and_expired_mappings_make_room() -> None:
    """A full table refuses newcomers until a mapping has expired."""
    box = nat(replace(HOME, table_size=2))
    mapped(box, INSIDE, SERVER)
    mapped(box, NEIGHBOUR, SERVER)
    third = Address("10.0.0.4", 5000)
    assert box.outbound(UDP, third, SERVER, 1.0) is None
    assert len(box) == 2
    assert box.outbound(UDP, third, SERVER, 200.0) is not None


def test_outbound_traffic_keeps_a_mapping_alive_and_silence_ends_it() -> None:
    """A mapping lives for the lifetime after the last packet out; packets in do not count."""
    box = nat(replace(HOME, lifetimes=Lifetimes(udp_idle=30.0)))
    external = mapped(box, INSIDE, SERVER, now=0.0)
    mapped(box, INSIDE, SERVER, now=20.0)
    assert box.inbound(UDP, external, SERVER, 49.9) == INSIDE
    assert box.inbound(UDP, external, SERVER, 50.0) is None


def test_inbound_traffic_refreshes_only_where_the_box_says_so() -> None:
    """The optional inbound refresh keeps the mapping for a filter that is open to all."""
    for refreshes, there in ((True, INSIDE), (False, None)):
        box = nat(replace(FULL_CONE, lifetimes=Lifetimes(udp_idle=30.0), inbound_refreshes=refreshes))
        external = mapped(box, INSIDE, SERVER, now=0.0)
        assert box.inbound(UDP, external, STRANGER, 20.0) == INSIDE
        assert box.inbound(UDP, external, STRANGER, 49.0) == there


def test_a_permission_expires_although_the_mapping_lives_on() -> None:
    """Traffic to one remote keeps the mapping, not the hole towards another remote."""
    box = nat(replace(HOME, lifetimes=Lifetimes(udp_idle=30.0)))
    external = mapped(box, INSIDE, SERVER, now=0.0)
    mapped(box, INSIDE, STRANGER, now=20.0)
    assert box.inbound(UDP, external, STRANGER, 40.0) == INSIDE
    assert box.inbound(UDP, external, SERVER, 40.0) is None


def test_an_expired_symmetric_mapping_comes_back_with_another_port() -> None:
    """After expiry the same flow is a new flow."""
    box = nat(SYMMETRIC)
    before = mapped(box, INSIDE, SERVER, now=0.0)
    assert mapped(box, INSIDE, SERVER, now=500.0) != before
    assert len(box) == 1


def test_hairpin_is_refused_by_default() -> None:
    """A packet to the box's own outside address is dropped."""
    box = nat(FULL_CONE)
    external = mapped(box, NEIGHBOUR, SERVER)
    assert box.outbound(UDP, INSIDE, external, 0.0) is None


def test_hairpin_turns_the_packet_round_with_its_outside_source() -> None:
    """With hairpinning the neighbour sees the sender's outside address, and filtering applies to it."""
    box = nat(replace(HOME, hairpin=Hairpin.EXTERNAL_SOURCE))
    theirs = mapped(box, NEIGHBOUR, SERVER)
    ours = mapped(box, INSIDE, theirs)
    assert box.inbound(UDP, theirs, ours, 0.0) is None
    mapped(box, NEIGHBOUR, ours)
    assert box.inbound(UDP, theirs, ours, 0.0) == NEIGHBOUR


def test_protocols_have_separate_ports_and_lifetimes() -> None:
    """UDP, TCP and ICMP mappings of the same number do not meet, and each ages by its own rule."""
    box = nat(HOME)
    for protocol in (UDP, TCP, ICMP):
        assert mapped(box, INSIDE, SERVER, protocol=protocol).port == 5000
    external = Address(OUTSIDE, 5000)
    assert [box.inbound(p, external, SERVER, 100.0) for p in (UDP, TCP, ICMP)] == [INSIDE, INSIDE, None]
    assert [box.inbound(p, external, SERVER, 300.0) for p in (UDP, TCP, ICMP)] == [None, INSIDE, None]


def test_an_echo_reply_comes_back_to_the_identifier_that_asked() -> None:
    """ICMP maps the identifier and filters by host, since there is no remote port."""
    box = nat(SYMMETRIC)
    external = mapped(box, Address("10.0.0.2", 77), Address("198.51.100.1", 0), protocol=ICMP)
    assert box.inbound(ICMP, external, Address("198.51.100.1", 0), 0.0) == Address("10.0.0.2", 77)
    assert box.inbound(ICMP, external, Address("198.51.100.1", 8), 0.0) == Address("10.0.0.2", 77)
    assert box.inbound(ICMP, external, Address("198.51.100.9", 0), 0.0) is None


def test_a_translator_serves_one_family() -> None:
    """A packet of the other IP family does not pass."""
    box = nat(FULL_CONE)
    assert box.outbound(UDP, Address("2001:db8::2", 5000), Address("2001:db8::9", 1), 0.0) is None


def test_a_reboot_forgets_every_mapping() -> None:
    """What was open is closed after a restart of the box."""
    box = nat(FULL_CONE)
    external = mapped(box, INSIDE, SERVER)
    box.reboot()
    assert box.inbound(UDP, external, SERVER, 0.0) is None
    assert len(box) == 0


def test_an_empty_port_range_is_refused() -> None:
    """A range that holds no port is the caller's mistake."""
    with pytest.raises(UsageError):
        nat(replace(HOME, ports=(2000, 1000)))
