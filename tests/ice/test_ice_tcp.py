"""TCP candidates: who dials, and when the check leaves (RFC 6544)."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.transport import Transport
from crowline.ice.candidate import (
    COMPONENT,
    DISCARD_PORT,
    TCP,
    Candidate,
    CandidateFactory,
    CandidateType,
    TcpType,
    candidate_priority,
    tcp_local_preference,
)
from crowline.ice.connections import CONNECT_PATIENCE
from crowline.ice.events import (
    ConnectionUnwanted,
    ConnectionWanted,
    FailureReason,
    IceFailed,
    PairValid,
)
from crowline.stun.attributes import UseCandidate
from puppet import BASE, HIGH_TIE, REMOTE, events, remote, request
from tcp_puppet import (
    ACTIVE,
    EPHEMERAL,
    MAPPED,
    MEETING,
    PASSIVE,
    PRIORITY,
    SERVER,
    TcpPuppet,
    tcp_remote,
    wanted,
)

# --- candidates -----------------------------------------------------------------------------------------


def test_priorities_follow_the_direction_of_dialling() -> None:
    """RFC 6544 §4.2: from an address of its own a host dials best, from behind a translator both do."""
    factory = CandidateFactory()
    host = {kind: factory.host(BASE, kind).priority for kind in TcpType}
    reflexive = {kind: factory.server_reflexive(MAPPED, BASE, SERVER, kind).priority for kind in TcpType}
    assert host[ACTIVE] > host[PASSIVE] > host[MEETING]
    assert reflexive[MEETING] > reflexive[ACTIVE] > reflexive[PASSIVE]
    assert host[ACTIVE] == (96 << 24) + ((6 << 13) + 8191 << 8) + 255
    assert reflexive[MEETING] == (70 << 24) + ((6 << 13) + 8191 << 8) + 255


def test_direct_tcp_lies_between_direct_udp_and_relays() -> None:
    """Any way over UDP without a relay is better, and any relay worse."""
    factory = CandidateFactory()
    tcp = [factory.host(BASE, ACTIVE), factory.server_reflexive(MAPPED, BASE, SERVER, PASSIVE)]
    udp = factory.server_reflexive(MAPPED, BASE, SERVER)
    relays = [factory.relayed(SERVER, MAPPED, SERVER), factory.relayed(SERVER, MAPPED, SERVER, PASSIVE)]
    assert udp.priority > max(each.priority for each in tcp)
    assert min(each.priority for each in tcp) > max(each.priority for each in relays)
    assert relays[0].priority > relays[1].priority


def test_an_active_candidate_says_only_its_host() -> None:
    """RFC 6544 §4.5: the port is 9; connections leave by the base all the same."""
    candidate = CandidateFactory().host(BASE, ACTIVE)
    assert candidate.address == Address(BASE.host, DISCARD_PORT)
    assert candidate.sending_base == BASE


def test_hosts_are_told_apart_by_preference_and_kinds_by_foundation() -> None:
    """Unique priorities for several addresses; what dials otherwise does not fail together."""
    factory = CandidateFactory()
    made = [factory.host(Address(f"192.0.2.{n}", 1), kind) for n in range(1, 4) for kind in TcpType]
    assert len({each.priority for each in made}) == len({each.foundation for each in made}) == 9


@pytest.mark.parametrize("local", TcpType)
@pytest.mark.parametrize("other", TcpType)
def test_candidates_are_paired_with_their_counterparts_and_passive_ones_are_pruned(
    local: TcpType, other: TcpType
) -> None:
    """RFC 6544 §6.2: of nine combinations this side dials in two."""
    puppet = TcpPuppet(True, local)
    puppet.meet(tcp_remote(kind=other))
    expected = (local, other) in ((ACTIVE, PASSIVE), (MEETING, MEETING))
    assert [each.simultaneous for each in wanted(events(puppet.agent))] == [local is MEETING] * expected


def test_transports_are_not_mixed() -> None:
    """A TCP candidate at the address of a UDP one is another candidate, and the pairs are two."""
    puppet = TcpPuppet(True, ACTIVE, udp=True)
    puppet.meet(remote(REMOTE), tcp_remote(REMOTE))
    sent = puppet.sent_by(0.02)
    assert [each.transport for _, each in sent] == [Transport.UDP]
    assert wanted(events(puppet.agent)) == [ConnectionWanted(BASE, REMOTE, False)]


@pytest.mark.parametrize("order", [(PASSIVE, MEETING), (MEETING, PASSIVE)])
def test_of_two_kinds_at_one_address_the_better_one_dials(order: tuple[TcpType, TcpType]) -> None:
    """There is one connection for both; behind a translator it is met half-way, whatever came first."""
    puppet = TcpPuppet(True)
    for kind in order:
        preference = tcp_local_preference(CandidateType.SERVER_REFLEXIVE, kind)
        priority = candidate_priority(CandidateType.SERVER_REFLEXIVE, preference, transport=TCP)
        puppet.agent.add_remote_candidate(tcp_remote(kind=kind, priority=priority), 0.0)
    puppet.agent.set_remote(puppet.ufrag, puppet.pwd, 0.0)
    assert wanted(events(puppet.agent)) == [ConnectionWanted(BASE, REMOTE, True)]


def test_candidates_of_no_known_kind_are_refused() -> None:
    """TCP without a type, UDP with one, and other transports: dropped from the wire, told to the caller."""
    puppet = TcpPuppet(True)
    puppet.meet(
        Candidate("1", COMPONENT, TCP, 1, REMOTE, CandidateType.HOST),
        Candidate("1", COMPONENT, "udp", 1, REMOTE, CandidateType.HOST, tcp_type=ACTIVE),
        Candidate("1", COMPONENT, "sctp", 1, REMOTE, CandidateType.HOST),
    )
    assert puppet.agent.counters["remote candidate ignored"] == 3
    with pytest.raises(UsageError):
        puppet.agent.add_local_candidate(Candidate("1", COMPONENT, TCP, 1, BASE, CandidateType.HOST), 0.0)


# --- checks ---------------------------------------------------------------------------------------------


def test_a_check_waits_for_its_connection_and_leaves_with_it() -> None:
    """RFC 6544 §7.1: first the connection, then the check on it, at once."""
    puppet = TcpPuppet(True, ACTIVE)
    puppet.meet(tcp_remote())
    assert puppet.sent_by(1.0) == []
    puppet.connect(1.0)
    check = puppet.one()
    assert (check.transport, check.local, check.destination) == (Transport.TCP, BASE, REMOTE)
    puppet.answer(check, 1.1)
    (valid,) = [event for event in events(puppet.agent) if isinstance(event, PairValid)]
    assert valid.pair.transport is Transport.TCP
    assert puppet.agent.is_valid(BASE, REMOTE, Transport.TCP)
    assert not puppet.agent.is_valid(BASE, REMOTE)
    assert request(puppet.one()).message.get(UseCandidate) is not None


def test_a_check_over_tcp_is_sent_once() -> None:
    """The stream loses nothing; after 39.5 s without an answer the pair has failed (RFC 8489 §6.2.2)."""
    puppet = TcpPuppet(True, ACTIVE)
    puppet.meet(tcp_remote())
    puppet.end_candidates()
    puppet.connect(0.0)
    assert len(puppet.sent_by(60.0)) == 1
    assert events(puppet.agent)[-2:] == [
        ConnectionUnwanted(BASE, REMOTE),
        IceFailed(FailureReason.NO_ANSWER),
    ]


def test_connections_are_asked_for_at_the_pace_of_checks() -> None:
    """One each Ta: dialling takes the turn of the check."""
    puppet = TcpPuppet(True, ACTIVE, ta=0.02)
    puppet.meet(
        *(tcp_remote(Address("198.51.100.9", 1 + n), PASSIVE, PRIORITY - n, str(n)) for n in range(4))
    )
    counts = [len(wanted(events(puppet.agent)))]
    for step in range(1, 7):
        puppet.agent.handle_timeout(0.02 * step)
        counts.append(len(wanted(events(puppet.agent))))
    assert counts == [1, 1, 1, 1, 0, 0, 0]


def test_a_failed_attempt_fails_its_pair() -> None:
    """And with nothing left, the agent after its patience."""
    puppet = TcpPuppet(True, ACTIVE)
    puppet.meet(tcp_remote())
    puppet.end_candidates()
    puppet.agent.disconnected(BASE, REMOTE, 1.0)
    assert puppet.sent_by(60.0) == []
    assert events(puppet.agent)[-1] == IceFailed(FailureReason.NO_ANSWER)


def test_a_connection_that_comes_after_its_attempt_failed_is_a_new_chance() -> None:
    """A simultaneous open may be reset and still succeed a moment later."""
    puppet = TcpPuppet(True, MEETING)
    puppet.meet(tcp_remote(kind=MEETING))
    puppet.agent.disconnected(BASE, REMOTE, 1.0)
    puppet.connect(1.2)
    puppet.answer(puppet.one(), 1.3)
    assert [type(event) for event in events(puppet.agent)][-1] is PairValid


def test_a_driver_that_never_says_how_it_went_is_not_waited_for() -> None:
    """After as long as a check takes, the attempt is given up."""
    puppet = TcpPuppet(True, ACTIVE)
    puppet.meet(tcp_remote())
    events(puppet.agent)
    puppet.agent.handle_timeout(CONNECT_PATIENCE - 0.01)
    assert events(puppet.agent) == []
    puppet.agent.handle_timeout(CONNECT_PATIENCE)
    assert events(puppet.agent) == [ConnectionUnwanted(BASE, REMOTE)]


def test_a_connection_that_the_other_side_opened_meanwhile_is_as_good() -> None:
    """Both dial from their listening ports: one connection for the two attempts, and the check leaves."""
    puppet = TcpPuppet(True)
    puppet.meet(tcp_remote())
    puppet.connect(0.01)
    puppet.receive(puppet.check(), now=0.02)
    kinds = [request(each).message.message_class.name for each in puppet.sent()]
    assert kinds[0] == "REQUEST" and "SUCCESS" in kinds
    assert len(wanted(events(puppet.agent))) == 1


def test_a_check_by_an_accepted_connection_makes_a_peer_reflexive_pair() -> None:
    """RFC 6544 §7.2: its port is a new one; the triggered check goes back by the same connection."""
    puppet = TcpPuppet(False, PASSIVE)
    puppet.meet(tcp_remote(Address(REMOTE.host, DISCARD_PORT), ACTIVE))
    puppet.connect(0.0, EPHEMERAL)
    puppet.receive(puppet.check(), EPHEMERAL, 0.01)
    answer, check = puppet.sent()
    assert answer.transport is check.transport is Transport.TCP
    assert answer.destination == check.destination == EPHEMERAL
    puppet.answer(check, 0.02)
    (valid,) = [event for event in events(puppet.agent) if isinstance(event, PairValid)]
    assert valid.pair.remote.type is CandidateType.PEER_REFLEXIVE
    assert valid.pair.remote.tcp_type is ACTIVE
    assert valid.pair.local.tcp_type is PASSIVE


def test_a_change_of_roles_dials_once() -> None:
    """The pair is checked anew, and its connection is on its way already."""
    puppet = TcpPuppet(True, ACTIVE, PASSIVE)
    puppet.meet(tcp_remote())
    puppet.connect(0.0, EPHEMERAL)
    claim = puppet.claim(controlling=True, tie=HIGH_TIE)
    puppet.receive(puppet.check(claim=claim), EPHEMERAL, 0.01)
    assert not puppet.agent.controlling
    puppet.sent_by(1.0)
    assert wanted(events(puppet.agent)) == [ConnectionWanted(BASE, REMOTE, False)]


def test_a_connection_needs_no_allowance() -> None:
    """What silent UDP has used up at that address does not hold back a check that was connected for."""
    puppet = TcpPuppet(True, ACTIVE, udp=True)
    for number in range(4):
        puppet.agent.add_local_candidate(puppet.factory.host(Address("192.0.2.80", 1000 + number)), 0.0)
    puppet.meet(remote(REMOTE), tcp_remote(priority=1))
    puppet.sent_by(35.0)
    assert puppet.agent.counters["held back"] > 0
    puppet.connect(35.0)
    assert [each.transport for each in puppet.sent()] == [Transport.TCP]


def test_whoever_dials_us_meets_the_passive_candidate() -> None:
    """Of the three that share a base, the one that is there for being dialled."""
    puppet = TcpPuppet(False)
    puppet.meet()
    puppet.connect(0.0, EPHEMERAL)
    puppet.receive(puppet.check(), EPHEMERAL, 0.01)
    puppet.answer(puppet.sent()[-1], 0.02)
    (pair,) = puppet.agent.valid_pairs()
    assert (pair.local.tcp_type, pair.remote.tcp_type) == (PASSIVE, ACTIVE)


def test_where_nothing_is_passive_whoever_dials_us_meets_half_way() -> None:
    """The host's own address is kept private: what a server saw stands in for it."""
    puppet = TcpPuppet(False, ACTIVE)
    mapped = puppet.factory.server_reflexive(MAPPED, BASE, SERVER, MEETING)
    puppet.agent.add_local_candidate(mapped, 0.0)
    puppet.meet()
    puppet.connect(0.0, EPHEMERAL)
    puppet.receive(puppet.check(), EPHEMERAL, 0.01)
    puppet.answer(puppet.sent()[-1], 0.02, mapped=MAPPED)
    (pair,) = puppet.agent.valid_pairs()
    assert pair.local == mapped


