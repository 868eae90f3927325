"""Which NAT64 prefix a network has, asked of its resolver and heard of its routers."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from crowline.base.nat64 import MAX_PREFIXES, WELL_KNOWN_HOSTS, WELL_KNOWN_NAME, Nat64Prefix, Pref64
from crowline.net import nat64
from crowline.net.nat64 import (
    FOUND_LIFETIME,
    MAX_INTERFACES,
    MAX_NETWORKS,
    NONE_LIFETIME,
    SILENCE_LIFETIME,
    Nat64Discovery,
    resolve_ipv6,
)

PATIENCE = 30.0
PREFIX = Nat64Prefix.parse("2001:db8:64::/96")
OTHER = Nat64Prefix.parse("64:ff9b::/96")


class World:
    """A clock, and a resolver that counts its questions."""

    def __init__(self, *prefixes: Nat64Prefix) -> None:
        self.now = 100.0
        self.asked: list[str] = []
        self.prefixes = prefixes
        self.error: OSError | None = None
        self.mute = False
        self.discovery = Nat64Discovery(self.resolve, clock=lambda: self.now)

    async def resolve(self, name: str) -> list[str]:
        self.asked.append(name)
        if self.mute:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return [prefix.synthesize(host) for prefix in self.prefixes for host in WELL_KNOWN_HOSTS]


async def test_the_resolver_is_asked_once_for_a_network() -> None:
    """And again when the answer is old, or for another network."""
    world = World(PREFIX)
    for _ in range(3):
        assert await world.discovery.prefixes("here") == (PREFIX,)
    assert world.asked == [WELL_KNOWN_NAME]
    await world.discovery.prefixes("there")
    assert len(world.asked) == 2
    world.now += FOUND_LIFETIME
    world.prefixes = (OTHER,)
    assert await world.discovery.prefixes("here") == (OTHER,)
    assert len(world.asked) == 3


async def test_several_callers_share_one_question() -> None:
    """Also where one of them gives up."""
    world = World(PREFIX)
    one = asyncio.create_task(world.discovery.prefixes())
    others = [asyncio.create_task(world.discovery.prefixes()) for _ in range(5)]
    await asyncio.sleep(0)
    one.cancel()
    assert await asyncio.gather(*others) == [(PREFIX,)] * 5
    assert len(world.asked) == 1
    assert one.cancelled()


@pytest.mark.parametrize("error", [None, socket.gaierror(socket.EAI_NONAME, "no such name")])
async def test_a_network_without_nat64_has_no_prefix(error: OSError | None) -> None:
    """The name has no IPv6 address there; a minute later it is asked again."""
    world = World()
    world.error = error
    assert await world.discovery.prefixes() == ()
    assert await world.discovery.prefixes() == ()
    assert len(world.asked) == 1
    world.now += NONE_LIFETIME
    world.error, world.prefixes = None, (PREFIX,)
    assert await world.discovery.prefixes() == (PREFIX,)


async def test_a_mute_resolver_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """And soon asked again: the network may have come up only now."""
    monkeypatch.setattr(nat64, "LOOKUP_LIMIT", 0.01)
    world = World(PREFIX)
    world.mute = True
    assert await world.discovery.prefixes() == ()
    world.mute = False
    assert await world.discovery.prefixes() == ()
    world.now += SILENCE_LIFETIME
    monkeypatch.setattr(nat64, "LOOKUP_LIMIT", PATIENCE)
    assert await world.discovery.prefixes() == (PREFIX,)


async def test_only_some_networks_are_remembered() -> None:
    """The oldest answer makes room."""
    world = World(PREFIX)
    for number in range(MAX_NETWORKS + 1):
        await world.discovery.prefixes(number)
    await world.discovery.prefixes(1)
    assert len(world.asked) == MAX_NETWORKS + 1
    await world.discovery.prefixes(0)
    assert len(world.asked) == MAX_NETWORKS + 2


async def test_what_routers_say_comes_first_and_ends_with_its_lifetime() -> None:
    """Or when it is taken back, or the interface leaves the network."""
    world = World(PREFIX)
    world.discovery.learn(Pref64(OTHER, 600), 2)
    assert await world.discovery.prefixes() == (OTHER, PREFIX)
    world.now += 599.0
    world.discovery.learn(Pref64(OTHER, 8), 2)
    world.now += 7.0
    assert OTHER in await world.discovery.prefixes()
    world.now += 1.0
    assert await world.discovery.prefixes() == (PREFIX,)
    for end in (lambda: world.discovery.learn(Pref64(OTHER, 0), 2), lambda: world.discovery.leave(2)):
        world.discovery.learn(Pref64(OTHER, 600), 2)
        assert OTHER in await world.discovery.prefixes()
        end()
        assert await world.discovery.prefixes() == (PREFIX,)


async def test_what_routers_say_is_bounded() -> None:
    """Anybody on the link can say anything: so many prefixes, and so many interfaces."""
    world = World()
    for interface in range(MAX_INTERFACES + 5):
        for number in range(1, MAX_PREFIXES + 5):
            prefix = Nat64Prefix.parse(f"2001:db8:{interface:x}:{number:x}::/96")
            world.discovery.learn(Pref64(prefix, 600), interface)
    assert len(await world.discovery.prefixes()) == MAX_PREFIXES
    for interface in range(MAX_INTERFACES):
        world.discovery.leave(interface)
    assert await world.discovery.prefixes() == ()


async def test_closing_lets_go_of_who_waits() -> None:
    """What routers have said is still known, and nothing more is asked."""
    world = World(PREFIX)
    world.mute = True
    world.discovery.learn(Pref64(OTHER, 600), 2)
    waiting = asyncio.create_task(world.discovery.prefixes())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert world.asked
    world.discovery.close()
    world.discovery.close()
    assert await waiting == (OTHER,)
    assert await world.discovery.prefixes() == (OTHER,)
    assert len(world.asked) == 1


async def test_the_system_resolver_is_asked_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """For IPv6 alone; what it cannot find is an error of the caller's."""
    asked: list[object] = []

    def answer(name: str, port: None, *, family: int, type: int) -> list[object]:
        asked.append((name, family, threading.current_thread() is threading.main_thread()))
        if name != WELL_KNOWN_NAME:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(family, type, 17, "", (PREFIX.synthesize(host), 0, 0, 0)) for host in WELL_KNOWN_HOSTS]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    monkeypatch.setattr(nat64, "LOOKUP_LIMIT", PATIENCE)
    async with asyncio.timeout(PATIENCE):
        assert await Nat64Discovery().prefixes() == (PREFIX,)
        with pytest.raises(socket.gaierror):
            await resolve_ipv6("name.invalid")
    assert asked[0] == (WELL_KNOWN_NAME, socket.AF_INET6, False)


