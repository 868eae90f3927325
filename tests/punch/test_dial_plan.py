"""Three tries an address, then the other address: the order and the times of the tries."""

from __future__ import annotations

import random

import pytest

from crowline.base.addresses import Address
from crowline.punch.dial_plan import (
    MAX_DIALLED,
    MAX_REST,
    MIN_REST,
    STAGGER,
    TRIES,
    TRY_TIMES,
    Connect,
    DialCommand,
    DialEvent,
    DialPlan,
    Exhausted,
    GivenUp,
    Outcome,
    Tried,
)
from crowline.punch.syn_budget import (
    MAX_UNPROVEN,
    MAX_UNPROVEN_PER_HOST,
    REPEAT,
    REPEAT_ON_WINDOWS,
    SynBudget,
)
from crowline.punch.tcp_schedule import Abandon

NOW = 1000.0
FIRST, SECOND, THIRD = (Address(f"192.0.2.{number}", 5000) for number in (1, 2, 3))


def plan(*addresses: Address, in_turn: bool = False, proven: bool = True, repeat: float = REPEAT) -> DialPlan:
    budget = SynBudget(100)
    if proven:
        for address in addresses:
            budget.prove(address)
    made = DialPlan(budget, entropy=random.Random(1).randbytes, in_turn=in_turn, repeat=repeat)
    for address in addresses:
        assert made.add(address, NOW)
    return made


def commands(machine: DialPlan) -> list[DialCommand]:
    found = []
    while (command := machine.next_transmit()) is not None:
        found.append(command)
    return found


def advance(machine: DialPlan) -> float:
    when = machine.next_timeout()
    assert when is not None
    machine.handle_timeout(when)
    return when


def events(machine: DialPlan) -> list[DialEvent]:
    found = []
    while (event := machine.next_event()) is not None:
        found.append(event)
    return found


def run(
    machine: DialPlan, outcomes: dict[Address, Outcome], delay: float = 0.01
) -> list[tuple[float, Address]]:
    """Let every try of an address come to its outcome; without one it meets silence. When each try began."""
    tries: list[tuple[float, Address]] = []
    answers: list[tuple[float, int, Outcome]] = []
    now = NOW
    machine.start(now)
    while True:
        for command in commands(machine):
            if isinstance(command, Connect):
                tries.append((now - NOW, command.remote))
                if command.remote in outcomes:
                    answers.append((now + delay, command.number, outcomes[command.remote]))
        due, timeout = min(answers, default=None), machine.next_timeout()
        if due is not None and (timeout is None or due[0] <= timeout):
            answers.remove(due)
            now = due[0]
            if due[2] is Outcome.CONNECTED:
                machine.connected(due[1])
            else:
                machine.failed(due[1], due[2], now)
        elif timeout is not None:
            now = timeout
            machine.handle_timeout(now)
        else:
            return tries


def order(tries: list[tuple[float, Address]]) -> list[Address]:
    return [address for _, address in tries]


def test_in_turn_each_address_gets_three_tries_before_the_next() -> None:
    """As the older systems do it, whether the tries are refused or meet silence."""
    for outcome in ({}, {FIRST: Outcome.REFUSED, SECOND: Outcome.UNREACHABLE}):
        machine = plan(FIRST, SECOND, in_turn=True)
        assert order(run(machine, outcome)) == [FIRST] * TRIES + [SECOND] * TRIES
        assert TRIES == 3


def test_silence_is_held_against_longer_by_the_last_try() -> None:
    """Each try follows the one before without a gap."""
    tries = run(plan(FIRST, SECOND, in_turn=True), {})
    assert [time for time, _ in tries] == pytest.approx([0, 0.9, 1.8, 4.7, 5.6, 6.5])


def test_a_silent_try_is_abandoned_when_the_next_one_comes() -> None:
    """There is never more than one socket for an address."""
    machine = plan(FIRST)
    machine.start(NOW)
    assert commands(machine) == [Connect(1, FIRST)]
    advance(machine)
    assert commands(machine) == [Abandon(1), Connect(2, FIRST)]
    advance(machine)
    advance(machine)
    assert commands(machine) == [Abandon(2), Connect(3, FIRST), Abandon(3)]


