"""Mappings of one socket towards several servers: what follows, and what stays in doubt."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.lab import behaviour
from crowline.lab.presets import HOME
from crowline.lab.profile import Profile
from crowline.stun.mapping_judgement import judge_mapping
from crowline.stun.nat_discovery import MAX_PACKETS
from crowline.stun.nat_findings import Facet, Mapping, Reason
from nat_discoveries import SERVER, discover

LOCAL = Address("192.168.7.10", 5001)
A1, A2 = Address("44.1.0.1", 3478), Address("44.1.0.1", 3479)
B1, B2 = Address("44.2.0.1", 3478), Address("44.2.0.1", 3479)
ONE, TWO, THREE, FOUR = (Address("44.100.7.1", port) for port in (1001, 1002, 1003, 1004))
SILENT = Address("44.3.0.1", 3478)

INDEPENDENT = Mapping.ENDPOINT_INDEPENDENT
PER_HOST = Mapping.ADDRESS_DEPENDENT
PER_PORT = Mapping.ADDRESS_AND_PORT_DEPENDENT


@pytest.mark.parametrize(
    ("seen", "mapping", "reason"),
    [
        ({}, Mapping.UNKNOWN, Reason.NO_ANSWER),
        ({A1: LOCAL}, Mapping.NONE, None),
        ({A1: ONE}, Mapping.UNKNOWN, Reason.ONE_ADDRESS),
        ({A1: ONE, A2: ONE}, INDEPENDENT, Reason.ONE_ADDRESS),
        ({A1: ONE, A2: TWO}, PER_PORT, None),
        ({A1: ONE, B1: ONE}, INDEPENDENT, None),
        ({A1: ONE, B2: ONE}, INDEPENDENT, None),
        ({A1: ONE, B1: TWO}, PER_PORT, Reason.ONE_PORT),
        ({A1: ONE, A2: ONE, B1: TWO}, PER_HOST, None),
        ({A1: ONE, A2: TWO, B1: THREE}, PER_PORT, None),
        ({A1: ONE, B1: TWO, B2: TWO}, PER_HOST, None),
        ({A1: ONE, B1: TWO, B2: THREE}, PER_PORT, None),
        ({A1: ONE, B1: ONE, B2: ONE}, INDEPENDENT, None),
        ({A1: ONE, B1: ONE, B2: TWO}, Mapping.UNKNOWN, Reason.CONTRADICTION),
        ({A1: ONE, A2: TWO, B1: THREE, B2: FOUR}, PER_PORT, None),
    ],
)
def test_what_follows_from_some_mappings(
    seen: dict[Address, Address], mapping: Mapping, reason: Reason | None
) -> None:
    """All combinations that servers with one or two addresses and ports can show."""
    assert judge_mapping(LOCAL, seen) == (mapping, reason)


@pytest.mark.parametrize("mapping", list(behaviour.Mapping), ids=lambda each: each.value)
def test_the_second_port_of_a_server_with_one_address_tells_the_common_kinds_apart(
    mapping: behaviour.Mapping,
) -> None:
    """Address-dependent is rare, and looks like endpoint-independent there: the doubt is said."""
    nat = behaviour.NatBehaviour(mapping, HOME.filtering, behaviour.Allocation.RANDOM)
    run = discover(Profile("any", (nat,)), alternates=False, ports=2)
    found = run.findings
    outside = {sample.mapped.host for sample in found.samples}
    assert {each.destination.host for each in run.sent} - outside == {SERVER.host}
    if mapping is behaviour.Mapping.ADDRESS_AND_PORT_DEPENDENT:
        assert found.mapping is PER_PORT
        assert Facet.MAPPING not in found.unknown
    else:
        assert (found.mapping, found.unknown[Facet.MAPPING]) == (INDEPENDENT, Reason.ONE_ADDRESS)


@pytest.mark.parametrize("ports", [1, 2])
@pytest.mark.parametrize("mapping", list(behaviour.Mapping), ids=lambda each: each.value)
def test_a_second_plain_server_tells_what_mappings_depend_on(mapping: behaviour.Mapping, ports: int) -> None:
    """Neither server knows RFC 5780, and one more is silent; with one port each, ports stay in doubt."""
    nat = behaviour.NatBehaviour(mapping, HOME.filtering, behaviour.Allocation.RANDOM)
    run = discover(Profile("any", (nat,)), alternates=False, ports=ports, others=(SILENT, B1), mute=(SILENT,))
    found = run.findings
    assert run.seconds <= 2.0
    assert len(run.sent) <= MAX_PACKETS
    if mapping is behaviour.Mapping.ENDPOINT_INDEPENDENT:
        assert found.mapping is INDEPENDENT
        assert Facet.MAPPING not in found.unknown
    elif ports == 2:
        assert found.mapping.value == mapping.value
        assert Facet.MAPPING not in found.unknown
    else:
        assert (found.mapping, found.unknown[Facet.MAPPING]) == (PER_PORT, Reason.ONE_PORT)


def test_no_more_than_two_further_servers_are_asked() -> None:
    """And none that is the server itself."""
    others = tuple(Address(f"44.{number}.0.1", 3478) for number in range(2, 8))
    run = discover(Profile("any", (HOME,)), others=(Address(SERVER.host, 5000), *others))
    asked = {each.destination for each in run.sent}
    assert asked & set(others) == set(others[:2])
    assert Address(SERVER.host, 5000) not in asked
