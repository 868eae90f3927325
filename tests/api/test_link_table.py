"""Which pairs get a link, which datagrams begin one, and what strangers can make this side keep."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from crowline.api.links import MAX_EARLY, MAX_LINKS, LinkSecrets, LinkTable
from crowline.api.pair_link import PairLink
from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.ice.candidate import Candidate, CandidateType
from crowline.ice.pair import CandidatePair, ValidPair
from crowline.link import plan
from crowline.link.choice import rank_of
from crowline.link.identity import Identity
from crowline.link.quic import DATAGRAM_SIZE

BASE = Address("192.0.2.1", 5000)
IDENTITY = Identity.generate()
INITIAL = b"\xc0\x00\x00\x00\x01\x08" + bytes(DATAGRAM_SIZE - 6)


def pair(remote: str, priority: int) -> ValidPair:
    local = Candidate("1", 1, "udp", 1, BASE, CandidateType.HOST)
    other = Candidate("1", 1, "udp", 1, Address(remote, 6000), CandidateType.HOST)
    return ValidPair(local, other, CandidatePair(local, other, priority), proven_at=time.monotonic())


@dataclass
class Desk:
    """A table with the pairs that are valid now, and what it did."""

    client: bool
    pairs: list[ValidPair] = field(default_factory=list)
    sent: list[Transmit] = field(default_factory=list)
    downs: list[str] = field(default_factory=list)
    table: LinkTable = field(init=False)

    def __post_init__(self) -> None:
        self.table = LinkTable(
            client=self.client,
            secrets=LinkSecrets(IDENTITY, IDENTITY.fingerprint, Secret(b"k" * 32)),
            entropy=os.urandom,
            numbers=itertools.count(1),
            send=self.sent.append,
            valid_pairs=lambda: self.pairs,
            on_open=lambda pair: None,
            is_ailing=lambda number: False,
            largest=lambda pair: 1472,
            on_up=lambda link: None,
            on_data=lambda link, data: None,
            on_datagram=lambda link, data: None,
            on_down=lambda link, reason: self.downs.append(reason),
        )

    @property
    def links(self) -> list[PairLink]:
        return self.table.links()


@pytest.fixture
def desks() -> Iterator[list[Desk]]:
    made: list[Desk] = []
    yield made
    for desk in made:
        desk.table.close()


async def test_strangers_cannot_make_the_server_side_remember_them(desks: list[Desk]) -> None:
    """Initials from ten thousand forged sources cost a handful of entries."""
    desk = Desk(client=False)
    desks.append(desk)
    for number in range(10_000):
        source = Address(f"198.51.{number // 250 % 250}.{number % 250}", 7000 + number // 60_000)
        desk.table.packet(memoryview(INITIAL), len(INITIAL), source, BASE)
    assert len(desk.table._early) <= MAX_LINKS
    assert sum(len(runs) for runs in desk.table._early.values()) <= MAX_LINKS * MAX_EARLY
    assert not desk.links


async def test_when_the_best_pair_is_lost_the_next_valid_one_gets_a_link(
    desks: list[Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pair that was not needed when it was found is used once it is."""
    monkeypatch.setattr(plan, "RETRY_AFTER", 0.0)
    best, second = pair("198.51.100.1", 10), pair("198.51.100.2", 5)
    desk = Desk(client=True, pairs=[best, second])
    desks.append(desk)
    desk.table.pair_valid(best)
    desk.table.pair_valid(second)
    assert [link.pair for link in desk.links] == [best]
    desk.pairs.remove(best)
    desk.table.pair_lost(best.key, "consent expired")
    await asyncio.sleep(0.01)
    assert [link.pair for link in desk.links] == [second]


async def test_a_pair_that_turns_out_to_be_relayed_makes_room_for_a_direct_one(desks: list[Desk]) -> None:
    """The link on it is ranked anew, and the direct pair that was not needed beside it gets one."""
    seeming, direct = pair("198.51.100.1", 10), pair("198.51.100.2", 5)
    desk = Desk(client=True, pairs=[seeming, direct])
    desks.append(desk)
    desk.table.pair_valid(seeming)
    desk.table.pair_valid(direct)
    [link] = desk.links
    rank, ranks = rank_of(seeming), []
    seeming.remote = replace(seeming.remote, type=CandidateType.RELAYED)
    desk.table.pair_reclassified(seeming, lambda number, rank, merit, now: ranks.append((number, rank)))
    assert ranks == [(link.number, rank_of(seeming))] and rank_of(seeming) < rank
    assert [link.pair for link in desk.links] == [seeming, direct]
