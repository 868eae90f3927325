"""TCP connections of an agent: what their end means, and how two agents share one (RFC 6544)."""

from __future__ import annotations

from typing import Any

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Transmit
from crowline.base.transport import Transport
from crowline.ice.candidate import (
    DISCARD_PORT,
    CandidateFactory,
)
from crowline.ice.connections import CONNECT_PATIENCE
from crowline.ice.events import (
    ConnectionUnwanted,
    ConnectionWanted,
    FailureReason,
    IceFailed,
    LossReason,
    PairLost,
    PairNominated,
)
from crowline.ice.lite import LiteAgent
from crowline.ice.remotes import MAX_PEER_REFLEXIVE
from ice_pair import DELAY, SIGNAL_DELAY, IcePair
from puppet import BASE, OTHER_REMOTE, REMOTE, events, remote, requests
from tcp_puppet import (
    ACTIVE,
    EPHEMERAL,
    MEETING,
    PASSIVE,
    PRIORITY,
    TcpPuppet,
    nominated,
    tcp_remote,
    wanted,
)

# --- the end of connections -----------------------------------------------------------------------------


def test_the_end_of_a_connection_loses_its_pair() -> None:
    """At once, with a reason in words; whoever dialled the selected one dials again (RFC 6544 §11.1)."""
    puppet = nominated()
    pair = puppet.agent.selected
    puppet.agent.disconnected(BASE, REMOTE, 5.0)
    assert events(puppet.agent) == [
        PairLost(pair, LossReason.CONNECTION_LOST),
        ConnectionWanted(BASE, REMOTE, False),
    ]
    puppet.connect(5.1)
    puppet.answer(puppet.one(), 5.2)
    puppet.answer(puppet.one(), 5.3)
    assert puppet.agent.selected is not None and puppet.agent.selected is not pair


def test_with_regain_a_lost_connection_is_dialled_again_and_again() -> None:
    """After 1 s, 2 s, 4 s …, as for any silent pair."""
    puppet = nominated(regain=True, renominate=True)
    puppet.agent.disconnected(BASE, REMOTE, 5.0)
    times = []
    while (now := puppet.agent.next_timeout()) is not None and now < 600.0:
        puppet.agent.handle_timeout(now)
        if wanted(events(puppet.agent)):
            times.append(now)
            puppet.agent.disconnected(BASE, REMOTE, now)
    assert times[0] == 6.0
    assert len(times) >= 6


def test_a_passive_side_waits_to_be_dialled_again() -> None:
    """It can dial nobody; a new connection and a check on it bring the pair back."""
    puppet = TcpPuppet(False, PASSIVE)
    puppet.meet(tcp_remote(Address(REMOTE.host, DISCARD_PORT), ACTIVE))
    puppet.connect(0.0, EPHEMERAL)
    puppet.receive(puppet.check(use_candidate=True), EPHEMERAL, 0.01)
    puppet.answer(puppet.sent()[-1], 0.02)
    assert puppet.agent.selected is not None
    puppet.agent.disconnected(BASE, EPHEMERAL, 1.0)
    assert puppet.agent.selected is None
    assert puppet.sent_by(30.0) == []
    assert wanted(events(puppet.agent)) == []
    puppet.connect(31.0, EPHEMERAL)
    puppet.receive(puppet.check(use_candidate=True), EPHEMERAL, 31.1)
    puppet.answer(puppet.sent()[-1], 31.2)
    assert puppet.agent.selected is not None


@pytest.mark.parametrize("regain", [False, True])
def test_a_side_that_was_dialled_is_still_there_when_the_connection_breaks_late(regain: bool) -> None:
    """Long after the first patience has ended, the dialling side gets as long again to come back."""
    pair = IcePair(kinds=((ACTIVE,), (PASSIVE,)), regain=regain, renominate=regain)
    pair.start()
    pair.run(300.0)
    pair.cut()
    agree(pair)
    assert not any(side.of(IceFailed) for side in pair.sides)


def test_a_dialled_side_that_nobody_comes_back_to_has_failed() -> None:
    """After its patience, when both sides' candidates are complete."""
    puppet = TcpPuppet(False, PASSIVE)
    puppet.meet(tcp_remote(Address(REMOTE.host, DISCARD_PORT), ACTIVE))
    puppet.end_candidates()
    puppet.connect(0.0, EPHEMERAL)
    puppet.receive(puppet.check(), EPHEMERAL, 0.01)
    puppet.answer(puppet.sent()[-1], 0.02)
    puppet.sent_by(100.0)
    puppet.agent.disconnected(BASE, EPHEMERAL, 100.0)
    puppet.sent_by(139.0)
    assert not any(isinstance(event, IceFailed) for event in events(puppet.agent))
    puppet.sent_by(140.0)
    assert events(puppet.agent) == [IceFailed(FailureReason.ALL_LOST)]