async def test_an_answer_that_comes_too_late_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread ends when the system's call does, whoever still waits."""
    may_answer = threading.Event()

    def answer(*_: object, **__: object) -> list[object]:
        may_answer.wait(PATIENCE)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await resolve_ipv6(WELL_KNOWN_NAME)
    may_answer.set()
    for thread in threading.enumerate():
        if thread.name.startswith("look up "):
            thread.join(PATIENCE)
            assert not thread.is_alive()
    await asyncio.sleep(0)


async def test_prefixes_that_are_over_make_room() -> None:
    """A router that changes its prefix every hour is believed at the fifth time, too, and so is the 17th
    interface when the others are gone."""
    world = World()
    for number in range(1, 3 * MAX_PREFIXES):
        prefix = Nat64Prefix.parse(f"2001:db8:{number:x}::/96")
        world.discovery.learn(Pref64(prefix, 600), 2)
        assert await world.discovery.prefixes() == (prefix,)
        world.now += 600.0
    for interface in range(3, 3 + 2 * MAX_INTERFACES):
        world.discovery.learn(Pref64(PREFIX, 600), interface)
        assert await world.discovery.prefixes() == (PREFIX,)
        world.now += 600.0


async def test_a_resolver_that_cannot_be_asked_yet_is_asked_again_soon() -> None:
    """A network whose name servers are not known yet says nothing of NAT64."""
    world = World(PREFIX)
    world.error = socket.gaierror(socket.EAI_AGAIN, "try again")
    assert await world.discovery.prefixes() == ()
    world.error = None
    world.now += SILENCE_LIFETIME
    assert await world.discovery.prefixes() == (PREFIX,)