def test_a_refusal_is_followed_by_a_rest_of_random_length() -> None:
    """Which differs from side to side."""
    machine = plan(FIRST)
    machine.start(NOW)
    machine.failed(1, Outcome.REFUSED, NOW)
    first = advance(machine) - NOW
    machine.failed(2, Outcome.REFUSED, NOW + first)
    second = advance(machine) - NOW - first
    assert first != second
    assert all(MIN_REST <= rest <= MAX_REST for rest in (first, second))


def test_addresses_that_are_silent_do_not_keep_the_next_waiting() -> None:
    """Each begins a quarter of a second after the one before."""
    tries = run(plan(FIRST, SECOND, THIRD), {})
    assert order(tries)[:3] == [FIRST, SECOND, THIRD]
    assert [time for time, _ in tries[:3]] == pytest.approx([0, STAGGER, 2 * STAGGER])
    assert sorted(order(tries), key=str) == sorted([FIRST, SECOND, THIRD] * TRIES, key=str)


def test_an_address_that_is_refused_makes_room_at_once() -> None:
    """The second begins a round trip after the first, and the first goes on."""
    tries = run(plan(FIRST, SECOND), {FIRST: Outcome.REFUSED})
    assert tries[:2] == [(0, FIRST), (pytest.approx(0.01), SECOND)]
    assert order(tries).count(FIRST) == TRIES


def test_a_connection_ends_the_tries_of_its_address_only() -> None:
    """Others may be shorter ways; nothing is exhausted as long as it stands."""
    machine = plan(FIRST, SECOND)
    tries = run(machine, {FIRST: Outcome.CONNECTED})
    assert order(tries) == [FIRST] + [SECOND] * TRIES
    assert events(machine) == [GivenUp(Tried(SECOND, TRIES, Outcome.SILENT))]


def test_a_connection_that_proves_to_be_somebody_elses_uses_a_try_up() -> None:
    """The others follow, instead of giving everything up."""
    machine = plan(FIRST)
    machine.start(NOW)
    machine.connected(1)
    assert machine.next_timeout() is None
    machine.failed(1, Outcome.UNPROVEN, NOW + 1)
    advance(machine)
    assert commands(machine) == [Connect(1, FIRST), Connect(2, FIRST)]


def test_the_end_says_what_became_of_each_address() -> None:
    """Of each when it is given up, and of all at the end, in their order."""
    machine = plan(FIRST, SECOND)
    run(machine, {SECOND: Outcome.REFUSED})
    first, second = Tried(FIRST, 3, Outcome.SILENT), Tried(SECOND, 3, Outcome.REFUSED)
    assert events(machine) == [GivenUp(second), GivenUp(first), Exhausted((first, second))]


def test_an_address_that_is_given_up_may_be_dialled_anew() -> None:
    """When the other side names it again, or ICE begins again."""
    machine = plan(FIRST)
    run(machine, {FIRST: Outcome.REFUSED})
    assert machine.add(FIRST, NOW + 60)
    assert not machine.add(FIRST, NOW + 60)
    assert commands(machine) == [Connect(4, FIRST)]


def test_an_address_that_is_removed_is_dialled_no_more() -> None:
    """Its socket is closed, unless it is connected; those after it have their turn."""
    machine = plan(FIRST, SECOND, THIRD)
    machine.start(NOW)
    machine.remove(FIRST)
    machine.remove(FIRST)
    assert commands(machine) == [Connect(1, FIRST), Abandon(1)]
    assert advance(machine) == NOW + STAGGER
    machine.connected(2)
    machine.remove(SECOND)
    assert commands(machine) == [Connect(2, SECOND)]
    assert advance(machine) == NOW + 2 * STAGGER
    assert commands(machine) == [Connect(3, THIRD)]
    assert events(machine) == []


