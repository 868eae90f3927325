"""Whole meetings through hard NATs in virtual time: how many come through, how soon, with how many packets.

The figures that these runs stand for are those of a thousand runs each in `bench/hard_nats.py`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from crowline.lab.behaviour import UDP, Allocation, NatBehaviour
from crowline.lab.network import Packet
from crowline.lab.presets import PRESETS, SYMMETRIC, SYMMETRIC_SEQUENTIAL
from crowline.lab.profile import Profile
from crowline.lab.virtual import Internet
from crowline.lab.virtual_attempt import Geometry, VirtualAttempt
from crowline.lab.virtual_ports import free_address
from crowline.punch.round import RoundOutcome
from crowline.punch.spray import MAX_SOCKETS
from crowline.punch.spray_budget import MAX_PACKETS

RUNS = 25
HOME_SITE = PRESETS["home"]
RANDOM_SITE = PRESETS["symmetric"]
OUTSIDE = ("44.100.1.1", "44.100.2.1")


def site(behaviour: NatBehaviour) -> Profile:
    return Profile("site", (behaviour,))


def counting(rate: float) -> Profile:
    return site(replace(SYMMETRIC_SEQUENTIAL, cross_traffic=rate))


class Spy:
    """Counts what goes from one side to the other by UDP."""

    def __init__(self) -> None:
        self.sockets: dict[str, set[int]] = {host: set() for host in OUTSIDE}
        self.packets = 0

    def __call__(self, now: float, packet: Packet) -> None:
        is_from_side = packet.source.host.startswith(("192.168.", "10."))
        if packet.protocol == UDP and is_from_side and packet.destination.host in OUTSIDE:
            self.packets += 1
            self.sockets[packet.destination.host].add(packet.source.port)


def run(a: Profile, b: Profile, seed: int, spy: Spy | None = None) -> VirtualAttempt:
    attempt = VirtualAttempt(a, b, seed, observe=spy)
    attempt.run()
    return attempt


def sent(attempt: VirtualAttempt) -> int:
    """Packets of all plans, both sides together."""
    return sum(over.sent for peer in attempt.peers for over in peer.punching.ended)


def took(attempt: VirtualAttempt) -> float:
    """Seconds from the first plan to the direct path of both sides."""
    begins = [at for peer in attempt.peers for at, _ in peer.punching.began]
    ends = [peer.direct for peer in attempt.peers if peer.direct is not None]
    assert len(ends) == 2
    return max(ends) - min(begins)


@pytest.mark.parametrize(
    ("a", "b", "technique", "least", "within"),
    [
        (HOME_SITE, RANDOM_SITE, "spray", RUNS - 2, 5.0),
        (RANDOM_SITE, HOME_SITE, "spray", RUNS - 2, 5.0),
        (HOME_SITE, site(replace(SYMMETRIC, allocation=Allocation.block(2048))), "spray", RUNS, 2.0),
        (HOME_SITE, PRESETS["symmetric-block"], "spray", RUNS, 2.0),
        (HOME_SITE, counting(0.0), "prediction", RUNS, 2.0),
        (counting(10.0), HOME_SITE, "prediction", RUNS, 2.0),
        (counting(50.0), counting(50.0), "prediction", RUNS - 1, 5.0),
        (site(replace(SYMMETRIC_SEQUENTIAL, allocation=Allocation.sequential(-2))), counting(5.0),
         "prediction", RUNS - 1, 5.0),
    ],
    ids=["random", "random host", "block of 2048", "block of 512", "counting", "counting, 10/s",
         "both counting, 50/s", "counting down by two"],
)  # fmt: skip
def test_hard_pairs_become_direct(a: Profile, b: Profile, technique: str, least: int, within: float) -> None:
    """As often and as soon as plans promise; never with more packets or sockets than they may use."""
    came = 0
    for seed in range(RUNS):
        attempt = run(a, b, seed)
        outcome = attempt.outcome()
        came += outcome.is_direct and outcome.technique == technique and took(attempt) <= within
        assert sent(attempt) <= MAX_PACKETS or not outcome.is_direct
    assert came >= least


def test_no_spray_exceeds_its_packets_and_sockets() -> None:
    """Counted on the wire, where checks of ICE are among them: about twenty for each side."""
    for seed in range(10):
        spy = Spy()
        attempt = run(HOME_SITE, RANDOM_SITE, seed, spy)
        assert spy.packets <= sent(attempt) + 120
        assert sent(attempt) <= MAX_PACKETS + 20
        assert max(len(ports) for ports in spy.sockets.values()) <= MAX_SOCKETS + 4


@pytest.mark.parametrize("name", ["public", "full-cone", "address-restricted"])
def test_an_open_or_address_only_filter_needs_no_plan(name: str) -> None:
    """Ordinary checks lead through to any hard NAT."""
    for hard in ("symmetric", "symmetric-sequential", "symmetric-block", "address-dependent", "mobile"):
        attempt = run(PRESETS[name], PRESETS[hard], 1)
        assert attempt.outcome().is_direct
        assert all(peer.punching.began == [] for peer in attempt.peers)


def test_easy_pairs_begin_no_plan() -> None:
    """A direct pair is there long before."""
    for name in ("home", "cgn", "parity", "full-cone"):
        attempt = run(HOME_SITE, PRESETS[name], 1)
        assert attempt.outcome().is_direct
        assert all(peer.punching.began == [] for peer in attempt.peers)


def test_two_random_nats_stay_with_the_relay_and_say_why() -> None:
    """Nobody can guess both; the path carries from the first moment all the same."""
    outcome = run(RANDOM_SITE, RANDOM_SITE, 1).outcome()
    assert (outcome.kind, outcome.technique) == ("relay", "relay")
    assert outcome.reason == "both NATs draw a new random port for each destination"
    assert outcome.setup_ms is not None and outcome.setup_ms < 100.0


def test_ten_minutes_of_a_hopeless_pair_cost_little() -> None:
    """One cycle of rounds, few signals, one spray's packets in each direction, and peace after that."""
    spy = Spy()
    attempt = run(RANDOM_SITE, RANDOM_SITE, 1, spy)
    attempt.pass_time(60.0)
    packets = spy.packets
    attempt.pass_time(600.0)
    leader = attempt.peers[1].punching
    ways = Counter(event.name for _, event in leader.began)
    assert set(ways.values()) == {1} and len(ways) == 10
    assert RoundOutcome.DIRECT not in {over.outcome for over in leader.ended}
    assert all(sum(over.sent for over in peer.punching.ended) <= MAX_PACKETS for peer in attempt.peers)
    # What follows keeps the ways alive that are there; the sides have nothing more to guess.
    assert spy.packets - packets < 200


def test_a_plan_goes_through_lines_that_lose_packets() -> None:
    """Lost answers of the server, lost guesses, lost checks: repeats and further rounds make up for them."""
    came = 0
    for seed in range(10):
        attempt = VirtualAttempt(HOME_SITE, counting(5.0), seed, geometry=Geometry(loss=0.05))
        attempt.run()
        came += attempt.outcome().is_direct
    assert came >= 9


def test_a_system_gives_no_port_twice() -> None:
    """Hundreds of sockets at a time come from the range that all others come from, too."""
    internet = Internet(1)
    host = internet.host("44.0.0.9")
    given = set()
    for _ in range(2000):
        address = free_address(internet, host, "44.0.0.9")
        internet.listen(host, address, lambda packet: None)
        given.add(address)
    assert len(given) == 2000
