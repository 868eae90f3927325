"""An authenticated other side that means ill: what it costs third parties and us, and what is said of it."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest

from crowline.base.addresses import Address, AddressPolicy
from crowline.ice.budget import KEPT_FOR_HEARD, MAX_UNANSWERED, MAX_UNANSWERED_PER_HOST
from crowline.ice.events import FailureReason, IceFailed, Noticed, Oddity, PairNominated
from crowline.ice.outbox import MAX_ADDRESSES
from crowline.ice.remotes import MAX_REMOTE_CANDIDATES
from puppet import (
    HOST_PRIORITY,
    REMOTE,
    STRANGER,
    Puppet,
    all_events,
    events,
    noticed,
    remote,
    requests,
)

VICTIM = Address("198.51.100.66", 5000)


def target(number: int) -> Address:
    """Addresses of as many hosts as anybody likes."""
    return Address(f"44.{number // 62500 % 250}.{number // 250 % 250}.{number % 250 + 1}", 2000)


# --- floods of candidates -------------------------------------------------------------------------------


def test_i3_a_flood_of_candidates_is_said_once() -> None:
    """The first 64 count; the event says that there were more, the counter how many."""
    puppet = Puppet(True)
    puppet.meet(*[remote(target(n), HOST_PRIORITY - n, str(n)) for n in range(MAX_REMOTE_CANDIDATES)])
    assert noticed(puppet.agent) == []
    for number in range(1000):
        puppet.agent.add_remote_candidate(remote(target(1000 + number)), 0.1)
    assert noticed(puppet.agent) == [Oddity.TOO_MANY_CANDIDATES]
    assert puppet.agent.counters["remote candidate ignored"] == 1000


def test_i3_the_same_candidates_again_are_nothing_odd() -> None:
    """Signalling repeats itself, after a broken connection for instance."""
    puppet = Puppet(True)
    candidates = [remote(target(n), HOST_PRIORITY - n, str(n)) for n in range(MAX_REMOTE_CANDIDATES)]
    puppet.meet(*candidates)
    for candidate in candidates:
        puppet.agent.add_remote_candidate(candidate, 0.1)
    assert noticed(puppet.agent) == []


def test_i3_candidates_that_come_and_go_reach_a_bounded_number_of_addresses() -> None:
    """Named, checked, removed, and the next one: after 512 addresses nothing leaves to a new one."""
    puppet = Puppet(True)
    puppet.meet()
    now, reached, times = 0.0, Counter[Address](), []
    for number in range(3 * MAX_ADDRESSES):
        puppet.agent.add_remote_candidate(remote(target(number), foundation=str(number)), now)
        for _ in range(4):
            for transmit in requests(puppet.sent()):
                reached[transmit.destination] += 1
                times.append(now)
            now += 0.01
            puppet.agent.handle_timeout(now)
        puppet.agent.remove_remote_candidate(target(number), now)
    assert len(reached) <= MAX_ADDRESSES
    assert max(reached.values()) <= MAX_UNANSWERED
    assert all(later - earlier >= 0.0049 for earlier, later in pairwise(sorted(set(times))))
    assert Oddity.SILENT_ADDRESS in noticed(puppet.agent)


@pytest.mark.parametrize("seed", range(12))
def test_i4_a_third_party_gets_twenty_packets_whatever_the_peer_thinks_of(seed: int) -> None:
    """Candidates, forged sources, nominations, role conflicts, removals and restarts, mixed at random.

    Counted over the whole attack, each address that never answered got no more than DESIGN §2.4 allows, and
    all ports of one host no more than a hundred, but for answers to those who proved to know the password.
    """
    dice = random.Random(seed)
    puppet = Puppet(seed % 2 == 0, seed=seed, renominate=seed % 3 == 0, regain=seed % 4 == 0)
    puppet.agent.add_local_candidate(puppet.factory.host(Address("192.0.2.77", 1000)), 0.0)
    puppet.meet()
    ports = [Address(VICTIM.host, 5000 + n) for n in range(12)]
    victims = [VICTIM, *ports, Address("198.51.100.67", 5000)]
    now, asked, restarts = 0.0, Counter[Address](), 0
    for step in range(600):
        victim = dice.choice(victims)
        kind = dice.randrange(6)
        if kind == 0:
            number = str(dice.randrange(50))
            candidate = remote(victim, HOST_PRIORITY - step, number)
            puppet.agent.add_remote_candidate(candidate, now)
        elif kind == 1:
            puppet.agent.remove_remote_candidate(victim, now)
        elif kind == 2:
            claim = puppet.claim(controlling=dice.random() < 0.5)
            puppet.receive(puppet.check(claim=claim, use_candidate=dice.random() < 0.5), victim, now)
        elif kind == 3 and dice.random() < 0.1:
            restarts += 1
            puppet.ufrag, puppet.pwd = f"puppet{restarts}", f"a password of the puppet {restarts}"
            puppet.agent.set_remote(puppet.ufrag, puppet.pwd, now)
        else:
            now += dice.choice((0.001, 0.01, 0.5, 3.0, 40.0))
            puppet.agent.handle_timeout(now)
        for transmit in requests(puppet.sent()):
            asked[transmit.destination] += 1
            if transmit.destination == REMOTE:
                puppet.answer(transmit, now)
    by_host = Counter[str]()
    for address, number in asked.items():
        if address != REMOTE:
            assert number <= MAX_UNANSWERED
            by_host[address.host] += number
    assert max(by_host.values()) <= MAX_UNANSWERED_PER_HOST
    assert sum(by_host.values()) > MAX_UNANSWERED


@pytest.mark.parametrize(
    "address", [Address("127.0.0.1", 5000), Address("169.254.169.254", 80), Address("224.0.0.1", 5000)]
)
def test_i5_a_candidate_that_may_not_be_checked_is_said(address: Address) -> None:
    """Whoever reads the events learns that the other side named such an address; nothing goes there."""
    puppet = Puppet(False, permits=AddressPolicy().permits)
    puppet.meet(remote(address))
    assert noticed(puppet.agent) == [Oddity.FORBIDDEN_CANDIDATE]
    assert puppet.sent() == []


def test_i4_the_end_of_an_addresss_allowance_is_said_once() -> None:
    """Three bases have 21 sends for one address: those beyond its share stay here."""
    puppet = Puppet(True)
    for number in range(2):
        puppet.agent.add_local_candidate(puppet.factory.host(Address("192.0.2.80", 1000 + number)), 0.0)
    puppet.meet()
    assert len(puppet.sent_by(200.0)) == MAX_UNANSWERED - KEPT_FOR_HEARD
    assert noticed(puppet.agent) == [Oddity.SILENT_ADDRESS]


# --- nominations ----------------------------------------------------------------------------------------


def meet_many(*, renominate: bool, pairs: int = 8) -> Puppet:
    """A controlled agent with so many pairs that all work."""
    puppet = Puppet(False, renominate=renominate)
    candidates = [remote(target(n), HOST_PRIORITY - n, str(n)) for n in range(pairs)]
    puppet.meet(*candidates)
    for now, transmit in puppet.sent_by(0.2):
        puppet.answer(transmit, now + 0.3)
    assert len(puppet.agent.valid_pairs()) == pairs
    events(puppet.agent)
    return puppet


@pytest.mark.parametrize("renominate", [False, True])
def test_a_peer_that_nominates_everything_moves_the_selection_and_nothing_else(renominate: bool) -> None:
    """A thousand nominations: the best pair is kept, or with renomination the last; a change is one event."""
    puppet = meet_many(renominate=renominate)
    dice = random.Random(7)
    wanted = [target(dice.randrange(8)) for _ in range(1000)]
    for number, source in enumerate(wanted):
        puppet.receive(puppet.check(use_candidate=True), source, 1.0 + number / 1000)
    answers = puppet.sent()
    assert len(answers) == 1000 and requests(answers) == []
    found = all_events(puppet.agent)
    assert all(isinstance(event, PairNominated) for event in found)
    selected = [event.pair.remote.address for event in found if isinstance(event, PairNominated)]
    assert all(one != other for one, other in pairwise(selected))
    assert puppet.agent.selected is not None
    assert puppet.agent.selected.remote.address == selected[-1]
    if renominate:
        assert selected[-1] == wanted[-1]
    else:
        assert selected[-1] == target(0)
        assert len(selected) <= 8
    assert len(puppet.agent.valid_pairs()) == 8


def test_a_nomination_of_a_forged_source_selects_nothing() -> None:
    """Whoever controls may name any source; without an answer from there it is no pair."""
    puppet = meet_many(renominate=True, pairs=2)
    puppet.receive(puppet.check(use_candidate=True), target(0), 1.0)
    chosen = puppet.agent.selected
    for number in range(100):
        puppet.receive(puppet.check(use_candidate=True), VICTIM, 1.1 + number / 100)
    assert len(requests([each for _, each in puppet.sent_by(100.0)])) <= MAX_UNANSWERED
    assert puppet.agent.selected is chosen


# --- silence --------------------------------------------------------------------------------------------


def test_a_peer_that_never_answers_is_given_up_with_a_reason() -> None:
    """Seven packets in half a minute, then the end in words that a person understands."""
    puppet = Puppet(True)
    puppet.meet()
    puppet.end_candidates()
    assert len(puppet.sent_by(1000.0)) == 7
    [failed] = all_events(puppet.agent)
    assert failed == IceFailed(FailureReason.NO_ANSWER)
    assert failed.reason.value == "no check was answered"  # type: ignore[union-attr]


def test_a_peer_that_only_asks_and_never_answers_is_given_up_too() -> None:
    """Its checks are answered as long as they come; ours are bounded, and no pair is believed in."""
    puppet = Puppet(False)
    puppet.meet()
    puppet.end_candidates()
    now, asked = 0.0, 0
    while now < 120.0:
        puppet.receive(puppet.check(use_candidate=True), REMOTE, now)
        asked += len(requests(puppet.sent()))
        now += 0.5
        puppet.agent.handle_timeout(now)
        asked += len(requests(puppet.sent()))
    assert asked <= MAX_UNANSWERED
    assert puppet.agent.valid_pairs() == [] and puppet.agent.selected is None
    assert [each for each in all_events(puppet.agent) if not isinstance(each, Noticed)] == []
    assert len(puppet.sent_by(1000.0)) == 0
    assert events(puppet.agent) == [IceFailed(FailureReason.NO_ANSWER)]


@pytest.mark.parametrize("code", [400, 401, 420, 500, 699])
def test_a_signed_refusal_ends_a_check_at_once_and_an_unsigned_one_does_not(code: int) -> None:
    """Only the other side's own word ends it (RFC 8445 §7.2.5.2.4)."""
    puppet = Puppet(True)
    puppet.meet()
    check = puppet.one()
    puppet.receive(puppet.error(check, code, signed=False), now=0.01)
    assert puppet.agent.next_timeout() == 0.5
    puppet.receive(puppet.error(check, code), now=0.02)
    assert puppet.sent_by(100.0) == []


def test_strangers_use_up_nothing_that_the_other_side_needs() -> None:
    """Thousands of forged checks in the name of the peer's own address do not keep its checks from us."""
    puppet = Puppet(False)
    puppet.meet()
    puppet.sent()
    for number in range(5000):
        source = REMOTE if number % 2 else Address(STRANGER.host, 1024 + number)
        puppet.receive(puppet.check(key="x" * 24), source, 0.01)
    puppet.sent()
    puppet.receive(puppet.check(), REMOTE, 0.02)
    puppet.agent.handle_timeout(0.03)
    sent = puppet.sent()
    assert len(sent) == 2
    assert len(requests(sent)) == 1
