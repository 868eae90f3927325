"""Plans for hard NATs on real sockets: two sides on loopback, which know each other by signals alone."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from crowline.api.traversal.gatherer import MAX_ADOPTED
from crowline.base.addresses import Address
from crowline.ice.events import PairLost, PairValid
from crowline.ice.pair import ValidPair
from crowline.net.plan_store import FILE
from crowline.net.udp import UdpSocket
from crowline.punch.nat_profile import NatProfile
from crowline.punch.plan_choice import Way
from crowline.punch.punch_signals import PunchCall, PunchProfile, PunchReady
from crowline.rendezvous.signals import Description
from punching_side import EASY, HARD, HOST, Side, StunServer, measuring, until


@pytest.fixture(autouse=True)
def profiles(monkeypatch: pytest.MonkeyPatch) -> list[NatProfile]:
    """What the next measurements find."""
    return measuring(monkeypatch)


async def test_two_sides_meet_by_a_plan_alone(tmp_path: Path, profiles: list[NatProfile]) -> None:
    """Neither has told a candidate: a socket of a plan becomes a base at both, or some do that were met at
    once, and the rest are closed.
    """
    server = StunServer()
    easy = Side(leads=True, folder=tmp_path / "easy", server=server)
    hard = Side(leads=False, folder=tmp_path / "hard", server=server)
    easy.told, hard.told = hard.punching.hear, easy.punching.hear  # type: ignore[assignment]
    easy.punching.vouched(HOST)
    hard.punching.vouched(HOST)
    profiles[:] = [HARD, EASY]
    hard.punching.wait()
    await until(lambda: hard.punching.profile is HARD, hard)
    easy.meet(hard)
    hard.meet(easy)

    def met() -> list[ValidPair]:
        """Those of the easy side that work for the other as well."""
        theirs = {(pair.remote.address, pair.base) for pair in hard.agent.valid_pairs()}
        return [pair for pair in easy.agent.valid_pairs() if (pair.base, pair.remote.address) in theirs]

    await until(met, easy, hard)
    here = met()[0]
    assert easy.gatherer.adopted() == {here.base}
    assert here.remote.address in hard.gatherer.adopted()
    assert [candidate.address for candidate in easy.candidates] == [here.base]
    assert easy.reasons.own == EASY.summary()
    assert easy.reasons.peer == hard.reasons.own == HARD.summary()
    assert easy.reasons._won[here.key] is Way.SPRAY
    assert len(easy.punching._sockets) == len(hard.punching._sockets) == 0
    assert server.asked >= 9
    for folder in ("easy", "hard"):
        await until(lambda name=folder: b"spray" in _read(tmp_path / name / FILE), easy)  # type: ignore[misc]
    memory = easy.punching._notes._memory
    assert memory is not None
    noted = memory.dump()
    assert b'"spray/peer":2' in noted
    # The pair is found once more, as by a restart: it counts once.
    easy.punching.on_event(PairValid(here))
    assert memory.dump() == noted
    for side in (easy, hard):
        side.close()
    server.close()


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


async def test_a_side_that_waits_measures_and_one_that_joins_does_not(tmp_path: Path) -> None:
    """The joining side's first moments belong to the first checks."""
    server = StunServer()
    host = Side(leads=False, folder=tmp_path, server=server)
    guest = Side(leads=True, folder=tmp_path, server=server)
    guest.punching.wait()
    host.punching.wait()
    await until(lambda: host.punching.profile, host)
    for _ in range(10):
        await asyncio.sleep(0)
    assert guest.punching.profile is None
    for side in (host, guest):
        side.close()
    server.close()


async def test_a_side_that_knows_no_plans_is_left_alone(tmp_path: Path) -> None:
    """Nothing is measured for it and nothing is told it."""
    server = StunServer()
    side = Side(leads=True, folder=tmp_path, server=server)
    side.punching.meet(replace_punches(side.description, punches=False))
    for _ in range(10):
        await asyncio.sleep(0)
    assert (side.punching.profile, side.signals) == (None, [])
    side.close()
    server.close()


def replace_punches(description: Description, *, punches: bool) -> Description:
    return Description(description.ufrag, description.pwd, description.fingerprint, punches=punches)


async def test_a_side_that_wants_no_plans_does_nothing(tmp_path: Path) -> None:
    """Both are on one machine, or only relays may be used: whatever the other side says."""
    side = Side(leads=False, folder=tmp_path, is_wanted=False)
    other = Side(leads=True, folder=tmp_path)
    side.punching.wait()
    side.meet(other)
    side.punching.hear(PunchProfile(host="198.51.100.7"))
    side.punching.hear(PunchCall(1, "spray", "callee"))
    side.punching.on_network_change()
    for _ in range(10):
        await asyncio.sleep(0)
    assert (side.signals, side.vouched, side.reasons.peer) == ([], [], None)
    for each in (side, other):
        each.close()


