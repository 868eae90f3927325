"""An address of which nobody knows that the other side is there gets five SYNs, and its host twenty-five."""

from __future__ import annotations

from crowline.base.addresses import Address
from crowline.punch.syn_budget import MAX_UNPROVEN, MAX_UNPROVEN_PER_HOST, REPEAT, SynBudget

HERE = Address("192.0.2.1", 5000)


def spent(budget: SynBudget, address: Address, most: int = 1000) -> int:
    """How many SYNs it lets go, of so many wanted."""
    return sum(budget.spend(address) for _ in range(most))


def test_an_unproven_address_gets_five() -> None:
    """And no more, however often it is asked for."""
    budget = SynBudget(10)
    assert budget.left(HERE) == 5
    assert spent(budget, HERE) == MAX_UNPROVEN == 5
    assert budget.left(HERE) == 0


def test_a_host_gets_no_more_by_having_many_ports() -> None:
    """A list of ports on one victim is bounded as a whole."""
    budget = SynBudget(1000)
    assert sum(spent(budget, Address(HERE.host, port)) for port in range(1, 101)) == MAX_UNPROVEN_PER_HOST


def test_a_proven_address_has_no_limit_and_its_neighbours_have() -> None:
    """What one port proved says nothing of another."""
    budget = SynBudget(10)
    spent(budget, HERE)
    budget.prove(HERE)
    assert budget.left(HERE) is None
    assert spent(budget, HERE) == 1000
    assert spent(budget, Address(HERE.host, 5001)) == MAX_UNPROVEN


def test_a_host_where_the_hub_saw_the_other_side_has_no_limit() -> None:
    """At none of its ports."""
    budget = SynBudget(10)
    budget.prove_host(HERE.host)
    assert spent(budget, HERE) == spent(budget, Address(HERE.host, 1)) == 1000
    assert spent(budget, Address("192.0.2.2", 1)) == MAX_UNPROVEN


def test_more_addresses_than_the_memory_holds_get_nothing() -> None:
    """A flood of addresses neither fills the memory nor gets a SYN each."""
    budget = SynBudget(2)
    sent = [spent(budget, Address(f"192.0.2.{number}", 1)) for number in range(1, 5)]
    assert sent == [5, 5, 0, 0]
    assert budget.left(Address("192.0.2.4", 1)) == 0


def test_a_restart_of_this_side_has_everything_dialled_anew() -> None:
    """The network has changed: what was silent may answer now."""
    budget = SynBudget(1)
    spent(budget, HERE)
    budget.renew()
    assert spent(budget, HERE) == MAX_UNPROVEN


def test_a_restart_of_the_other_side_gives_room_but_no_new_shots() -> None:
    """For what it had proven; a third party that it names again and again gets five all the same."""
    budget = SynBudget(2)
    third_party = Address("192.0.2.9", 9)
    assert spent(budget, third_party) == MAX_UNPROVEN
    for port in range(1, 101):
        elsewhere = Address(HERE.host, port)
        assert spent(budget, elsewhere) == MAX_UNPROVEN
        budget.prove(elsewhere)
        budget.forget_proven()
    assert spent(budget, third_party) == 0


def test_repetitions_of_the_kernel_are_paid() -> None:
    """A socket may wait as long as each of them is covered, and no longer."""
    budget = SynBudget(10)
    assert budget.spend(HERE)
    assert budget.afford(HERE, 0.9, REPEAT) == 0.9 and budget.left(HERE) == 4
    assert budget.afford(HERE, 2.5, REPEAT) == 2.5 and budget.left(HERE) == 2
    assert 2.9 < budget.afford(HERE, 60.0, REPEAT) < 3.0 and budget.left(HERE) == 0
    budget.prove(HERE)
    assert budget.afford(HERE, 60.0, REPEAT) == 60.0


def test_what_is_proven_takes_no_more_memory_than_the_rest() -> None:
    """A peer may connect from ever new ports and prove each; where this side has dialled, proof counts."""
    budget = SynBudget(2)
    for port in range(1, 100):
        budget.prove(Address("192.0.2.7", port))
    assert spent(budget, Address("192.0.2.7", 99)) == MAX_UNPROVEN
    budget.prove(Address("192.0.2.7", 99))
    assert budget.left(Address("192.0.2.7", 99)) is None