def test_an_address_that_comes_later_is_dialled_too() -> None:
    """Candidates trickle; the end is then said anew."""
    machine = plan()
    machine.start(NOW)
    assert machine.next_event() == Exhausted(())
    assert machine.add(FIRST, NOW + 5)
    assert not machine.add(FIRST, NOW + 5)
    assert commands(machine) == [Connect(1, FIRST)]
    assert machine.add(SECOND, NOW + 5)
    assert commands(machine) == []
    assert advance(machine) == NOW + 5 + STAGGER
    assert commands(machine) == [Connect(2, SECOND)]
    assert machine.next_event() is None


def test_nothing_happens_before_the_start_and_after_the_end() -> None:
    """A stopped plan closes what is under way, and leaves what is connected alone."""
    machine = plan(FIRST, SECOND)
    assert machine.next_timeout() is None and commands(machine) == []
    machine.start(NOW)
    machine.start(NOW)
    machine.connected(1)
    machine.handle_timeout(NOW + STAGGER)
    machine.stop()
    assert commands(machine) == [Connect(1, FIRST), Connect(2, SECOND), Abandon(2)]
    machine.failed(1, Outcome.REFUSED, NOW + 1)
    machine.handle_timeout(NOW + 100)
    machine.start(NOW + 100)
    assert not machine.add(THIRD, NOW + 100)
    assert machine.next_timeout() is None and commands(machine) == [] and machine.next_event() is None


def test_what_is_said_of_an_earlier_try_is_not_heard() -> None:
    """A late report changes nothing."""
    machine = plan(FIRST)
    machine.start(NOW)
    advance(machine)
    due = machine.next_timeout()
    machine.failed(1, Outcome.REFUSED, NOW + 1)
    machine.connected(1)
    machine.failed(0, Outcome.REFUSED, NOW + 1)
    assert machine.next_timeout() == due
    assert commands(machine) == [Connect(1, FIRST), Abandon(1), Connect(2, FIRST)]


def test_a_clock_that_jumps_gives_each_address_one_more_try_at_once() -> None:
    """And no burst of them."""
    machine = plan(FIRST, SECOND)
    machine.start(NOW)
    machine.handle_timeout(NOW + 3600)
    begun = [command for command in commands(machine) if isinstance(command, Connect)]
    assert [command.remote for command in begun] == [FIRST, FIRST, SECOND]


@pytest.mark.parametrize("repeat", [REPEAT, REPEAT_ON_WINDOWS])
def test_an_unproven_address_gets_five_syns(repeat: float) -> None:
    """With the kernel's repetitions; what the budget does not have is not tried."""
    machine = plan(FIRST, proven=False, repeat=repeat)
    machine.start(NOW)
    syns, began, now = 0, NOW, NOW
    while True:
        for command in commands(machine):
            if isinstance(command, Connect):
                syns, began = syns + 1, now
            else:
                syns += int((now - began) / repeat)
        if machine.next_timeout() is None:
            break
        now = advance(machine)
    assert syns == MAX_UNPROVEN


def test_a_list_of_ports_on_one_victim_is_bounded() -> None:
    """All tries together, and the end says that the rest was not tried."""
    machine = plan(*(Address("192.0.2.9", port) for port in range(1, 1 + MAX_DIALLED)), proven=False)
    tries = run(machine, {Address("192.0.2.9", port): Outcome.REFUSED for port in range(1, 1 + MAX_DIALLED)})
    assert len(tries) <= MAX_UNPROVEN_PER_HOST
    event = events(machine)[-1]
    assert isinstance(event, Exhausted)
    assert event.tried[-1] == Tried(Address("192.0.2.9", 64), 0, Outcome.CAPPED)
    assert not machine.add(FIRST, NOW)


def test_the_times_fit_the_five_syns() -> None:
    """One for each try, and two repetitions by the kernel during the last."""
    assert sum(1 + int(hold / REPEAT) for hold in TRY_TIMES) == MAX_UNPROVEN
