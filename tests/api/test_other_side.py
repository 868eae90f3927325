"""What the other side's signals make this side do, however many there are."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import closing

import pytest

from crowline.api.allowed import Allowed
from crowline.api.options import Options
from crowline.api.path_reasons import PathReasons
from crowline.api.traversal import other_side, surroundings
from crowline.api.traversal.candidate_names import CandidateNames
from crowline.api.traversal.other_side import MAX_RESTARTS
from crowline.api.traversal.traversal import Traversal
from crowline.base.addresses import Address
from crowline.base.mdns_name import mdns_name
from crowline.ice.candidate import CandidateFactory
from crowline.ice.remotes import MAX_REMOTE_CANDIDATES
from crowline.link.identity import Identity
from crowline.rendezvous.signals import Description, Signal


class Owner:
    """Of a traversal that never finds a pair."""

    reasons = PathReasons()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *said: None


@pytest.fixture
def told() -> list[Signal]:
    """What this side tells the other one."""
    return []


@pytest.fixture
async def side(told: list[Signal], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Traversal]:
    monkeypatch.setattr(other_side, "RESTART_INTERVAL", 3600.0)
    monkeypatch.setattr(surroundings, "local_addresses", lambda *, loopback: ["127.0.0.2"])
    made = Traversal(
        Owner(),
        Owner(),
        Options("ws://localhost"),
        identity=Identity.generate(),
        controlling=True,
        hub_host="127.0.0.1",
        loopback=True,
        signal=told.append,
    )
    made.begin()
    with closing(made):
        yield made


def description(number: int) -> Description:
    return Description(f"ufrag{number}", f"password{number}".ljust(22, "x"), "00" * 32, restarts=True)


async def test_restarts_without_an_end_are_followed_for_a_while(side: Traversal, told: list[Signal]) -> None:
    """Each has this side tell everything again: ten times the bytes that it costs the other one."""
    for number in range(5 * MAX_RESTARTS):
        assert side.set_remote(description(number))
    assert sum(1 for each in told if isinstance(each, Description)) <= MAX_RESTARTS


def test_the_relays_of_late_restarts_are_avoided_too() -> None:
    """A meeting of days may see more relayed addresses than are remembered; the latest ones count."""
    allowed = Allowed(Options("ws://localhost", direct_only=True), [], loopback=False, meant=lambda to: to)
    factory = CandidateFactory()
    relays = [Address("8.8.8.8", 40_000 + number) for number in range(2 * MAX_REMOTE_CANDIDATES)]
    for address in relays:
        assert allowed.avoids(factory.relayed(address, address, address))
    assert [address for address in relays if not allowed.check(address)] == relays[-MAX_REMOTE_CANDIDATES:]


async def test_nothing_is_opened_for_names_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals that come while a meeting is being closed have no socket made that nobody closes."""
    opened: list[socket.socket] = []

    class Counted(socket.socket):
        def __init__(self, *arguments: int) -> None:
            super().__init__(*arguments)
            opened.append(self)

    names = CandidateNames(["127.0.0.1"], hides=True)
    names.close()
    monkeypatch.setattr(socket, "socket", Counted)
    async with asyncio.timeout(30):
        assert await names.find(mdns_name(bytes(16))) is None
    assert names.written(CandidateFactory().host(Address("127.0.0.1", 5000))) is None
    assert all(each.family not in (socket.AF_INET, socket.AF_INET6) for each in opened)
