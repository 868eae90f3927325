"""The translator model, seen from outside: packets in, addresses out."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.lab.behaviour import (
    ICMP,
    TCP,
    UDP,
    Allocation,
    Filtering,
    Hairpin,
    Lifetimes,
    Mapping,
    NatBehaviour,
)
from crowline.lab.nat import Nat, Turned
from crowline.lab.presets import ADDRESS_RESTRICTED, FULL_CONE, HOME, NAT64, SYMMETRIC, SYMMETRIC_SEQUENTIAL

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


def test_sequential_allocation_goes_on_past_ports_in_use() -> None:
    """Each new mapping gets the next port; expired ones are free again when their turn comes."""
    box = nat(replace(SYMMETRIC_SEQUENTIAL, ports=(2000, 2002)))
    ports = [mapped(box, INSIDE, Address("198.51.100.1", port)).port for port in (1, 2, 3)]
    assert sorted(ports) == [2000, 2001, 2002]
    assert mapped(box, INSIDE, Address("198.51.100.1", 1), now=100.0).port == ports[0]
    assert mapped(box, INSIDE, Address("198.51.100.1", 4), now=130.0).port == ports[1]


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
    box = nat(replace(HOME, lifetimes=Lifetimes(udp_idle=30.0), inbound_refreshes=False))
    external = mapped(box, INSIDE, SERVER, now=0.0)
    mapped(box, INSIDE, SERVER, now=20.0)
    assert box.inbound(UDP, external, SERVER, 49.9) == INSIDE
    assert box.inbound(UDP, external, SERVER, 50.0) is None


def test_inbound_traffic_refreshes_only_where_the_box_says_so() -> None:
    """The optional inbound refresh keeps the mapping and the permission of who sent."""
    for refreshes, there in ((True, INSIDE), (False, None)):
        for kind in (FULL_CONE, HOME):
            box = nat(replace(kind, lifetimes=Lifetimes(udp_idle=30.0), inbound_refreshes=refreshes))
            external = mapped(box, INSIDE, SERVER, now=0.0)
            assert box.inbound(UDP, external, SERVER, 20.0) == INSIDE
            assert box.inbound(UDP, external, SERVER, 49.0) == there


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


@pytest.mark.parametrize("kind", [Hairpin.EXTERNAL_SOURCE, Hairpin.INTERNAL_SOURCE])
def test_hairpin_turns_the_packet_round_with_the_source_that_it_should_show(kind: Hairpin) -> None:
    """The neighbour sees the sender's outside or inside address; its filter judges the outside one."""
    box = nat(replace(HOME, hairpin=kind))
    ours, theirs = mapped(box, INSIDE, SERVER), mapped(box, NEIGHBOUR, SERVER)
    assert box.hairpin(UDP, INSIDE, theirs, 0.0) is None
    mapped(box, NEIGHBOUR, ours)
    seen = ours if kind is Hairpin.EXTERNAL_SOURCE else INSIDE
    assert box.hairpin(UDP, INSIDE, theirs, 0.0) == Turned(seen, NEIGHBOUR)


def test_a_hairpin_without_hairpinning_is_a_drop() -> None:
    """The method says the same as `outbound` says."""
    box = nat(FULL_CONE)
    assert box.hairpin(UDP, INSIDE, mapped(box, NEIGHBOUR, SERVER), 0.0) is None


def test_a_hairpin_to_another_host_is_refused() -> None:
    """Only the translator's own outside address turns packets round."""
    with pytest.raises(UsageError):
        nat(replace(HOME, hairpin=Hairpin.EXTERNAL_SOURCE)).hairpin(UDP, INSIDE, SERVER, 0.0)


def test_a_hairpin_to_oneself_works() -> None:
    """A host reaches its own socket by its outside address once it has sent there."""
    box = nat(replace(HOME, hairpin=Hairpin.EXTERNAL_SOURCE))
    ours = mapped(box, INSIDE, SERVER)
    assert box.hairpin(UDP, INSIDE, ours, 0.0) == Turned(ours, INSIDE)


def test_an_absolute_lifetime_ends_a_busy_mapping() -> None:
    """Sixty seconds after the first packet the mapping is gone, however much has passed through it."""
    box = nat(replace(SYMMETRIC, lifetimes=Lifetimes(udp_idle=90.0, absolute=60.0)))
    ports = [mapped(box, INSIDE, SERVER, now=now).port for now in (0.0, 20.0, 40.0, 59.0, 60.0, 119.0, 120.0)]
    assert len(set(ports[:4])) == 1
    assert ports[4] == ports[5] != ports[0]
    assert ports[6] not in (ports[0], ports[5])


