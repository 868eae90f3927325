"""Two whole agents across the virtual internet: every pair of translators, loss, IPv6, conflicts, speed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations_with_replacement, product

import pytest

from crowline.base.addresses import Address
from crowline.ice.candidate import CandidateType
from crowline.ice.events import RoleChanged
from crowline.ice.pair import ValidPair
from crowline.lab.attempt import Attempt, Side, stun_server
from crowline.lab.behaviour import Lifetimes, NatBehaviour
from crowline.lab.presets import (
    ADDRESS_RESTRICTED,
    FULL_CONE,
    HOME,
    SYMMETRIC,
    SYMMETRIC_SEQUENTIAL,
)
from crowline.lab.virtual import Host, Internet

BOXES: dict[str, NatBehaviour | None] = {
    "public": None,
    "full cone": FULL_CONE,
    "address-restricted": ADDRESS_RESTRICTED,
    "home": HOME,
    "symmetric": SYMMETRIC,
}
# A symmetric box gives the peer another port than the server; only a filter that ignores ports lets it in.
NOT_DIRECT = {("home", "symmetric"), ("symmetric", "symmetric")}
PAIRS = list(combinations_with_replacement(BOXES, 2))


@dataclass
class World:
    internet: Internet
    server: Address
    attempt: Attempt
    hosts: list[Host]
    bases: list[Address]

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.attempt.sides


def build(names: Sequence[str], *, seed: int = 1, loss: float = 0.0, **options: object) -> World:
    """Two hosts behind the named boxes, 20 ms apart, with a STUN server."""
    internet = Internet(seed, loss=loss)
    server = stun_server(internet, "198.51.100.1")
    options.setdefault("ta", 0.005)
    world = World(internet, server, Attempt(internet, **options), [], [])  # type: ignore[arg-type]
    for number, name in enumerate(names):
        behaviour = BOXES[name]
        outside = f"203.0.113.{number + 1}"
        inside = outside if behaviour is None else "192.168.1.2"
        site = None if behaviour is None else internet.site(behaviour, outside)
        world.hosts.append(internet.host(inside, site))
        world.bases.append(Address(inside, 5000))
    return world


def connect(world: World, *, relays: bool = False, limit: float = 60.0) -> bool:
    for number, side in enumerate(world.sides):
        relay = None
        if relays:
            host = world.internet.host(f"198.51.100.{number + 10}")
            relay = (host, Address(host.name, 49152))
        world.attempt.start(side, world.hosts[number], [world.bases[number]], [world.server], relay=relay)
    return world.attempt.run(limit=limit)


def agree(world: World) -> bool:
    """Both sides have selected the same way: each one's local address is the other's remote."""
    one, other = (side.agent.selected for side in world.sides)
    assert one is not None and other is not None
    return (one.local.address, one.remote.address) == (other.remote.address, other.local.address)


def pairs(world: World) -> list[ValidPair]:
    return [pair for side in world.sides for _, pair in side.valid]


# --- the matrix -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), PAIRS)
@pytest.mark.parametrize("swapped", [False, True], ids=["", "swapped"])
def test_direct_or_not(one: str, other: str, swapped: bool) -> None:
    """Whichever side controls: direct for all pairs of boxes but symmetric with symmetric or home."""
    world = build((other, one) if swapped else (one, other))
    connected = connect(world, limit=120.0)
    assert connected == ((one, other) not in NOT_DIRECT)
    if connected:
        assert agree(world)
        assert {pair.kind for pair in pairs(world)} == {"direct"}
    else:
        assert pairs(world) == []
        assert all(side.failed_at is not None and side.failed_at >= 39.5 for side in world.sides)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_with_relays_every_pair_connects(one: str, other: str) -> None:
    """What cannot be direct goes by a relay, and what can is still found direct."""
    world = build((one, other), renominate=True)
    assert connect(world, relays=True)
    world.internet.run(limit=2.0)
    assert agree(world)
    kind = "relay" if (one, other) in NOT_DIRECT else "direct"
    assert [side.agent.selected.kind for side in world.sides if side.agent.selected] == [kind, kind]


def test_without_renomination_the_direct_pair_wins_over_the_relay() -> None:
    """Regular nomination waits as long as a better pair could still win, and no longer."""
    world = build(("home", "home"))
    assert connect(world, relays=True)
    assert agree(world)
    assert {pair.kind for side in world.sides for _, pair in side.nominated} == {"direct"}
    assert max(side.nominated[-1][0] for side in world.sides) < 0.4


def test_a_sequential_symmetric_box_is_not_direct_either() -> None:
    """Without prediction the next port is as good as a random one."""
    BOXES["sequential"] = SYMMETRIC_SEQUENTIAL
    try:
        assert not connect(build(("sequential", "home")), limit=60.0)
        assert connect(build(("sequential", "full cone")))
    finally:
        del BOXES["sequential"]


def test_a_symmetric_box_is_seen_as_peer_reflexive() -> None:
    """The other side learns the port from the check; our side from the answer."""
    world = build(("symmetric", "full cone"))
    assert connect(world)
    symmetric, cone = (side.agent.selected for side in world.sides)
    assert symmetric is not None and cone is not None
    assert symmetric.local.type is CandidateType.PEER_REFLEXIVE
    assert cone.remote.type is CandidateType.PEER_REFLEXIVE


# --- other geometries -----------------------------------------------------------------------------------


def same_site(seed: int = 1) -> World:
    world = build((), seed=seed)
    site = world.internet.site(HOME, "203.0.113.9")
    for number in (2, 3):
        world.hosts.append(world.internet.host(f"192.168.1.{number}", site))
        world.bases.append(Address(f"192.168.1.{number}", 5000))
    return world


def test_neighbours_connect_by_their_host_candidates() -> None:
    """Behind one box without hairpin the LAN is used, within the signalling and a blink."""
    world = same_site()
    assert connect(world)
    assert agree(world)
    assert {pair.kind for pair in pairs(world)} == {"lan"}
    assert max(side.valid[0][0] for side in world.sides) < 0.03


def test_ipv6_needs_no_translator() -> None:
    """With a global IPv6 address beside the box, even symmetric hosts are direct."""
    world = build(("symmetric", "symmetric"))
    for number, side in enumerate(world.sides):
        text = f"2001:db8:{number + 1}::2"
        world.internet.add_address(world.hosts[number], text)
        bases = [world.bases[number], Address(text, 5000)]
        world.attempt.start(side, world.hosts[number], bases, [world.server])
    assert world.attempt.run()
    assert agree(world)
    assert all(pair.local.address.is_ipv6 and pair.kind == "direct" for pair in pairs(world))


def test_a_carrier_box_over_a_home_box_is_direct_with_a_kind_other_side() -> None:
    """Two translators on one side, none of them symmetric."""
    world = build(("public",))
    carrier = world.internet.site(HOME, "203.0.113.50")
    home = world.internet.site(HOME, "100.64.0.7", parent=carrier)
    world.hosts.append(world.internet.host("192.168.1.2", home))
    world.bases.append(Address("192.168.1.2", 5000))
    assert connect(world)
    assert agree(world)


@pytest.mark.parametrize("loss", [0.01, 0.03, 0.05])
def test_loss_delays_and_does_not_prevent(loss: float) -> None:
    """Forty seeds at each rate: all connect, and both sides agree."""
    for seed in range(40):
        world = build(("home", "home"), seed=seed, loss=loss)
        assert connect(world, limit=40.0), seed
        world.internet.run(limit=5.0)
        assert agree(world), seed


def test_heavy_loss_with_renomination_ends_in_agreement() -> None:
    """A fifth of all packets lost, relays and direct ways: both sides end on the same pair."""
    for seed in range(20):
        world = build(("home", "home"), seed=seed, loss=0.2, renominate=True)
        assert connect(world, relays=True, limit=60.0), seed
        world.internet.run(limit=60.0)
        assert agree(world), seed


@pytest.mark.parametrize("both_control", [True, False])
def test_a_role_conflict_is_settled_and_the_connection_made(both_control: bool) -> None:
    """Thirty seeds, so ties fall either way: exactly one side controls in the end."""
    switched: set[int] = set()
    for seed in range(30):
        world = build(("home", "home"), seed=seed)
        for side in world.sides:
            side.agent._checker.role.controlling = both_control
        assert connect(world), seed
        assert {side.agent.controlling for side in world.sides} == {True, False}
        assert agree(world)
        switched |= {
            number
            for number, side in enumerate(world.sides)
            if any(isinstance(event, RoleChanged) for _, event in side.other_events)
        }
    assert switched == {0, 1}


@pytest.mark.parametrize("renominate", [True, False])
def test_a_role_conflict_under_loss_ends_in_agreement(renominate: bool) -> None:
    """A hundred seeds with a tenth of all packets lost: one side controls, both have the same pair."""
    for seed in range(100):
        world = build(("home", "full cone"), seed=seed, loss=0.1, renominate=renominate)
        for side in world.sides:
            side.agent._checker.role.controlling = seed % 2 == 0
        assert connect(world, relays=True), seed
        world.internet.run(limit=60.0)
        assert {side.agent.controlling for side in world.sides} == {True, False}, seed
        assert agree(world), seed


def test_equal_tie_breakers_converge_too() -> None:
    """Both are told to change, draw new numbers, and settle it with those."""
    for seed, both_control in product(range(10), (True, False)):
        world = build(("home", "home"), seed=seed)
        for side in world.sides:
            side.agent._checker.role.controlling = both_control
            side.agent._checker.role.tie_breaker = 77
        assert connect(world), (seed, both_control)
        assert {side.agent.controlling for side in world.sides} == {True, False}
        assert agree(world)


def test_consent_ends_both_sides_when_the_way_dies() -> None:
    """Both use the pair, then every packet is lost: both stop within 30 s and a bit."""
    world = build(("home", "home"))
    assert connect(world)
    for side in world.sides:
        selected = side.agent.selected
        assert selected is not None
        assert side.agent.use(selected, world.internet.now)
        world.internet.poke(side.node)
    world.internet.run(limit=20.0)
    assert all(len(side.agent.valid_pairs()) == 1 for side in world.sides)
    died = world.internet.now
    world.internet.loss = 1.0
    world.internet.run(limit=60.0)
    for side in world.sides:
        (when, _), *_ = [each for each in side.other_events if type(each[1]).__name__ == "PairLost"]
        assert 23.9 <= when - died <= 30.1
        assert side.agent.valid_pairs() == []


def test_consent_outlives_a_short_translator_lifetime() -> None:
    """A box that forgets after 20 s is kept awake by the consent checks."""
    BOXES["forgetful"] = replace(HOME, lifetimes=Lifetimes(udp_idle=20.0))
    try:
        world = build(("forgetful", "home"))
    finally:
        del BOXES["forgetful"]
    assert connect(world)
    for side in world.sides:
        selected = side.agent.selected
        assert selected is not None
        side.agent.use(selected, world.internet.now)
        world.internet.poke(side.node)
    world.internet.run(limit=600.0)
    assert all(len(side.agent.valid_pairs()) == 1 for side in world.sides)


# --- time -----------------------------------------------------------------------------------------------


def test_two_home_boxes_are_connected_within_ninety_milliseconds() -> None:
    """20 ms one way, candidates known, starts 10 ms apart, Ta 5 ms: both sides have a valid pair by then."""
    for lead in (0, 1):
        world = build(("home", "home"))
        one, other = world.sides
        for number, side in enumerate(world.sides):
            world.internet.bind(side.node, world.hosts[number], world.bases[number])
            side.peer.gather([world.bases[number]], [], 0.0)
            mapped = world.internet.reflexive(world.hosts[number], world.bases[number], world.server)
            assert mapped is not None
            side.peer.add_reflexive(mapped, world.bases[number], world.server, 0.0)
        for side, peer in ((one, other), (other, one)):
            start = 0.0 if side is world.sides[lead] else 0.01
            world.internet.call_at(start, partial(begin, world, side, peer))
        assert world.attempt.run()
        assert max(side.valid[0][0] for side in world.sides) <= 0.09


def begin(world: World, side: Side, peer: Side) -> None:
    now = world.internet.now
    for candidate in peer.agent._checker.locals:
        side.agent.add_remote_candidate(candidate, now)
    side.agent.set_remote(peer.agent.ufrag, peer.agent.pwd, now)
    world.internet.poke(side.node)


def test_public_hosts_are_valid_one_round_trip_after_the_signal() -> None:
    """The first check leaves in the instant in which it can."""
    world = build(("public", "public"))
    assert connect(world)
    assert min(side.valid[0][0] for side in world.sides) == pytest.approx(0.06)


def test_a_seed_repeats_a_run() -> None:
    """The same seed gives the same packets at the same times, another seed others."""

    def story(seed: int) -> list[tuple[float, str]]:
        world = build(("home", "symmetric"), seed=seed, loss=0.1)
        connect(world, relays=True)
        return [(when, str(pair.remote.address)) for side in world.sides for when, pair in side.valid]

    assert story(3) == story(3)
    assert len({tuple(story(seed)) for seed in range(5)}) > 1


def test_an_address_that_never_answers_gets_no_more_than_twenty_datagrams() -> None:
    """Symmetric against home: counted on the wire, every unproven address stays under the limit."""
    world = build(("symmetric", "home"))
    counted: Counter[Address] = Counter()
    world.internet.observe = lambda now, packet: counted.update([packet.destination])
    assert not connect(world, limit=200.0)
    del counted[world.server]
    assert counted
    assert max(counted.values()) <= 20
