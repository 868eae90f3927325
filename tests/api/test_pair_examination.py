"""Two doctors in one process, through a real server on loopback, and sides that are none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

import crowline
from crowline.api.doctor import pair_examination
from crowline.api.doctor.pair_examination import PairReport, PairRoom, SideFacts, pair_room
from crowline.api.options import Options
from crowline.api.path import Path
from crowline.api.peer import Peer
from crowline.base.errors import NobodyCame, ProtocolViolation
from crowline.diagnosis.pair_trial import Result
from crowline.punch.plan_choice import FilterKind, MappingKind, NatSummary, PortChoice
from crowline.server.server import Server
from serving import serving

HARD = SideFacts.of(NatSummary(MappingKind.PER_PORT, FilterKind.PER_PORT, PortChoice.RANDOM), nat="symmetric")
EASY = SideFacts.of(NatSummary(MappingKind.INDEPENDENT), nat="full cone", has_ipv6=True)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as running:
        yield running


async def both(server: Server, first: SideFacts, second: SideFacts) -> tuple[PairReport, PairReport]:
    """The reports of the first side and of the one that joined."""

    async def joined(code: str) -> PairReport:
        async with pair_room(code, server.url) as room:
            return await room.examine(second)

    async with asyncio.timeout(60), pair_room(None, server.url) as room:
        joining = asyncio.create_task(joined(room.code))
        report = await room.examine(first)
        return report, await joining


async def test_both_learn_what_they_can_do(server: Server) -> None:
    """Direct on one machine, with round trip, loss and rates; each has the other's facts and results."""
    host, join = await both(server, EASY, HARD)
    assert (host.peer, join.peer) == (HARD, EASY)
    for report in (host, join):
        assert report.verdict == "direct" and report.exit_code == 0 and report.obstacle == ""
        assert report.best is not None and report.best.reason == "both are in one network"
        assert report.best.rtt is not None and report.best.loss is not None and report.best.loss < 0.5
        assert report.best.up is not None and report.best.down is not None
        assert report.relay is not None and report.relay.kind == "relay" and report.relay.rtt is not None
        assert report.trials[0].result is Result.WORKS and all(trial.reason for trial in report.trials)
        assert report.direct_ms is not None
    assert host.peer_result == join.result and join.peer_result == host.result
    # What one sends is what the other takes.
    assert host.best is not None and join.best is not None
    assert host.best.up == join.best.down or abs((host.best.up or 0) / (join.best.down or 1) - 1) < 0.01


async def test_without_a_direct_path_the_obstacle_is_said(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both may use relays alone, as if nothing else worked; the plans' time is over at once."""
    monkeypatch.setattr(pair_examination, "UNLIKELY_LIMIT", 0.5)

    def relay_only(server: str, **options: object) -> Options:
        return Options(server, relay_only=True, tells_moves=True)

    monkeypatch.setattr(pair_examination, "Options", relay_only)
    for report in await both(server, HARD, HARD):
        assert report.verdict in ("relay", "server") and report.exit_code == 20
        assert report.obstacle == "both NATs draw a new random port for each destination"
        assert report.obstacle in report.sentence


async def test_a_sender_is_no_doctor(server: Server) -> None:
    """Whoever opens a stream where a doctor came to has another business."""
    async with crowline.host(server.url) as room:

        async def sending() -> None:
            stream = await (await room.peer()).open_stream()
            await stream.write(b"an offer")
            with pytest.raises(crowline.CrowlineError):
                await stream.read()
                await stream.read()

        task = asyncio.create_task(sending())
        with pytest.raises(ProtocolViolation, match="does something else"):
            async with asyncio.timeout(30), pair_room(room.code, server.url) as pair:
                await pair.examine(EASY)
        await task


async def test_a_receiver_is_no_doctor(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens no stream and says nothing: after a while that is said."""
    monkeypatch.setattr(pair_examination, "PATIENCE", 0.3)
    with pytest.raises(NobodyCame, match="does not go on"):
        async with (
            asyncio.timeout(30),
            pair_room(None, server.url) as pair,
            crowline.join(pair.code, server.url),
        ):
            await pair.examine(EASY)


async def test_a_direct_path_that_comes_while_rates_are_measured_counts(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the best path then, with what can be said of it; the one that was measured stands beside it."""
    late = asyncio.Event()
    as_it_is = Peer.path

    def path(peer: Peer) -> Path | None:
        found = as_it_is.fget(peer)  # type: ignore[attr-defined]
        if found is None or late.is_set() or not found.is_direct:
            return found
        return replace(found, kind="relay")

    async def trains(self: PairRoom, talk: object, limit: int) -> tuple[None, None]:
        late.set()
        return None, None

    monkeypatch.setattr(Peer, "path", property(path))
    monkeypatch.setattr(PairRoom, "_trains", trains)
    monkeypatch.setattr(pair_examination, "UNLIKELY_LIMIT", 1.0)
    for report in await both(server, HARD, HARD):
        assert report.verdict == "direct" and report.obstacle == ""
        assert report.relay is not None and report.relay.kind == "relay"