def test_an_absolute_lifetime_ends_what_comes_in_too() -> None:
    """The packet that comes after the end is filtered although one went out just before it."""
    box = nat(replace(FULL_CONE, lifetimes=Lifetimes(absolute=60.0), inbound_refreshes=True))
    external = mapped(box, INSIDE, SERVER, now=0.0)
    mapped(box, INSIDE, SERVER, now=59.0)
    assert box.inbound(UDP, external, SERVER, 59.9) == INSIDE
    assert box.inbound(UDP, external, SERVER, 60.0) is None


def test_tcp_may_be_treated_otherwise_than_udp() -> None:
    """Mapping, filtering and allocation of TCP are their own where they are given."""
    box = nat(
        replace(
            SYMMETRIC,
            tcp_mapping=Mapping.ENDPOINT_INDEPENDENT,
            tcp_filtering=Filtering.ADDRESS_DEPENDENT,
            tcp_allocation=Allocation.PRESERVING,
        )
    )
    external = mapped(box, INSIDE, SERVER, protocol=TCP)
    assert external == mapped(box, INSIDE, STRANGER, protocol=TCP) == Address(OUTSIDE, INSIDE.port)
    assert box.inbound(TCP, external, SERVER_OTHER_PORT, 0.0) == INSIDE
    udp = mapped(box, INSIDE, SERVER)
    assert udp != mapped(box, INSIDE, STRANGER)
    assert box.inbound(UDP, udp, SERVER_OTHER_PORT, 0.0) is None


def test_tcp_is_treated_as_udp_where_nothing_is_said() -> None:
    """Symmetric is symmetric for both."""
    box = nat(SYMMETRIC)
    assert mapped(box, INSIDE, SERVER, protocol=TCP) != mapped(box, INSIDE, STRANGER, protocol=TCP)


def test_a_forward_lets_everyone_in_and_is_the_mapping_of_its_host() -> None:
    """A mapped port passes strangers, and what the host sends leaves by it whomever it goes to."""
    box = nat(SYMMETRIC)
    outside = box.forward(UDP, INSIDE, 3600.0, 0.0, suggested=7000)
    assert outside == Address(OUTSIDE, 7000)
    assert box.inbound(UDP, outside, STRANGER, 0.0) == INSIDE
    assert mapped(box, INSIDE, SERVER) == mapped(box, INSIDE, STRANGER) == outside
    assert mapped(box, NEIGHBOUR, SERVER) != outside


def test_a_forward_ends_with_its_lifetime_and_not_before() -> None:
    """Neither traffic nor silence changes when it ends; asking again does."""
    box = nat(HOME)
    outside = box.forward(UDP, INSIDE, 1000.0, 0.0, suggested=7000)
    assert outside is not None
    mapped(box, INSIDE, SERVER, now=990.0)
    assert box.inbound(UDP, outside, STRANGER, 999.0) == INSIDE
    assert box.forward(UDP, INSIDE, 1000.0, 999.5) == outside
    assert box.inbound(UDP, outside, STRANGER, 1999.0) == INSIDE
    assert box.inbound(UDP, outside, STRANGER, 1999.5) is None
    assert mapped(box, INSIDE, SERVER, now=2000.0).port == INSIDE.port
    assert box.forward(UDP, INSIDE, 1000.0, 2000.0, suggested=7001) == Address(OUTSIDE, 7001)


def test_a_forward_gets_another_port_where_the_suggested_one_is_taken() -> None:
    """What traffic or another host holds is not taken away."""
    box = nat(HOME)
    mapped(box, NEIGHBOUR, SERVER)
    taken = box.forward(UDP, INSIDE, 100.0, 0.0)
    assert taken is not None
    assert taken.port != 5000
    other = box.forward(UDP, NEIGHBOUR, 100.0, 0.0, suggested=taken.port)
    assert other is not None
    assert other.port != taken.port


def test_a_forward_takes_over_the_port_of_its_own_hosts_traffic() -> None:
    """What was mapped by a packet before is open to everybody now, under the same outside address."""
    box = nat(HOME)
    before = mapped(box, INSIDE, SERVER)
    assert box.inbound(UDP, before, STRANGER, 0.0) is None
    assert box.forward(UDP, INSIDE, 100.0, 0.0, suggested=before.port, exactly=True) == before
    assert box.inbound(UDP, before, STRANGER, 0.0) == INSIDE
    assert mapped(box, INSIDE, STRANGER) == before
    assert len(box) == 1


