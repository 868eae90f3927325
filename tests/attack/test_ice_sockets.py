"""Datagrams that do not leave this machine: a firewall, no route, full queues, in the middle of checks."""

from __future__ import annotations

import asyncio

import pytest

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.send_problem import SendProblem
from crowline.ice.agent import IceAgent
from crowline.ice.events import FailureReason, IceEvent, IceFailed, PairLost, PairNominated, SendRefused
from crowline.ice.outbox import MAX_REFUSED
from crowline.net.pump import Pump
from crowline.net.udp import UdpSocket
from ice_pair import IcePair, IceSide
from puppet import BASE, OTHER_REMOTE, REMOTE, Puppet, all_events, remote

PROBLEMS = list(SendProblem)


class Walled(IcePair):
    """A pair whose sides' own machines refuse what `refuses` says: by number of the side and by time."""

    def __init__(self, problem: SendProblem, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.problem = problem
        self.refuses = lambda number, transmit, now: True
        self.refused = 0

    def carry(self, sender: IceSide, transmit: Transmit) -> None:
        if not self.refuses(self.sides.index(sender), transmit, self.now):
            super().carry(sender, transmit)
            return
        self.refused += 1
        base = transmit.local
        assert base is not None
        self.later(0.0, lambda: sender.agent.send_failed(base, transmit.destination, self.problem))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_refusal_is_told_once_for_each_way_with_the_reason(problem: SendProblem) -> None:
    """Seven sends that were refused are one event in words, and a counter."""
    puppet = Puppet(True)
    puppet.meet()
    sent = puppet.sent_by(100.0)
    for _, transmit in sent:
        assert transmit.local is not None
        puppet.agent.send_failed(transmit.local, transmit.destination, problem)
    [refused] = all_events(puppet.agent)
    assert refused == SendRefused(BASE, REMOTE, problem)
    assert problem.value
    assert puppet.agent.counters["refused by this machine"] == len(sent) == 7


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("until", [0.4, 3.0, 20.0])
def test_checks_go_on_and_find_the_way_when_it_opens(problem: SendProblem, until: float) -> None:
    """A firewall is told to let us through, a route comes up, queues drain: no check was given up."""
    pair = Walled(problem)
    pair.refuses = lambda number, transmit, now: now < until
    pair.start()
    pair.run(60.0)
    assert pair.refused
    for side in pair.sides:
        assert len(side.of(PairNominated)) == 1
        assert side.of(PairLost) == side.of(IceFailed) == []
        assert side.of(SendRefused)


def test_one_side_behind_its_own_firewall_fails_with_the_reason() -> None:
    """It is told that nothing could leave; the other side, whose checks left, that nobody answered."""
    pair = Walled(SendProblem.FORBIDDEN)
    pair.refuses = lambda number, transmit, now: number == 0
    pair.start()
    pair.run(200.0)
    [walled], [open_] = (side.of(IceFailed) for side in pair.sides)
    assert walled.reason is FailureReason.NOTHING_LEFT
    assert open_.reason is FailureReason.NO_ANSWER
    assert walled.reason.value == "no check could leave this machine"


def test_a_check_of_which_one_send_left_is_one_that_nobody_answered() -> None:
    """The reason says what happened most: something got out, and nothing came back."""
    pair = Walled(SendProblem.FORBIDDEN)
    pair.refuses = lambda number, transmit, now: number == 0 and not 3.0 < now < 5.0
    pair.drops = lambda *_: True
    pair.start()
    pair.run(200.0)
    [failed] = pair.sides[0].of(IceFailed)
    assert failed.reason is FailureReason.NO_ANSWER


def test_a_way_on_which_only_role_conflicts_came_is_no_firewall() -> None:
    """One way is barred here; by the other one the peer was reached, and never gave in."""
    puppet = Puppet(True)
    puppet.meet(remote(REMOTE), remote(OTHER_REMOTE, 1000, "2"))
    puppet.end_candidates()
    now: float | None = 0.0
    while now is not None:
        puppet.agent.handle_timeout(now)
        for transmit in puppet.sent():
            if transmit.destination == REMOTE:
                puppet.agent.send_failed(BASE, REMOTE, SendProblem.FORBIDDEN)
            else:
                puppet.receive(puppet.error(transmit, 487), OTHER_REMOTE, now)
        now = puppet.agent.next_timeout()
    assert all_events(puppet.agent)[-1] == IceFailed(FailureReason.NO_ANSWER)


def test_one_refused_way_does_not_keep_another_one_back() -> None:
    """With a route for one of two bases the pair of that one is agreed on, as fast as without the other."""
    alone = IcePair()
    alone.start()
    alone.run(5.0)
    pair = Walled(SendProblem.NO_ROUTE, bases=(2, 1))
    dead = pair.sides[0].bases[0]
    pair.refuses = lambda number, transmit, now: transmit.local == dead
    pair.start()
    pair.run(5.0)
    [at] = [at for at, event in pair.sides[0].events if isinstance(event, PairNominated)]
    [usual] = [at for at, event in alone.sides[0].events if isinstance(event, PairNominated)]
    selected = pair.sides[0].agent.selected
    assert selected is not None and selected.base != dead
    assert at - usual < 0.1


def test_a_nomination_that_cannot_leave_makes_way_for_another_pair() -> None:
    """The firewall closes just when the best pair was found: the next best is nominated within seconds."""
    pair = Walled(SendProblem.FORBIDDEN, bases=(2, 1))
    best = pair.sides[0].bases[0]
    found = []
    pair.refuses = lambda number, transmit, now: bool(found) and transmit.local == best
    pair.start()

    def look() -> None:
        if not found and len(pair.sides[0].agent.valid_pairs()) == 2:
            found.append(pair.now)

    pair.run(30.0, each_step=look)
    selected = pair.sides[0].agent.selected
    assert selected is not None and selected.remote.address == pair.sides[1].bases[0]
    assert pair.sides[0].of(IceFailed) == []


def test_consent_that_cannot_leave_ends_as_if_it_had_been_lost() -> None:
    """Thirty seconds after the last answer, with both facts among the events."""
    pair = Walled(SendProblem.NO_ROUTE)
    pair.refuses = lambda number, transmit, now: now > 10.0
    pair.start()
    pair.run(100.0)
    for side in pair.sides:
        [(at, lost)] = [(at, event) for at, event in side.events if isinstance(event, PairLost)]
        assert 34.0 < at < 41.0
        assert lost.reason.value == "the other side has not answered for 30 s"
        assert [event.problem for event in side.of(SendRefused)] == [SendProblem.NO_ROUTE]


def test_refusals_on_ever_new_ways_are_told_a_bounded_number_of_times() -> None:
    """The other side may name what this machine has no route for, again and again."""
    puppet = Puppet(True)
    puppet.meet()
    all_events(puppet.agent)
    for number in range(10 * MAX_REFUSED):
        far = Address(f"44.1.{number // 250}.{number % 250 + 1}", 2000)
        puppet.agent.send_failed(BASE, far, SendProblem.NO_ROUTE)
    assert len(all_events(puppet.agent)) == MAX_REFUSED
    assert puppet.agent.counters["refused by this machine"] == 10 * MAX_REFUSED


def test_a_refusal_of_what_was_never_asked_changes_nothing() -> None:
    """Data, an answer, a pair that has gone: nothing but the event."""
    puppet = Puppet(True)
    puppet.meet()
    check = puppet.one()
    puppet.agent.send_failed(BASE, OTHER_REMOTE, SendProblem.FORBIDDEN)
    at = puppet.agent.next_timeout()
    puppet.answer(check, 0.04)
    assert at == 0.5 and len(puppet.agent.valid_pairs()) == 1


def test_a_closed_agent_hears_of_no_refusal() -> None:
    """What its driver still reports meets silence."""
    puppet = Puppet(True)
    puppet.meet(remote(REMOTE))
    puppet.agent.close()
    puppet.agent.send_failed(BASE, REMOTE, SendProblem.FORBIDDEN)
    assert all_events(puppet.agent) == []


async def test_i12_icmp_for_a_check_changes_nothing() -> None:
    """A real socket and a closed port: what comes back may be forged, so that the check goes on as it was."""
    gone = UdpSocket.bind(Address("127.0.0.1", 0), lambda *_: None)
    closed = gone.local
    gone.close()
    puppet = Puppet(True)
    found: list[IceEvent] = []

    def unsent(destination: Address, problem: SendProblem) -> None:
        puppet.agent.send_failed(puppet.base, destination, problem)

    socket = UdpSocket.bind(Address("127.0.0.1", 0), lambda *_: None, on_unsent=unsent)
    puppet.base = socket.local
    puppet.agent = IceAgent(True, entropy=puppet.random.randbytes)
    puppet.agent.add_local_candidate(puppet.factory.host(socket.local), 0.0)
    pump = Pump[Transmit, IceEvent](puppet.agent, socket.send, found.append)
    puppet.agent.set_remote(puppet.ufrag, puppet.pwd, pump.now)
    puppet.agent.add_remote_candidate(remote(closed), pump.now)
    pump.flush()
    at = puppet.agent.next_timeout()
    for _ in range(3):
        # Each send tells of the ICMP error that the one before it met, where anybody listens.
        socket.send(Transmit(b"\x00 anybody?", closed))
        await asyncio.sleep(0)
    assert found == []
    assert puppet.agent.next_timeout() == at
    assert socket.lost == 0
    pump.close()
    socket.close()
