"""Servers that lie, and strangers that meddle: the end is unknown, never an error or a packet too many."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Transmit
from crowline.stun import attributes as a
from crowline.stun.message import Message, MessageClass, Method, parse
from crowline.stun.nat_discovery import BASES, MAX_PACKETS, BasesWanted, Discovered, NatDiscovery
from crowline.stun.nat_findings import Facet, Filtering, Findings, Hairpinning, Mapping, Reason

SERVER, OTHER = Address("44.1.0.1", 3478), Address("44.1.0.2", 3479)
OUTSIDE = "44.100.7.1"
BASE_PORTS = (5001, 5040, 5011, 5060, 5023, 5090, 5033, 5070, 5007, 5052)
SOCKETS = tuple(Address("192.168.7.10", port) for port in BASE_PORTS)

Reply = tuple[bytes, Address]  # and where it comes from
Server = Callable[[Message, Transmit], list[Reply]]


def counting() -> Callable[[int], bytes]:
    numbers = count()
    return lambda size: next(numbers).to_bytes(size, "big")


def outside(transmit: Transmit) -> Address:
    assert transmit.local is not None
    return Address(OUTSIDE, transmit.local.port)


def success(request: Message, *attributes: a.AnyAttribute) -> bytes:
    return request.answer(MessageClass.SUCCESS, *attributes).encode()


def honest(request: Message, transmit: Transmit) -> list[Reply]:
    """A full cone in front of a server as RFC 5780 wants it."""
    change = request.get(a.ChangeRequest)
    source = transmit.destination
    if source.host == OUTSIDE:
        return []
    if change is not None:
        source = OTHER if change.change_ip else Address(SERVER.host, OTHER.port)
    answer = success(request, a.XorMappedAddress(outside(transmit)), a.OtherAddress(OTHER))
    return [(answer, source)]


def run(server: Server) -> tuple[Findings, NatDiscovery, list[Transmit]]:
    """Let a discovery talk to `server`; answers arrive 10 ms later."""
    discovery = NatDiscovery(SERVER, entropy=counting())
    assert discovery.next_event() == BasesWanted(BASES)
    now, sent = 0.0, list[Transmit]()
    discovery.start(SOCKETS, now)
    for _ in range(10_000):
        replies: list[tuple[Reply, Transmit]] = []
        while (transmit := discovery.next_transmit()) is not None:
            sent.append(transmit)
            replies += [(each, transmit) for each in server(parse(transmit.data).message, transmit)]
        for (data, source), transmit in replies:
            discovery.receive(data, source, now + 0.01, transmit.local)
        event = discovery.next_event()
        if event is not None:
            assert isinstance(event, Discovered)
            assert len(sent) <= MAX_PACKETS
            assert now <= 3.2
            assert discovery.next_timeout() is None
            return event.findings, discovery, sent
        at = discovery.next_timeout()
        if not replies:
            assert at is not None
        now = max(now, at) if at is not None else now + 0.01
        discovery.handle_timeout(now)
    raise AssertionError("the discovery does not end")


def test_the_honest_server_is_believed() -> None:
    """The yardstick for the liars below. One answer, to a test that nobody needs any more, is not awaited."""
    found, discovery, _ = run(honest)
    assert (found.mapping, found.filtering) == (Mapping.ENDPOINT_INDEPENDENT, Filtering.ENDPOINT_INDEPENDENT)
    assert found.hairpinning is Hairpinning.NO
    assert (found.unknown, found.other) == ({}, OTHER)
    assert discovery.counters == {"not_ours": 1}


def test_a_second_address_that_changes_is_a_contradiction() -> None:
    """Every answer names another one: nothing is sent to any of them."""
    numbers = count(2)

    def changing(request: Message, transmit: Transmit) -> list[Reply]:
        other = a.OtherAddress(Address(f"44.1.0.{next(numbers)}", 3479))
        return [(success(request, a.XorMappedAddress(outside(transmit)), other), transmit.destination)]

    found, _, sent = run(changing)
    assert (found.mapping, found.filtering) == (Mapping.UNKNOWN, Filtering.UNKNOWN)
    assert found.unknown[Facet.MAPPING] is found.unknown[Facet.FILTERING] is Reason.CONTRADICTION
    assert {each.destination.host for each in sent} <= {SERVER.host, OUTSIDE}


def test_a_second_address_that_changes_in_the_middle_is_a_contradiction() -> None:
    """Also when the tests are under way already."""

    def later(request: Message, transmit: Transmit) -> list[Reply]:
        if request.get(a.ChangeRequest) is None:
            return honest(request, transmit)
        other = a.OtherAddress(Address("44.1.0.99", 3479))
        return [(success(request, a.XorMappedAddress(outside(transmit)), other), OTHER)]

    found, _, _ = run(later)
    assert found.unknown[Facet.MAPPING] is found.unknown[Facet.FILTERING] is Reason.CONTRADICTION


@pytest.mark.parametrize(
    "other",
    [
        Address("192.168.1.1", 3479),
        Address("127.0.0.1", 3479),
        Address("169.254.169.254", 3479),
        Address("224.0.0.1", 3479),
        Address(SERVER.host, 3479),
        Address("44.1.0.2", SERVER.port),
        Address("44.1.0.2", 0),
        Address("2a01:100::1", 3479),
    ],
    ids=str,
)
def test_a_second_address_that_cannot_be_one_gets_no_packet(other: Address) -> None:
    """Inside networks, other families, or an address that differs in half only."""

    def server(request: Message, transmit: Transmit) -> list[Reply]:
        answer = success(request, a.XorMappedAddress(outside(transmit)), a.OtherAddress(other))
        return [(answer, transmit.destination)]

    found, _, sent = run(server)
    assert found.unknown[Facet.MAPPING] is found.unknown[Facet.FILTERING] is Reason.OTHER_REFUSED
    assert found.other is None
    assert {each.destination for each in sent if each.destination.host != OUTSIDE} == {SERVER}


@pytest.mark.parametrize(
    "mapped", [Address("2a01:100::5", 7), Address("127.0.0.1", 7), Address("44.9.9.9", 0)]
)
def test_an_outside_address_that_cannot_be_ours_is_not_believed(mapped: Address) -> None:
    """Another family, loopback and port 0: unknown, and no packet goes there."""

    def server(request: Message, transmit: Transmit) -> list[Reply]:
        return [(success(request, a.XorMappedAddress(mapped), a.OtherAddress(OTHER)), transmit.destination)]

    found, discovery, sent = run(server)
    assert set(found.unknown.values()) == {Reason.IMPOSSIBLE_ADDRESS}
    assert found.samples == ()
    assert discovery.counters["impossible_address"] == BASES
    assert {each.destination.host for each in sent} == {SERVER.host}


def test_no_hairpin_is_tried_at_an_inside_address() -> None:
    """A server of the internet that names a private address does not make us knock there."""

    def server(request: Message, transmit: Transmit) -> list[Reply]:
        mapped = Address("10.0.0.1", outside(transmit).port)
        return [(success(request, a.XorMappedAddress(mapped)), transmit.destination)]

    found, _, sent = run(server)
    assert found.unknown[Facet.HAIRPINNING] is Reason.IMPOSSIBLE_ADDRESS
    assert {each.destination.host for each in sent} == {SERVER.host}


def test_answers_count_only_from_where_they_were_asked() -> None:
    """Another source, another socket or another transaction is dropped, however good it looks."""

    def strangers(request: Message, transmit: Transmit) -> list[Reply]:
        answer = success(request, a.XorMappedAddress(outside(transmit)))
        other = Message(Method.BINDING, MessageClass.SUCCESS, b"x" * 12, (a.XorMappedAddress(SERVER),))
        return [(answer, Address("44.1.0.9", 3478)), (other.encode(), SERVER), (b"noise", SERVER)]

    found, discovery, _ = run(strangers)
    assert set(found.unknown.values()) == {Reason.NO_ANSWER}
    assert min(discovery.counters[name] for name in ("from_elsewhere", "not_ours", "malformed")) >= BASES


def test_an_answer_to_another_socket_is_not_believed() -> None:
    """The right transaction at the wrong socket."""
    discovery = NatDiscovery(SERVER, entropy=counting())
    discovery.start(SOCKETS, 0.0)
    transmit = discovery.next_transmit()
    assert transmit is not None
    answer = success(parse(transmit.data).message, a.XorMappedAddress(outside(transmit)))
    discovery.receive(answer, SERVER, 0.01, SOCKETS[1])
    assert discovery.counters == {"from_elsewhere": 1}


def test_a_server_that_does_not_change_says_nothing_about_the_filter() -> None:
    """It answers from where it was asked: an answer, but no test."""

    def stubborn(request: Message, transmit: Transmit) -> list[Reply]:
        return [(data, transmit.destination) for data, _ in honest(request, transmit)]

    found, _, _ = run(stubborn)
    assert found.mapping is Mapping.ENDPOINT_INDEPENDENT
    assert found.unknown == {Facet.FILTERING: Reason.NOT_CHANGED}


def test_a_refusal_to_change_is_one_address() -> None:
    """420, as RFC 5780 §6 demands of servers that cannot."""

    def server(request: Message, transmit: Transmit) -> list[Reply]:
        if request.get(a.ChangeRequest) is None:
            return honest(request, transmit)
        return [(request.answer(MessageClass.ERROR, a.ErrorCode(420)).encode(), SERVER)]

    assert run(server)[0].unknown == {Facet.FILTERING: Reason.ONE_ADDRESS}


def test_a_second_address_that_is_dead_proves_no_filter() -> None:
    """Silence of what nobody ever heard is not taken for a filter, nor for a mapping."""

    def server(request: Message, transmit: Transmit) -> list[Reply]:
        return (
            [] if request.get(a.ChangeRequest) else [r for r in honest(request, transmit) if r[1] == SERVER]
        )

    found, _, _ = run(server)
    assert found.unknown == {
        Facet.MAPPING: Reason.OTHER_SILENT,
        Facet.FILTERING: Reason.OTHER_SILENT,
        Facet.HAIRPINNING: Reason.HIDDEN_BY_MAPPING,
    }


def test_a_mapping_that_no_box_makes_is_a_contradiction() -> None:
    """Another port of the second host changes it, another host does not."""

    def server(request: Message, transmit: Transmit) -> list[Reply]:
        if transmit.destination != OTHER:
            return honest(request, transmit)
        return [(success(request, a.XorMappedAddress(Address(OUTSIDE, 9))), OTHER)]

    assert run(server)[0].unknown[Facet.MAPPING] is Reason.CONTRADICTION


def test_errors_alone_end_in_unknown() -> None:
    """A server that answers everything with an error."""

    def server(request: Message, transmit: Transmit) -> list[Reply]:
        return [(request.answer(MessageClass.ERROR, a.ErrorCode(500)).encode(), transmit.destination)]

    found, _, sent = run(server)
    assert set(found.unknown.values()) == {Reason.REFUSED}
    assert len(sent) == BASES


def test_our_own_request_from_a_stranger_is_no_hairpin() -> None:
    """At the right socket, but from whoever read it on its way: nothing turned round."""
    discovery = NatDiscovery(SERVER, entropy=counting())
    discovery.start(SOCKETS, 0.0)
    hairpins: list[Transmit] = []
    now = 0.0
    while len(hairpins) < 2:
        while (transmit := discovery.next_transmit()) is not None:
            if transmit.destination.host == OUTSIDE:
                hairpins.append(transmit)
            for data, source in honest(parse(transmit.data).message, transmit):
                discovery.receive(data, source, now, transmit.local)
        now = discovery.next_timeout() or now
        discovery.handle_timeout(now)
    discovery.counters.clear()
    one, other = hairpins[:2]
    discovery.receive(one.data, SERVER, now, other.local)
    discovery.receive(one.data, outside(one), now, one.local)
    discovery.receive(success(parse(one.data).message), outside(one), now, other.local)
    assert discovery.counters == {"from_elsewhere": 3}
    discovery.receive(one.data, outside(one), now, other.local)
    assert discovery.counters == {"from_elsewhere": 3}
    discovery.receive(other.data, outside(other), now, one.local)
    assert discovery.counters == {"from_elsewhere": 3, "not_ours": 1}


@pytest.mark.parametrize(
    ("naming", "reason"),
    [
        (lambda port: Address(f"44.100.7.{port % 100 + 1}", port), Reason.SEVERAL_ADDRESSES),
        (lambda port: Address(OUTSIDE, 7), Reason.IMPOSSIBLE_ADDRESS),
    ],
    ids=["a pool", "one port for two sockets"],
)
def test_no_hairpin_is_tried_where_it_could_tell_nothing(
    naming: Callable[[int], Address], reason: Reason
) -> None:
    """Two outside hosts, or two sockets that cannot both have that port."""

    def server(request: Message, transmit: Transmit) -> list[Reply]:
        mapped = a.XorMappedAddress(naming(outside(transmit).port))
        return [(success(request, mapped), transmit.destination)]

    found, _, sent = run(server)
    assert found.unknown[Facet.HAIRPINNING] is reason
    assert {each.destination.host for each in sent} == {SERVER.host}


def test_bases_are_the_callers_part() -> None:
    """None, the same twice, or a second start."""
    discovery = NatDiscovery(SERVER, entropy=counting())
    with pytest.raises(UsageError):
        discovery.start((), 0.0)
    with pytest.raises(UsageError):
        discovery.start((SOCKETS[0], SOCKETS[0]), 0.0)
    discovery.start(SOCKETS, 0.0)
    with pytest.raises(UsageError):
        discovery.start(SOCKETS, 0.0)