def test_an_address_that_is_passive_too_does_not_make_who_dialled_passive() -> None:
    """Without a translator the other side sees the base, which is the passive candidate's address."""
    puppet = TcpPuppet(True)
    puppet.meet(tcp_remote())
    puppet.connect()
    puppet.answer(puppet.one(), 0.01)
    (pair,) = puppet.agent.valid_pairs()
    assert (pair.local.address, pair.local.tcp_type) == (BASE, ACTIVE)


def test_the_mapped_address_of_an_active_candidate_is_peer_reflexive() -> None:
    """RFC 6544 §7.1: port 9 is nobody's source."""
    puppet = TcpPuppet(True, ACTIVE)
    puppet.meet(tcp_remote())
    puppet.connect()
    puppet.answer(puppet.one(), 0.01, mapped=MAPPED)
    (pair,) = puppet.agent.valid_pairs()
    assert (pair.local.address, pair.local.type) == (MAPPED, CandidateType.PEER_REFLEXIVE)
    assert (pair.base, pair.local.tcp_type) == (BASE, ACTIVE)


def test_what_comes_by_no_known_connection_is_dropped() -> None:
    """A frame before `connected` or after `disconnected` is a fault of the driver, and counted."""
    puppet = TcpPuppet(False)
    puppet.meet(tcp_remote())
    puppet.receive(puppet.check())
    puppet.connect()
    puppet.sent()
    puppet.agent.disconnected(BASE, REMOTE, 0.1)
    puppet.receive(puppet.check(), now=0.2)
    assert puppet.sent() == []
    assert puppet.agent.counters["unknown connection"] == 2


def test_an_answer_over_the_other_transport_is_none() -> None:
    """Symmetry means the transport too (RFC 8445 §7.2.5.2.1)."""
    puppet = TcpPuppet(True, ACTIVE, udp=True)
    puppet.meet(tcp_remote())
    puppet.connect()
    check = puppet.one()
    puppet.agent.receive(puppet.success(check), REMOTE, 0.1, BASE)
    assert puppet.agent.valid_pairs() == []
    puppet.answer(check, 0.1)
    assert len(puppet.agent.valid_pairs()) == 1


def test_the_time_that_a_machine_sleeps_does_not_count_for_connections() -> None:
    """A connection that is being dialled meanwhile is waited for after that; nothing has failed."""
    puppet = TcpPuppet(True, ACTIVE)
    puppet.meet(tcp_remote())
    puppet.end_candidates()
    assert wanted(events(puppet.agent))
    puppet.agent.handle_timeout(3600.0)
    assert events(puppet.agent) == []
    puppet.connect(3601.0)
    assert puppet.one().destination == REMOTE