def test_when_the_search_is_over_other_connections_are_not_wanted_any_more() -> None:
    """RFC 6544 §8: without renomination everything but what works is closed."""
    puppet = TcpPuppet(True, ACTIVE)
    puppet.meet(tcp_remote(), tcp_remote(OTHER_REMOTE, PASSIVE, PRIORITY - 1, "2"))
    puppet.agent.handle_timeout(0.005)
    assert len(wanted(events(puppet.agent))) == 2
    puppet.connect(0.01)
    puppet.answer(puppet.one(), 0.02)
    puppet.answer(puppet.one(), 0.03)
    happened = events(puppet.agent)
    assert ConnectionUnwanted(BASE, OTHER_REMOTE) in happened
    assert ConnectionUnwanted(BASE, REMOTE) not in happened


def test_a_removed_address_takes_its_connections_along_and_no_others() -> None:
    """The UDP pair of the same addresses stays."""
    puppet = TcpPuppet(True, ACTIVE, udp=True)
    puppet.meet(remote(REMOTE), tcp_remote())
    puppet.sent_by(0.01)
    events(puppet.agent)
    puppet.agent.remove_local_candidate(BASE, 0.02, transport=Transport.TCP)
    assert events(puppet.agent) == [ConnectionUnwanted(BASE, REMOTE)]
    assert [each.transport for _, each in puppet.sent_by(1.0)] == [Transport.UDP]


def test_a_connection_at_rest_is_left_alone() -> None:
    """Keepalives are for datagrams (RFC 8445 §11): whatever follows on the stream is its users' own."""
    puppet = nominated()
    assert puppet.sent_by(100.0) == []
    assert puppet.agent.selected is not None


def test_silence_on_a_connection_is_silence() -> None:
    """Consent is asked over TCP too (RFC 7675 §5.1), and the connection is let go with it."""
    puppet = nominated()
    pair = puppet.agent.selected
    puppet.agent.use(pair, 0.1)
    asked = puppet.sent_by(60.0)
    assert len(asked) >= 5 and all(each.transport is Transport.TCP for _, each in asked)
    assert events(puppet.agent) == [
        PairLost(pair, LossReason.CONSENT_EXPIRED),
        ConnectionUnwanted(BASE, REMOTE),
    ]


def test_a_connection_that_ends_under_the_first_check_after_a_restart_is_dialled_again() -> None:
    """It carried data until then, and the new session knows no other way."""
    puppet = nominated()
    pair = puppet.agent.selected
    puppet.ufrag, puppet.pwd = "another", "another password of the puppet"
    puppet.meet(tcp_remote(), now=1.0)
    assert puppet.one().destination == REMOTE
    events(puppet.agent)
    puppet.agent.disconnected(BASE, REMOTE, 1.1)
    assert events(puppet.agent) == [
        PairLost(pair, LossReason.CONNECTION_LOST),
        ConnectionWanted(BASE, REMOTE, False),
    ]


def test_what_becomes_of_connections_after_a_failure_is_known_when_a_restart_follows() -> None:
    """One has ended since; another one was accepted, and the first check on it is heard."""
    puppet = TcpPuppet(False, PASSIVE)
    puppet.meet(tcp_remote(Address(REMOTE.host, DISCARD_PORT), ACTIVE))
    puppet.end_candidates()
    puppet.connect(1.0, REMOTE)
    puppet.sent_by(40.0)
    assert events(puppet.agent) == [IceFailed(FailureReason.NO_CANDIDATES)]
    puppet.agent.disconnected(BASE, REMOTE, 41.0)
    puppet.connect(42.0, EPHEMERAL)
    puppet.ufrag, puppet.pwd = "another", "another password of the puppet"
    puppet.meet(tcp_remote(Address(REMOTE.host, DISCARD_PORT), ACTIVE), now=43.0)
    for source in (REMOTE, EPHEMERAL):
        puppet.receive(puppet.check(), source, 44.0)
    assert {each.destination for each in puppet.sent()} == {EPHEMERAL}


@pytest.mark.parametrize("regain", [False, True])
def test_a_side_that_is_dialled_again_and_again_takes_every_new_connection(regain: bool) -> None:
    """Each comes from another port; the candidates of those that have ended make room."""
    puppet = TcpPuppet(False, PASSIVE, regain=regain)
    puppet.meet(tcp_remote(Address(REMOTE.host, DISCARD_PORT), ACTIVE))
    for number in range(3 * MAX_PEER_REFLEXIVE):
        port = Address(REMOTE.host, 50_000 + number)
        puppet.connect(number, port)
        puppet.receive(puppet.check(use_candidate=True), port, number)
        puppet.answer(puppet.sent()[-1], number)
        assert puppet.agent.selected.remote.address == port
        puppet.agent.disconnected(BASE, port, number + 0.5)


# --- two agents -----------------------------------------------------------------------------------------


def agree(pair: IcePair, seconds: float = 5.0) -> None:
    """Both have selected the same connection."""
    pair.run(seconds)
    one, two = (side.agent.selected for side in pair.sides)
    assert one is not None and two is not None
    assert one.transport is two.transport is Transport.TCP
    assert (one.base, one.remote.address) == (two.remote.address, two.base)
    assert pair.connections >= {one.key, two.key}