def test_a_forward_leaves_what_is_mapped_already_alone() -> None:
    """A server goes on seeing the same address; who comes in by the forward is answered by it."""
    box = nat(SYMMETRIC)
    before = mapped(box, INSIDE, SERVER)
    outside = box.forward(UDP, INSIDE, 100.0, 0.0, suggested=7000)
    assert outside is not None
    assert mapped(box, INSIDE, SERVER) == before != outside
    assert mapped(box, INSIDE, STRANGER) == outside
    assert box.inbound(UDP, outside, SERVER, 1.0) == INSIDE
    assert mapped(box, INSIDE, SERVER, now=1.0) == outside


def test_a_flow_that_goes_both_ways_keeps_its_mapping() -> None:
    """Whoever answers there may come in by the forward too; the flow is not turned from one to the other."""
    box = nat(SYMMETRIC)
    before = mapped(box, INSIDE, SERVER)
    outside = box.forward(UDP, INSIDE, 100.0, 0.0, suggested=7000)
    assert outside is not None
    assert box.inbound(UDP, before, SERVER, 1.0) == INSIDE
    assert box.inbound(UDP, outside, SERVER, 2.0) == INSIDE
    assert mapped(box, INSIDE, SERVER, now=2.0) == before


def test_a_closed_forward_is_closed() -> None:
    """After the end nobody gets in, and closing again changes nothing."""
    box = nat(HOME)
    outside = box.forward(TCP, INSIDE, 100.0, 0.0)
    assert outside is not None
    box.unforward(TCP, INSIDE)
    box.unforward(TCP, INSIDE)
    assert box.inbound(TCP, outside, STRANGER, 1.0) is None
    assert len(box) == 0


def test_a_full_block_drops_what_is_new_until_something_expires() -> None:
    """A subscriber with two ports has two flows; the third comes when the first is silent for long enough."""
    box = nat(replace(SYMMETRIC, allocation=Allocation.block(2), lifetimes=Lifetimes(udp_idle=30.0)))
    first = mapped(box, INSIDE, SERVER, now=0.0)
    mapped(box, INSIDE, STRANGER, now=20.0)
    assert box.outbound(UDP, INSIDE, SERVER_OTHER_PORT, 20.0) is None
    assert mapped(box, INSIDE, SERVER_OTHER_PORT, now=30.0) == first
    assert mapped(box, NEIGHBOUR, SERVER, now=30.0).port // 2 != first.port // 2


def test_blocks_of_silent_hosts_go_to_others() -> None:
    """Where every block is taken, one whose host has nothing open any more changes hands."""
    behaviour = replace(SYMMETRIC, allocation=Allocation.block(4), ports=(40000, 40003))
    box = nat(replace(behaviour, lifetimes=Lifetimes(udp_idle=30.0)))
    mapped(box, INSIDE, SERVER, now=0.0)
    assert box.outbound(UDP, NEIGHBOUR, SERVER, 10.0) is None
    assert mapped(box, NEIGHBOUR, SERVER, now=30.0).port in range(40000, 40004)


def test_two_layers_compose_to_the_stricter_mapping() -> None:
    """A home router behind a symmetric carrier: one address for the carrier, one for each server outside."""
    home, carrier = Nat(HOME, "100.64.0.7", random.Random(1).randbytes), nat(SYMMETRIC)
    between = [mapped(home, INSIDE, to) for to in (SERVER, STRANGER)]
    outside = [mapped(carrier, via, to) for via, to in zip(between, (SERVER, STRANGER), strict=True)]
    assert between[0] == between[1]
    assert outside[0] != outside[1]
    assert carrier.inbound(UDP, outside[0], SERVER, 0.0) == between[0]
    assert home.inbound(UDP, between[0], SERVER, 0.0) == INSIDE
    assert carrier.inbound(UDP, outside[0], STRANGER, 0.0) is None


def test_nat64_has_ipv6_inside_and_ipv4_outside() -> None:
    """IPv6 sources, IPv4 destinations; the answer finds the IPv6 address."""
    box = Nat(NAT64, OUTSIDE, random.Random(1).randbytes, nat64=True)
    inside = Address("2001:db8::2", 5000)
    external = mapped(box, inside, SERVER)
    assert external.host == OUTSIDE
    assert box.inbound(UDP, external, SERVER, 0.0) == inside
    assert box.outbound(UDP, INSIDE, SERVER, 0.0) is None
    assert box.outbound(UDP, inside, Address("2001:db8::9", 1), 0.0) is None
    with pytest.raises(UsageError):
        Nat(NAT64, "2001:db8::1", random.Random(1).randbytes, nat64=True)


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
