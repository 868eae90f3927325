"""A host shows its code and waits: minutes later its mappings must still be there."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.ice.candidate import CandidateFactory
from crowline.lab.presets import PRESETS
from crowline.lab.virtual_attempt import virtual_attempt
from crowline.rendezvous.candidates import OwnCandidates

BASE, SERVER = Address("192.0.2.1", 5000), Address("198.51.100.1", 3478)


@pytest.mark.parametrize("wait", [50.0, 150.0, 600.0])
@pytest.mark.parametrize(
    "pair", [("cgn", "home"), ("parity", "parity"), ("short-lived", "home")], ids="-".join
)
def test_what_can_be_direct_is_direct_after_a_long_wait(pair: tuple[str, str], wait: float) -> None:
    """NATs that do not keep ports would give out another one for a mapping that had been forgotten."""
    outcome = virtual_attempt(PRESETS[pair[0]], PRESETS[pair[1]], 3, wait=wait)
    assert outcome.kind == "direct", outcome


def test_candidates_found_before_anybody_is_there_are_offered_then() -> None:
    """Each once, in the order of finding; later ones at once."""
    factory, own = CandidateFactory(), OwnCandidates()
    host = factory.host(BASE)
    reflexive = factory.server_reflexive(Address("203.0.113.1", 6000), BASE, SERVER)
    assert own.add(host) == own.add(reflexive) == own.add(reflexive) == []
    assert not own.met
    assert own.meet() == [host, reflexive]
    assert own.add(reflexive) == []
    relayed = factory.relayed(Address("198.51.100.1", 7000), Address("203.0.113.1", 6000), SERVER)
    assert own.add(relayed) == [relayed]


def test_a_mapping_that_moved_takes_the_place_of_the_one_before() -> None:
    """The other side hears of what leads here, not of what did; after they met it hears of both."""
    factory, own = CandidateFactory(), OwnCandidates()
    old = factory.server_reflexive(Address("203.0.113.1", 6000), BASE, SERVER)
    new = factory.server_reflexive(Address("203.0.113.1", 6001), BASE, SERVER)
    own.add(old)
    own.add(new)
    assert own.meet() == [new]
    assert own.add(old) == [old]