@pytest.mark.parametrize(
    "kinds",
    [
        ((ACTIVE,), (PASSIVE,)),
        ((PASSIVE,), (ACTIVE,)),
        ((MEETING,), (MEETING,)),
        ((ACTIVE, PASSIVE, MEETING), (ACTIVE, PASSIVE, MEETING)),
    ],
)
@pytest.mark.parametrize("renominate", [False, True])
def test_two_agents_agree_on_a_connection(kinds: Any, renominate: bool) -> None:
    """Whoever dials; a round trip later than over UDP, and it holds for ten minutes."""
    pair = IcePair(kinds=kinds, renominate=renominate)
    pair.start()
    agree(pair)
    for side in pair.sides:
        at = next(time for time, event in side.events if isinstance(event, PairNominated))
        assert at <= SIGNAL_DELAY + 8 * DELAY
    pair.run(600.0)
    assert all(side.usable and not side.of(PairLost) for side in pair.sides)


def test_udp_is_preferred_where_it_works_and_tcp_taken_where_not() -> None:
    """The same candidates, with and without a network that lets datagrams through."""
    both = (None, ACTIVE, PASSIVE)
    for udp_works in (True, False):
        pair = IcePair(kinds=(both, both))
        pair.drops = lambda *_, works=udp_works: not works
        pair.start()
        pair.run(60.0)
        for side in pair.sides:
            assert side.agent.selected is not None
            assert (side.agent.selected.transport is Transport.UDP) is udp_works


def test_where_nobody_accepts_a_simultaneous_open_works() -> None:
    """Both sides refuse connections; only the pair that is met half-way is left."""
    kinds = (ACTIVE, PASSIVE, MEETING)
    pair = IcePair(kinds=(kinds, (MEETING,)))
    pair.listens = lambda _: False
    pair.start()
    agree(pair)


def test_a_connection_that_breaks_is_dialled_again() -> None:
    """With and without the agreement to regain pairs."""
    for regain in (False, True):
        pair = IcePair(kinds=((ACTIVE,), (PASSIVE,)), regain=regain, renominate=regain)
        pair.start()
        agree(pair)
        pair.cut()
        assert all(side.agent.selected is None for side in pair.sides)
        agree(pair)


@pytest.mark.parametrize("beginner", [0, 1])
def test_a_restart_keeps_the_connection(beginner: int) -> None:
    """RFC 6544 §9.2: the selected one is not closed, and the new session uses it again."""
    pair = IcePair(kinds=((ACTIVE,), (PASSIVE,)))
    pair.start()
    agree(pair)
    before = pair.sides[0].agent.selected
    pair.sides[beginner].restart()
    pair.run(20.0, each_step=lambda: None if all(side.usable for side in pair.sides) else pytest.fail("gap"))
    agree(pair)
    assert pair.sides[0].agent.selected is before
    assert len(pair.sides[0].of(ConnectionWanted)) == 1
    assert not any(side.of(ConnectionUnwanted) for side in pair.sides)


@pytest.mark.parametrize("lite", [0, 1])
def test_a_lite_agent_is_dialled(lite: int) -> None:
    """RFC 6544 §4.4: it has passive candidates."""
    kinds: Any = ((PASSIVE,), (ACTIVE,)) if lite == 0 else ((ACTIVE,), (PASSIVE,))
    pair = IcePair(kinds=kinds, lite=(lite == 0, lite == 1))
    pair.start()
    agree(pair)
    pair.cut()
    agree(pair)


def test_a_lite_agent_dials_nobody() -> None:
    """Other kinds of TCP candidates are refused."""
    agent = LiteAgent(False, entropy=bytes)
    for kind in (ACTIVE, MEETING):
        with pytest.raises(UsageError):
            agent.add_local_candidate(CandidateFactory().host(BASE, kind), 0.0)


# --- who means it ill -----------------------------------------------------------------------------------


def test_ten_thousand_tcp_candidates_are_cut_down() -> None:
    """As many as are kept, each dialled once at most, at the pace of checks."""
    puppet = TcpPuppet(True, ACTIVE)
    ports = (Address("198.51.100.66", 1 + n) for n in range(10_000))
    puppet.meet(*(tcp_remote(each, PASSIVE, PRIORITY - n, str(n)) for n, each in enumerate(ports)))
    puppet.sent_by(CONNECT_PATIENCE)
    asked = wanted(events(puppet.agent))
    assert len(asked) == len(set(asked)) == 64


def test_a_stranger_who_connects_and_asks_learns_nothing() -> None:
    """A connection is no proof: without the password there is an error and no pair."""
    puppet = TcpPuppet(False, PASSIVE)
    puppet.meet(tcp_remote(Address(REMOTE.host, DISCARD_PORT), ACTIVE))
    puppet.connect(0.0, EPHEMERAL)
    puppet.receive(puppet.check(key="x" * 24), EPHEMERAL, 0.01)
    sent: list[Transmit] = puppet.sent()
    assert requests(sent) == []
    assert puppet.agent.valid_pairs() == []
