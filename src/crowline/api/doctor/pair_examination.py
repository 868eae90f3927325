"""What can the two of us do? Both sides meet, try every pair, measure what works, and tell each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

from crowline.api.connection import Connection
from crowline.api.doctor.pair_talk import NO_DOCTOR, TOGETHER, PairTalk
from crowline.api.doctor.pair_trials import PairTrials
from crowline.api.doctor.path_probe import PathProbe
from crowline.api.options import Options, default_server
from crowline.api.path import Path
from crowline.api.peer import Peer
from crowline.api.room import Room, opened
from crowline.base.errors import NobodyCame, ProtocolViolation
from crowline.diagnosis.pair_messages import Settled, SideFacts
from crowline.diagnosis.pair_report import Measure, PairReport
from crowline.diagnosis.pair_side import side_of
from crowline.diagnosis.pair_trial import PairTrial
from crowline.ice.pair import ValidPair
from crowline.punch.obstacle import obstacle
from crowline.punch.plan_choice import Fit, Way, choose_plans
from crowline.rendezvous.code import Code
from crowline.rendezvous.role import Role

__all__ = ["Measure", "PairReport", "PairRoom", "PairTrial", "SideFacts", "pair_room", "side_of"]

# Seconds for which a direct path must have been in use, so that better ones that are found with it are too.
STEADY = 0.5
# Seconds in which plans for hard NATs find a way or give up, where one of them is likely to, and else: for
# what costs little and may do what nobody expects of it. Ordinary checks are long over by then.
PLANS_LIMIT = 20.0
UNLIKELY_LIMIT = 6.0
# Ways that begin at once, whatever is known; TCP has met after five seconds, or will not.
BESIDE = (Way.TCP, Way.RELAY)
# Seconds that a relay may take beside a direct path, which is quicker on lines that lose little.
RELAY_LIMIT = 5.0
# Seconds for the other side's own examination and plans, whose limits are the same as this side's.
PATIENCE = 60.0
# Bytes of the largest train by kind of path. A relay is the server's; link zero has 4 MiB for a meeting.
TRAINS = {"direct": 8 << 20, "lan": 8 << 20, "relay": 1 << 20, "hub": 64 << 10}

T = TypeVar("T")


class PairRoom:
    """A meeting of two doctors. `code` is what the other side needs."""

    def __init__(self, room: Room, connection: Connection, *, leads: bool) -> None:
        self._room = room
        self._leads = leads
        self._connection = connection
        traversal = connection._traversal
        assert traversal is not None
        self._traversal = traversal
        self._trials = PairTrials(traversal.agent.pairs)
        traversal.on_ice = self._trials.on_event

    @property
    def code(self) -> str:
        return self._room.code

    def on_path(self, tell: Callable[..., None]) -> None:
        """As `Room.on_path`."""
        self._room.on_path(tell)

    def on_warning(self, tell: Callable[[str], None]) -> None:
        """As `Room.on_warning`."""
        self._room.on_warning(tell)

    async def peer(self) -> Peer:
        """As `Room.peer`."""
        return await self._room.peer()

    async def examine(self, own: SideFacts) -> PairReport:
        """Everything, with whoever came; `own` is what this side knows of itself.

        Raises `ProtocolViolation` where the other side is no doctor, `NobodyCame` where it says nothing, and
        what ends a connection.
        """
        peer = await self._room.peer()
        talk, theirs = await _in_time(self._begin(peer, own))
        reasons = self._connection.carriers.reasons
        reasons.own, reasons.peer = reasons.own or own.summary, reasons.peer or theirs.summary
        await self._settle(peer, own, theirs)
        await _in_time(talk.settle(Settled(peer.path is not None and peer.path.is_direct)))
        best, relay = await self._measure(peer, talk)
        words = "" if best is not None and best.is_direct else obstacle(own.summary, theirs.summary)
        report = PairReport(
            own=own,
            peer=theirs,
            trials=tuple(self._trials.trials(own.summary, theirs.summary)),
            best=replace(best, reason=words) if best is not None and words else best,
            relay=relay,
            obstacle=words,
            setup_ms=peer.setup_ms,
            direct_ms=peer.direct_ms,
        )
        return replace(report, peer_result=await _in_time(talk.conclude(report.result)))

    async def _begin(self, peer: Peer, own: SideFacts) -> tuple[PairTalk, SideFacts]:
        if not self._leads:
            talk = PairTalk(await peer.accept_stream())
            return talk, await talk.begin(own)
        talk = PairTalk(await peer.open_stream())
        begun = asyncio.ensure_future(talk.begin(own))
        # No doctor opens a stream where it was given the code.
        stranger = asyncio.ensure_future(peer.accept_stream())
        try:
            await asyncio.wait((begun, stranger), return_when=asyncio.FIRST_COMPLETED)
            if not begun.done() and stranger.exception() is None:
                raise ProtocolViolation(NO_DOCTOR, hint=TOGETHER)
            return talk, await begun
        finally:
            for task in (begun, stranger):
                task.cancel()
            await asyncio.gather(begun, stranger, return_exceptions=True)

    async def _settle(self, peer: Peer, own: SideFacts, theirs: SideFacts) -> None:
        """Until a direct path has been in use for a while, or there is no hope of one any more."""
        loop = asyncio.get_running_loop()
        plans = choose_plans(own.summary, theirs.summary, leads=self._leads)
        is_hopeful = any(plan.fit is Fit.LIKELY and plan.way not in BESIDE for plan in plans)
        end = loop.time() + (PLANS_LIMIT if is_hopeful else UNLIKELY_LIMIT)
        direct_since: float | None = None
        while loop.time() < end:
            is_direct = peer.path is not None and peer.path.is_direct
            direct_since = (direct_since or loop.time()) if is_direct else None
            if direct_since is not None and loop.time() >= direct_since + STEADY:
                return
            await asyncio.sleep(STEADY / 10)
        if direct_since is None:
            self._connection.carriers.reasons.exhausted()

    async def _measure(self, peer: Peer, talk: PairTalk) -> tuple[Measure | None, Measure | None]:
        """The path in use, and the relay beside it."""
        path = peer.path
        probe = PathProbe(self._traversal)
        best = None if path is None else await self._probe(path, probe)
        relay = None
        if path is not None and path.is_direct and (relayed := await _relay_of(peer)) is not None:
            relay = replace(await self._probe(relayed, probe), reason="beside the direct path")
        limit = TRAINS["hub" if path is None else path.kind]
        up, down = await _in_time(self._trains(talk, limit))
        now = peer.path
        if now is not None and now.is_direct and not (path is not None and path.is_direct):
            # It came late, and the trains went by another.
            return await self._probe(now, probe), best
        return None if best is None else replace(best, up=up, down=down), relay

    async def _trains(self, talk: PairTalk, limit: int) -> tuple[float | None, float | None]:
        """The rates of what this side sends and of what it takes."""
        if self._leads:
            up = await talk.send_trains(limit)
            return up, await talk.take_trains()
        down = await talk.take_trains()
        return await talk.send_trains(limit), down

    async def _probe(self, path: Path, probe: PathProbe) -> Measure:
        measure = Measure(path.kind, path.transport, path.local, path.remote, path.reason, path.rtt)
        pair = self._pair_of(path)
        if pair is None:
            return measure
        probed = await probe.run(pair)
        return replace(measure, rtt=probed.rtt or path.rtt, loss=probed.loss)

    def _pair_of(self, path: Path) -> ValidPair | None:
        """The pair of a path over UDP."""
        for pair in self._traversal.valid_pairs():
            ends = (str(pair.local.address), str(pair.remote.address))
            if ends == (path.local, path.remote) and not pair.transport.is_stream:
                return pair
        return None


@asynccontextmanager
async def pair_room(
    code: str | None = None, server: str | None = None, *, timeout: float | None = None
) -> AsyncIterator[PairRoom]:
    """Open a room for two doctors, or enter that of `code`. Raises as `host` and `join` do."""
    options = Options(server or default_server(), timeout=timeout, tells_moves=True)
    if code is None:
        connection = Connection(Role.HOST, options)
    else:
        connection = Connection(Role.JOIN, options, Code.parse(code))
    async with opened(connection) as room:
        pair = PairRoom(room, connection, leads=code is not None)
        if code is None:
            await asyncio.shield(connection.code_ready)
        yield pair


async def _relay_of(peer: Peer) -> Path | None:
    """The relayed path that is up, or comes up soon: it takes its server some round trips."""
    loop = asyncio.get_running_loop()
    end = loop.time() + RELAY_LIMIT
    while True:
        relayed = next((each for each in peer.paths() if each.kind == "relay"), None)
        if relayed is not None or loop.time() >= end:
            return relayed
        await asyncio.sleep(STEADY / 10)


async def _in_time(work: Awaitable[T]) -> T:
    """Raises `NobodyCame` where the other side lets one wait."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await work
    except TimeoutError:
        raise NobodyCame("The other side does not go on.", hint=TOGETHER) from None
