"""IPv4 hosts from a machine without IPv4: when a prefix is sought, and what is sent and judged with it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import closing

import pytest

from crowline.api.options import Options
from crowline.api.path_reasons import PathReasons
from crowline.api.traversal import surroundings
from crowline.api.traversal import translation as translation_module
from crowline.api.traversal.translation import Translation
from crowline.api.traversal.traversal import Traversal
from crowline.base.addresses import Address
from crowline.base.nat64 import WELL_KNOWN_NAME, Nat64Prefix, Pref64
from crowline.ice.candidate import Candidate, CandidateType
from crowline.link.identity import Identity
from crowline.net import nat64
from crowline.rendezvous.signals import CandidateGone, CandidateSignal, Description, Signal

PREFIX = Nat64Prefix.parse("2001:470:64::/96")
PUBLIC = Address("8.8.4.4", 5000)
PRIVATE = Address("192.168.1.1", 5000)


class Resolver:
    """A name server with DNS64, or without."""

    def __init__(self, *, translates: bool = True) -> None:
        self.asked: list[str] = []
        self._translates = translates

    async def __call__(self, name: str) -> list[str]:
        self.asked.append(name)
        return [PREFIX.synthesize("192.0.0.170")] if self._translates else []


def translated(address: Address) -> Address:
    return Address(PREFIX.synthesize(address.host), address.port)


def remote(address: Address) -> Candidate:
    return Candidate("1", 1, "udp", 100, address, CandidateType.HOST)


async def test_a_machine_without_ipv4_finds_the_prefix() -> None:
    """And reaches IPv4 hosts by it, IPv6 ones as they are."""
    resolver = Resolver()
    with closing(Translation(["2001:470::7"], resolver)) as translation:
        assert translation.towards(PUBLIC) == PUBLIC
        assert await translation.find()
        assert resolver.asked == [WELL_KNOWN_NAME]
        assert translation.towards(PUBLIC) == translated(PUBLIC)
        assert translation.meant(translated(PUBLIC)) == PUBLIC
        other = Address("2001:470::9", 5000)
        assert translation.towards(other) == translation.meant(other) == other
        assert [each.address for each in translation.checkable([remote(PUBLIC), remote(other)])] == [
            translated(PUBLIC)
        ]


@pytest.mark.parametrize("hosts", [["192.0.2.7", "2001:470::7"], ["127.0.0.1", "::1"], []])
async def test_nobody_is_asked_where_there_is_ipv4_or_nothing(hosts: list[str]) -> None:
    """A machine that has both families, the loopback of any machine, one without network."""
    resolver = Resolver()
    with closing(Translation(hosts, resolver)) as translation:
        assert not await translation.find()
        assert resolver.asked == []
        assert translation.towards(PUBLIC) == PUBLIC


async def test_a_network_without_nat64_changes_nothing() -> None:
    """The resolver knows no such name."""
    with closing(Translation(["2001:470::7"], Resolver(translates=False))) as translation:
        assert not await translation.find()
        assert translation.checkable([remote(PUBLIC)]) == []


async def test_another_network_has_another_prefix_or_none() -> None:
    """The one before is void at once, and is asked for again."""
    resolver = Resolver()
    with closing(Translation(["2001:470::7"], resolver)) as translation:
        assert await translation.find()
        translation.follow(["2001:470:1::7"])
        assert translation.towards(PUBLIC) == PUBLIC
        assert await translation.find()
        assert len(resolver.asked) == 2
        translation.follow(["192.0.2.7", "2001:470:1::7"])
        assert not await translation.find()


async def test_a_router_may_say_the_prefix() -> None:
    """RFC 8781, where the resolver knows nothing."""
    with closing(Translation(["2001:470::7"], Resolver(translates=False))) as translation:
        translation.learn(Pref64(PREFIX, 600), 2)
        assert await translation.find()
        assert translation.towards(PUBLIC) == translated(PUBLIC)


async def test_another_network_has_other_routers() -> None:
    """What those of the network before have said is void, although its time is not over."""
    with closing(Translation(["2001:470::7"], Resolver())) as translation:
        translation.learn(Pref64(Nat64Prefix.parse("64:ff9b:1::/96"), 65_528), 2)
        assert await translation.find()
        translation.follow(["2001:470:1::7"], [2])
        assert await translation.find()
        assert translation.towards(PUBLIC) == translated(PUBLIC)


async def test_a_resolver_that_is_not_ready_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses come before name servers do; nobody else would tell when these are there."""
    monkeypatch.setattr(translation_module, "RETRY_DELAYS", (0.0, 0.0))
    monkeypatch.setattr(nat64, "SILENCE_LIFETIME", 0.0)
    resolver = Resolver()

    async def unready(name: str) -> list[str]:
        if len(resolver.asked) < 2:
            resolver.asked.append(name)
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return await resolver(name)

    with closing(Translation(["2001:470::7"], unready)) as translation:
        assert await translation.seek()
        assert len(resolver.asked) == 3


async def test_nobody_is_asked_after_the_end() -> None:
    """Whoever still wants to know finds nothing."""
    resolver = Resolver()
    translation = Translation(["2001:470::7"], resolver)
    translation.close()
    assert not await translation.seek()
    assert resolver.asked == []


class Owner:
    """Of a traversal that never finds a pair."""

    reasons = PathReasons()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *said: None


@pytest.fixture
async def side(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Traversal]:
    """A side that has IPv6 alone, in a network with NAT64, and knows the other's credentials."""
    monkeypatch.setattr(surroundings, "local_addresses", lambda *, loopback: ["::1"])
    monkeypatch.setattr(surroundings, "Translation", lambda hosts: Translation(hosts, Resolver()))
    told: list[Signal] = []
    made = Traversal(
        Owner(),
        Owner(),
        Options("ws://localhost"),
        identity=Identity.generate(),
        controlling=True,
        hub_host="::1",
        loopback=False,
        signal=told.append,
    )
    made.begin()
    assert made.set_remote(Description("ufrag", "p" * 22, "00" * 32))
    with closing(made):
        yield made


def checked(side: Traversal) -> set[Address]:
    return {each.address for each in side._agent._session.remotes}


def tell(side: Traversal, address: Address) -> None:
    side.hear(CandidateSignal("1", 1, "udp", 100, address.host, address.port, "srflx"))


async def test_candidates_are_checked_by_translation_whenever_they_come(side: Traversal) -> None:
    """Before the prefix is known and afterwards; one that is gone is gone in both forms."""
    tell(side, PUBLIC)
    assert checked(side) == {PUBLIC}
    await side._translate()
    later = Address("8.8.8.8", 5000)
    tell(side, later)
    assert checked(side) == {PUBLIC, translated(PUBLIC), later, translated(later)}
    side.hear(CandidateGone(PUBLIC.host, PUBLIC.port))
    assert checked(side) == {later, translated(later)}


async def test_what_a_translated_address_stands_for_is_judged(side: Traversal) -> None:
    """A private host behind this network's translator is as forbidden as by its own address."""
    await side._translate()
    tell(side, PRIVATE)
    tell(side, translated(PRIVATE))
    tell(side, translated(PUBLIC))
    assert checked(side) == {translated(PUBLIC)}