async def test_addresses_that_checks_may_not_go_to_get_no_probe(tmp_path: Path) -> None:
    """The address policy judges guessed addresses as it judges candidates."""
    server, target = StunServer(), UdpSocket.bind(Address("127.0.0.3", 0), lambda *_: arrived.append(1))
    arrived: list[int] = []
    side, other = Side(leads=False, folder=tmp_path, server=server), Side(leads=True, folder=tmp_path)
    asked: list[Address] = []

    def refuse(address: Address) -> bool:
        asked.append(address)
        side.changed.set()
        return False

    side.allowed = refuse
    side.meet(other)
    await until(lambda: side.punching.profile, side)
    side.punching.vouched("127.0.0.3")
    side.punching.hear(PunchCall(1, "low-ttl", "both"))
    side.punching.hear(PunchReady(1, "127.0.0.3", (target.local.port,)))
    await until(lambda: asked, side)
    for _ in range(20):
        await asyncio.sleep(0)
    assert (set(asked), arrived) == ({target.local}, [])
    for each in (side, other):
        each.close()
    target.close()
    server.close()


async def test_too_many_adopted_sockets_make_room(tmp_path: Path) -> None:
    """Those that lead nowhere are closed; one that a path uses stays."""
    side, other = Side(leads=True, folder=tmp_path), Side(leads=False, folder=tmp_path)
    side.meet(other)
    other.meet(side)
    adoption = side.punching._owner
    sockets = [UdpSocket.bind(Address(HOST, 0), lambda *_: None) for _ in range(MAX_ADOPTED + 1)]
    side.in_use = {sockets[2].local}
    for socket in sockets:
        adoption.adopt(socket, other.agent.probe(socket.local, socket.local), Address(HOST, 9))
    assert side.gatherer.adopted() == {sockets[2].local, sockets[-1].local}
    assert [socket.fd == -1 for socket in sockets] == [True, True, False, *[True] * 5, False]
    for each in (side, other):
        each.close()


async def test_a_direct_pair_ends_the_need_to_measure(tmp_path: Path) -> None:
    """Whoever has a way asks no server what it is behind; when the way is lost, it is asked."""
    server = StunServer()
    one = Side(leads=True, folder=tmp_path / "one", server=server)
    other = Side(leads=False, folder=tmp_path / "other", server=server)
    for here, there in ((one, other), (other, one)):
        here.gatherer.offer_hosts()
        here.agent.set_remote(there.agent.ufrag, there.agent.pwd, here.pump.now)
        here.pump.flush()
    one.agent.add_remote_candidate(other.candidates[0], one.pump.now)
    one.pump.flush()
    await until(lambda: any(isinstance(each, PairValid) for each in one.events), one, other)
    one.punching.meet(other.description)
    for _ in range(10):
        await asyncio.sleep(0)
    assert one.punching.profile is None
    one.agent.remove_remote_candidate(one.agent.valid_pairs()[0].remote.address, one.pump.now)
    one.pump.flush()
    await until(lambda: any(isinstance(each, PairLost) for each in one.events), one)
    await until(lambda: one.punching.profile, one)
    for side in (one, other):
        side.close()
    server.close()


async def test_two_random_nats_are_said_to_be_too_hard_at_once(
    tmp_path: Path, profiles: list[NatProfile]
) -> None:
    """Plans go on, but nobody has to wait for their end to hear the reason."""
    profiles[:] = [HARD]
    server = StunServer()
    side, other = Side(leads=False, folder=tmp_path, server=server), Side(leads=True, folder=tmp_path)
    side.meet(other)
    await until(lambda: side.punching.profile, side)
    assert not side.reasons.is_exhausted
    side.punching.hear(PunchProfile.of(HARD.summary(), "198.51.100.7"))
    assert side.reasons.is_exhausted
    assert side.reasons.obstacle == "both NATs draw a new random port for each destination"
    for each in (side, other):
        each.close()
    server.close()


async def test_another_network_is_measured_again(tmp_path: Path, profiles: list[NatProfile]) -> None:
    """What was found is of the network that was left."""
    profiles[:] = [EASY, HARD]
    server = StunServer()
    side, other = Side(leads=True, folder=tmp_path, server=server), Side(leads=False, folder=tmp_path)
    side.meet(other)
    await until(lambda: side.punching.profile is EASY, side)
    side.punching.on_network_change()
    await until(lambda: side.punching.profile is HARD, side)
    summaries = [each.summary for each in side.punch_signals if isinstance(each, PunchProfile)]
    assert summaries == [EASY.summary(), HARD.summary()]
    for each in (side, other):
        each.close()
    server.close()


async def test_a_machine_that_lets_nothing_out_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A firewall of its own: a person should know, and the plan goes on in vain."""
    server = StunServer()
    side, other = Side(leads=False, folder=tmp_path, server=server), Side(leads=True, folder=tmp_path)
    side.meet(other)
    await until(lambda: side.punching.profile, side)

    def refused(*_: object) -> None:
        raise PermissionError(1, os.strerror(1))

    monkeypatch.setattr(UdpSocket, "_call_once", refused)
    side.punching.hear(PunchCall(1, "low-ttl", "both"))
    await until(lambda: side.warnings, side)
    assert len(side.warnings) == 1
    monkeypatch.undo()
    for each in (side, other):
        each.close()
    server.close()
