"""What a path says of its reason, before and after it is known."""

from __future__ import annotations

from crowline.api.observers import Observers
from crowline.api.options import Options
from crowline.api.path import Path
from crowline.api.path_reasons import RELAY_WISHED, PathReasons
from crowline.base.addresses import Address
from crowline.ice.candidate import CandidateFactory
from crowline.ice.pair import CandidatePair, ValidPair
from crowline.punch.obstacle import COMES_THROUGH, NOTHING_YET
from crowline.punch.plan_choice import FilterKind, MappingKind, NatSummary, PortChoice, Way

HARD = NatSummary(MappingKind.PER_PORT, FilterKind.PER_PORT, PortChoice.RANDOM)
SERVER = Address("198.51.100.9", 3478)


def pair(port: int = 4000, *, is_relayed: bool = False) -> ValidPair:
    factory, base = CandidateFactory(), Address("192.168.1.2", port)
    make = factory.relayed if is_relayed else factory.server_reflexive
    local = make(Address("203.0.113.1", port), base, SERVER)
    remote = factory.server_reflexive(Address("198.51.100.1", 9), SERVER, SERVER)
    return ValidPair(local, remote, CandidatePair(local, remote))


def test_a_relay_says_the_obstacle_once_all_was_tried() -> None:
    """Until then only that nothing has worked so far; who listens hears of the change."""
    heard: list[str] = []
    reasons = PathReasons(on_change=lambda: heard.append(reasons.of_pair(pair(is_relayed=True))))
    reasons.own = reasons.peer = HARD
    assert reasons.of_pair(pair(is_relayed=True)) == NOTHING_YET
    assert "a better path is sought" in reasons.of_hub()
    reasons.exhausted()
    words = "both NATs draw a new random port for each destination"
    assert heard == [words] and reasons.of_hub() == words


def test_the_plan_that_found_a_pair_is_its_reason() -> None:
    """Other pairs keep the ordinary one."""
    reasons = PathReasons()
    reasons.own = HARD
    found = pair(4001)
    reasons.won(found.key, Way.SPRAY)
    assert "this side's NAT was found by trying many" in reasons.of_pair(found)
    assert reasons.of_pair(pair(4002)) == COMES_THROUGH


def test_a_path_is_told_again_only_where_its_reason_changed() -> None:
    """With the same path as the one before it."""
    observers, told = Observers(), []
    observers.on_path.append(lambda now, before: told.append((now, before)))
    first = Path("relay", "udp", "a", "b", None, "one reason")
    observers.retell_path(first)
    assert told == []  # nothing was told yet: there is nothing to correct
    observers.tell_path(first, None)
    observers.retell_path(Path("relay", "udp", "a", "b", 0.04, "one reason"))
    later = Path("relay", "udp", "a", "b", 0.04, "another reason")
    observers.retell_path(later)
    assert told == [(first, None), (later, first)]


def test_who_wants_a_relay_is_told_that_and_nothing_of_nats() -> None:
    """Whatever was learnt of them."""
    reasons = PathReasons()
    reasons.own = reasons.peer = HARD
    reasons.heed(Options("ws://127.0.0.1:1", relay_only=True))
    reasons.exhausted()
    assert reasons.of_pair(pair(is_relayed=True)) == RELAY_WISHED
