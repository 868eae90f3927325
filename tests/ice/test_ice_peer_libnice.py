"""Sessions with libnice, which most of GNOME's and GStreamer's calls use, on the loopback interface."""

from __future__ import annotations

import asyncio

import pytest

from crowline.ice.events import PairLost, PairNominated, Restarted, RoleChanged
from crowline.ice.pair import ValidPair
from nice_process import NiceProcess, libnice
from our_ice import PATIENCE, OurIce, our_ice

pytestmark = pytest.mark.peer


async def connect(ours: OurIce, theirs: NiceProcess) -> ValidPair:
    """Let both talk to each other until both have a pair."""
    ours.connection.add_socket(ours.own.local)
    await ours.connection.gather()
    ours.speak_to(theirs.hear)
    theirs.speak_to(ours.connection.hear)
    async with asyncio.timeout(PATIENCE):
        pair = await ours.connection.connected()
    await theirs.until("state ready")
    return pair


async def talk(ours: OurIce, theirs: NiceProcess) -> None:
    """Data in both directions."""
    async with asyncio.timeout(PATIENCE):
        ours.connection.send(b"\xffours")
        assert await theirs.data() == b"\xffours"
        theirs.send(b"\xfftheirs")
        assert await ours.data.get() == b"\xfftheirs"


@pytest.mark.parametrize("regular", [False, True], ids=["aggressive", "regular"])
@pytest.mark.parametrize("trickle", [False, True], ids=["at-once", "trickle"])
@pytest.mark.parametrize("we_control", [True, False])
async def test_a_whole_session(we_control: bool, trickle: bool, regular: bool) -> None:
    """Candidates, checks, nomination and data, in both roles and with both of its ways to nominate."""
    async with (
        our_ice(controlling=we_control) as ours,
        libnice(controlling=not we_control, trickle=int(trickle), regular=int(regular)) as theirs,
    ):
        pair = await connect(ours, theirs)
        assert pair.kind == "lan"
        await talk(ours, theirs)
        assert not ours.of(RoleChanged)
        assert ours.connection.selected is pair


@pytest.mark.parametrize("both_control", [True, False])
async def test_a_role_conflict(both_control: bool) -> None:
    """Both claim the same role: one side gives in, and the session works."""
    async with (
        our_ice(controlling=both_control) as ours,
        libnice(controlling=both_control) as theirs,
    ):
        await connect(ours, theirs)
        await talk(ours, theirs)


async def test_their_checks_come_before_their_candidates() -> None:
    """We know only their password: their check makes the candidate that is used."""
    async with our_ice(controlling=True) as ours, libnice(controlling=False) as theirs:
        ours.connection.add_socket(ours.own.local)
        await ours.connection.gather()
        theirs.speak_to(lambda line: line.startswith("candidate") or ours.connection.hear(line))
        ours.speak_to(theirs.hear)
        async with asyncio.timeout(PATIENCE):
            pair = await ours.connection.connected()
        assert pair.remote.type.value == "prflx"
        await theirs.until("state ready")
        await talk(ours, theirs)


async def test_a_lite_agent_of_theirs() -> None:
    """It sends no check; we control, and nominate."""
    async with our_ice(controlling=True) as ours, libnice(controlling=False, lite=1) as theirs:
        pair = await connect(ours, theirs)
        assert [event.pair for event in ours.of(PairNominated)] == [pair]
        await talk(ours, theirs)


async def test_each_side_gives_the_other_consent() -> None:
    """It asks for consent every few seconds from the start, and takes our answers."""
    async with our_ice(controlling=True) as ours, libnice(controlling=False, consent=1) as theirs:
        pair = await connect(ours, theirs)
        proven = pair.proven_at
        async with asyncio.timeout(PATIENCE):
            while pair.proven_at == proven:  # noqa: ASYNC110 - no event says it
                await asyncio.sleep(0.05)
        await talk(ours, theirs)


@pytest.mark.parametrize("we_control", [True, False])
@pytest.mark.parametrize("we_restart", [True, False])
async def test_a_restart(we_restart: bool, we_control: bool) -> None:
    """Whoever begins it: both agree on a pair under new credentials, and data goes on."""
    async with our_ice(controlling=we_control) as ours, libnice(controlling=not we_control) as theirs:
        await connect(ours, theirs)
        if we_restart:
            assert ours.connection.restart()
            await ours.connection.gather()
        else:
            theirs.hear("restart")
        async with asyncio.timeout(PATIENCE):
            while len(ours.of(PairNominated)) < 2:
                await talk(ours, theirs)
                await asyncio.sleep(0.01)
            if not we_restart:
                await ours.connection.gather()
        await talk(ours, theirs)
        assert [event.by_peer for event in ours.of(Restarted)] == [not we_restart]
        assert not ours.of(PairLost)
