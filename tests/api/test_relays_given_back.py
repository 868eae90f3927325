"""Allocations that nobody wants any more are given back, also those that were on their way."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

import turn_front
from crowline.api.traversal import race as race_module
from crowline.api.traversal.relay import Relay
from crowline.api.traversal.relay_server import RelayServer
from crowline.base.addresses import Address
from crowline.base.secrets import Secret
from crowline.base.transport import Transport
from crowline.net.stream import StreamTarget
from crowline.server.front import StunTurnFront
from crowline.turn.auth import issue_credentials
from crowline.turn.events import AllocationLost
from relay_owner import relay_user
from turn_front import SECRET

LOGIN = issue_credentials(SECRET, "meeting", int(time.time()) + 3600)


def front(port: int = 0, **options: Any) -> AbstractAsyncContextManager[StunTurnFront]:
    """A server on loopback, UDP and TCP on one port."""
    return turn_front.front(Address("127.0.0.1", port), **options)


def server_of(running: StunTurnFront, *transports: Transport) -> RelayServer:
    [address] = running.udp_addresses
    udp = (address,) if Transport.UDP in transports else ()
    tcp = (StreamTarget(address.host, address.port),) if Transport.TCP in transports else ()
    return RelayServer(udp, tcp)


def held(running: StunTurnFront) -> int:
    """Allocations at the server."""
    return len(running._driver.machine.allocations)


def when_signed(monkeypatch: pytest.MonkeyPatch, then: Callable[[Relay], None]) -> None:
    """Call `then` as soon as a relay has sent a request with a signature, before its answer."""
    receive = Relay.receive

    def receive_and_look(relay: Relay, messages: object) -> None:
        was_signed = relay.client._credentials.nonce is not None
        receive(relay, messages)  # type: ignore[arg-type]
        if not was_signed and relay.client._credentials.nonce is not None:
            then(relay)

    monkeypatch.setattr(Relay, "receive", receive_and_look)


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP], ids=lambda transport: transport.value)
async def test_closing_while_the_allocation_is_on_its_way_leaves_none(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is waited for and the allocation deleted; over TCP its ticket would outlive the stream."""
    async with front() as running, relay_user(*LOGIN) as user:
        when_signed(monkeypatch, lambda relay: race.leave())
        user.allocate(server_of(running, transport))
        [race] = user.relays._races
        await user.until(race.left.is_set)
        assert user.allocated == [] and race.relays == set()
        assert running.is_idle
        assert running.counters["turn_allocated"] == 1


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP], ids=lambda transport: transport.value)
async def test_closing_gives_the_winner_back(transport: Transport) -> None:
    """The server has heard before the sockets close."""
    async with front() as running, relay_user(*LOGIN) as user:
        user.allocate(server_of(running, transport))
        await user.first()
        assert held(running) == 1
        await user.relays.give_back()
        assert running.is_idle and user.relays.winners() == []


async def test_a_mute_server_holds_nobody_up() -> None:
    """Nothing was signed, so nothing is waited for."""
    async with front() as running, relay_user(*LOGIN) as user:
        user.is_deaf = True
        user.allocate(server_of(running, Transport.UDP))
        [race] = user.relays._races
        race.leave()
        assert race.left.is_set()


async def test_a_loser_that_gets_its_answer_late_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """UDP falls silent after the challenge and TCP wins: what UDP got meanwhile is deleted."""
    async with front() as running, relay_user(*LOGIN) as user:

        def fall_silent(relay: Relay) -> None:
            if not relay.way.transport.is_stream:
                user.is_deaf = True
                [race] = user.relays._races
                race._open_streams()

        when_signed(monkeypatch, fall_silent)
        user.allocate(server_of(running, Transport.UDP, Transport.TCP))
        relay = await user.first()
        assert relay.way.transport is Transport.TCP and held(running) == 2
        user.is_deaf = False
        [race] = user.relays._races
        await user.until(lambda: held(running) == 1)
        await user.until(lambda: race.relays == {relay})
        assert user.lost == []


async def test_a_loser_does_not_get_what_is_meant_for_its_successor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream that won ends without a ticket, and UDP is tried again from the socket that it lost on."""
    monkeypatch.setattr(race_module, "FIRST_RETRY", 0.05)
    async with front() as running, relay_user(*LOGIN) as user:
        user.is_deaf = True
        user.allocate(server_of(running, Transport.UDP, Transport.TCP))
        relay = await user.first()
        assert relay.way.transport is Transport.TCP
        user.is_deaf = False
        relay.client.ticket = None
        relay.owner.on_way_ended(relay, "cut")
        await user.until(lambda: bool(user.relays.winners()))
        assert user.relay is not relay and user.relay.way.transport is Transport.UDP


async def test_late_words_of_the_server_do_not_end_the_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A datagram from the server between two rounds says nothing about streams: the next round comes."""
    monkeypatch.setattr(race_module, "FIRST_RETRY", 0.05)
    async with front() as running, relay_user(*LOGIN) as user:
        user.allocate(server_of(running, Transport.UDP))
        relay = await user.first()
        [race] = user.relays._races
        race.on_turn_event(relay, AllocationLost("gone"))
        user.relays.heard(running.udp_addresses[0])
        await user.until(lambda: bool(user.relays.winners()))
        assert user.lost == [relay] and user.relay is not relay


async def test_streams_are_tried_when_udp_answers_and_then_fails() -> None:
    """UDP leads to a server that is full, TCP to one that is not."""
    async with front() as full, front() as other, relay_user(*LOGIN) as user:
        full.drain(None)
        by_udp, by_tcp = server_of(full, Transport.UDP), server_of(other, Transport.TCP)
        user.heard.update(by_udp.datagrams)
        user.allocate(RelayServer(by_udp.datagrams, by_tcp.streams))
        assert (await user.first()).way.transport is Transport.TCP


async def test_refused_credentials_are_not_shown_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server has come back with another secret: it is told ours once more, and then left alone."""
    monkeypatch.setattr(race_module, "FIRST_RETRY", 0.05)
    async with relay_user(*LOGIN) as user:
        async with front() as running:
            server = server_of(running, Transport.UDP, Transport.TCP)
            user.allocate(server)
            relay = await user.first()
            [race] = user.relays._races
        async with front(server.datagrams[0].port, secret=Secret(b"another")) as running:
            relay.verify()
            await user.until(lambda: race._is_refused and not race.relays and not race._streams.is_busy)
            assert (race._timer, race._entrants, race.winner) == (None, set(), None)


async def test_one_server_under_two_names_is_asked_once() -> None:
    """Two requests from one socket would be for one allocation."""
    async with front() as running, relay_user(*LOGIN) as user:
        user.allocate(server_of(running, Transport.UDP))
        user.allocate(server_of(running, Transport.UDP))
        await user.until(lambda: user.over == 2)
        await user.first()
        assert held(running) == 1 and running.counters["turn_allocated"] == 1
