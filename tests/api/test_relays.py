"""The race to our own server: streams that break, servers that restart, redirections, and proxies."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

import turn_front
from crowline.api.traversal import race as race_module
from crowline.api.traversal import relays as relays_module
from crowline.api.traversal.relay import StreamWay
from crowline.api.traversal.relay_server import RelayServer
from crowline.base.addresses import Address
from crowline.base.errors import ServerUnreachable
from crowline.base.transport import Transport
from crowline.net.stream import StreamTarget
from crowline.server.front import StunTurnFront
from crowline.turn.auth import issue_credentials
from crowline.turn.events import AllocationFailed
from relay_owner import RelayUser, relay_user
from small_proxies import connect_proxy, socks_proxy
from turn_front import SECRET
from turn_socket import plain_socket

LOGIN = issue_credentials(SECRET, "meeting", int(time.time()) + 3600)


def front(port: int = 0, **options: Any) -> AbstractAsyncContextManager[StunTurnFront]:
    """A server on loopback, UDP and TCP on one port."""
    return turn_front.front(Address("127.0.0.1", port), **options)


def by_tcp(running: StunTurnFront) -> RelayServer:
    [address] = running.tcp_addresses
    return RelayServer((), (StreamTarget(address.host, address.port),))


async def echo_once(user: RelayUser, data: bytes) -> None:
    """A datagram to a plain socket on another host than the server's, and back."""
    with plain_socket("127.0.0.2") as peer:
        user.relay.permit(peer.local)
        user.send(data, peer.local)
        assert (await peer.receive())[0] == data
        peer.send(data[::-1], user.relay.relayed[0])
        await user.until(lambda: (data[::-1]) in [each[0] for each in user.received])


def abort(user: RelayUser) -> None:
    """Cut the winner's TCP connection with a reset."""
    way = user.relay.way
    assert isinstance(way, StreamWay) and way.stream is not None and way.stream._transport is not None
    way.stream._transport.abort()


async def test_data_goes_by_tcp() -> None:
    """Both ways through our server, and the path says so."""
    async with front() as running, relay_user(*LOGIN) as user:
        user.allocate(by_tcp(running))
        relay = await user.first()
        await echo_once(user, b"hello")
        assert user.relays.transport_of(relay.relayed[0]) is Transport.TCP
        assert user.relays.transport_of(Address("127.0.0.1", 1)) is Transport.UDP


async def test_t8_a_broken_stream_leaves_a_relay() -> None:
    """Cut again and again: the ticket keeps the relayed address, or another one is made; data flows on."""
    async with front() as running, relay_user(*LOGIN) as user:
        user.allocate(by_tcp(running))
        await user.first()
        for number in range(3):
            before = user.relay.way
            abort(user)
            await user.until(
                lambda before=before: (
                    bool(user.relays.winners())  # type: ignore[misc]
                    and user.relay.way is not before
                    and not user.relay.client.is_moving
                )
            )
            await echo_once(user, b"after cut %d" % number)
        assert user.over == 1


@pytest.mark.parametrize("after", [0, 1, 2, 3])
async def test_t8_a_connection_cut_at_every_step_ends_the_race_once(after: int) -> None:
    """A server that resets after so many answers: no relay, said once, no task or socket left behind."""
    answers = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answers
        there = await asyncio.open_connection(*upstream)
        try:
            while answers < after:
                there[1].write(await reader.read(4096))
                writer.write(await there[0].read(4096))
                answers += 1
        finally:
            there[1].transport.abort()
            writer.transport.abort()

    async with front() as running, relay_user(*LOGIN) as user:
        upstream = (running.tcp_addresses[0].host, running.tcp_addresses[0].port)
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        target = StreamTarget("127.0.0.1", server.sockets[0].getsockname()[1])
        user.allocate(RelayServer((), (target,)))
        await user.until(lambda: user.over == 1)
        assert len(user.allocated) == (1 if after >= 2 else 0)
        user.close()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.05)


async def test_t8_a_server_that_speaks_something_else_ends_the_race() -> None:
    """HTTP, whose letters look like a channel, is no TURN; the race is over at once."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read(100)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with relay_user(*LOGIN) as user:
        target = StreamTarget("127.0.0.1", server.sockets[0].getsockname()[1])
        user.allocate(RelayServer((), (target,)))
        await user.until(lambda: user.over == 1)
        assert user.relays.winners() == []
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP], ids=lambda transport: transport.value)
async def test_q11_a_restarted_server_gets_the_allocation_made_again(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All state of the server is gone: the client is told at its next word, and allocates anew."""
    monkeypatch.setattr(race_module, "FIRST_RETRY", 0.05)
    async with relay_user(*LOGIN) as user:
        async with front() as running:
            [address] = running.udp_addresses
            udp = (address,) if transport is Transport.UDP else ()
            tcp = (StreamTarget(address.host, address.port),) if transport is Transport.TCP else ()
            user.allocate(RelayServer(udp, tcp))
            relay = await user.first()
        async with front(address.port):
            if transport is Transport.UDP:
                relay.verify()
            await user.until(lambda: bool(user.lost) and bool(user.relays.winners()))
            assert user.lost == [relay] and user.relay is not relay
            await echo_once(user, b"again")
            user.close()


async def test_a_signed_redirection_is_followed() -> None:
    """Our server, drained, names another on its host; both UDP and TCP clients go there."""
    async with front() as other, front() as running, relay_user(*LOGIN) as user:
        running.drain(other.udp_addresses[0])
        user.allocate(RelayServer((running.udp_addresses[0],)))
        relay = await user.first()
        assert relay.server == other.udp_addresses[0]
        user.allocate(by_tcp(running))
        await user.until(lambda: len(user.relays.winners()) == 2)
        assert user.relays.winners()[1].server == other.tcp_addresses[0]


@pytest.mark.parametrize("domain", ["", "other.example"])
async def test_a_redirected_stream_knows_whose_certificate_to_ask_for(
    domain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 8489 §10: the same as before, or the one of ALTERNATE-DOMAIN, for which a pin says nothing."""
    asked: list[StreamTarget] = []

    async def refuse(target: StreamTarget) -> StreamWay:
        asked.append(target)
        raise ServerUnreachable("Not here.")

    async with front() as running, relay_user(*LOGIN) as user:
        user.allocate(by_tcp(running))
        relay = await user.first()
        [race] = user.relays._races
        assert isinstance(relay.way, StreamWay)
        relay.way.target = StreamTarget("turn.example", 443, Transport.TLS, "ab" * 32)
        race.winner = None
        monkeypatch.setattr(StreamWay, "open", refuse)
        race.on_turn_event(relay, AllocationFailed(300, "", Address("44.7.7.7", 5349), domain))
        await user.until(lambda: len(asked) > 0)
        pin, name = ("", domain) if domain else ("ab" * 32, "turn.example")
        assert asked[0] == StreamTarget("44.7.7.7", 5349, Transport.TLS, pin, name)


# --- another route --------------------------------------------------------------------------------------


class Route:
    """The address by which this machine's packets leave, and how often it was asked for."""

    def __init__(self) -> None:
        self.source: str | None = "127.0.0.1"
        self.looks = 0

    def towards(self, destination: Address) -> str | None:
        self.looks += 1
        return self.source


@pytest.fixture
def route(monkeypatch: pytest.MonkeyPatch) -> Route:
    """Looked at often."""
    route = Route()
    monkeypatch.setattr(race_module, "source_towards", route.towards)
    monkeypatch.setattr(relays_module, "ROUTE_INTERVAL", 0.05)
    return route


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP], ids=lambda transport: transport.value)
async def test_an_allocation_follows_the_route(transport: Transport, route: Route) -> None:
    """The machine's address changes: the ticket keeps the relayed address, by the new way."""
    async with front() as running, relay_user(*LOGIN) as user:
        udp = RelayServer((running.udp_addresses[0],))
        user.allocate(udp if transport is Transport.UDP else by_tcp(running))
        relay = await user.first()
        before, relayed = relay.way, list(relay.relayed)
        route.source = "127.0.0.3"
        await user.until(lambda: relay.way is not before)
        route.source = relay.way.local.host  # a connection on loopback leaves by the old address
        await user.until(lambda: not relay.client.is_moving)
        assert relay.way.transport is transport
        assert (user.relay, relay.relayed, user.lost) == (relay, relayed, [])
        assert transport is Transport.TCP or relay.way.local.host == "127.0.0.3"
        await echo_once(user, b"elsewhere")


async def test_an_allocation_without_a_ticket_is_asked_for_on_another_route(
    route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be out of reach, which its next refresh would find out minutes later; asked once a change."""
    async with front() as running, relay_user(*LOGIN) as user:
        user.allocate(RelayServer((running.udp_addresses[0],)))
        relay = await user.first()
        relay.client.ticket = None
        asked: list[str | None] = []
        monkeypatch.setattr(relay, "verify", lambda: asked.append(route.source))
        for source in ("127.0.0.3", "127.0.0.1", "127.0.0.3"):
            route.source, route.looks = source, 0
            await user.until(lambda: route.looks > 3)
        assert asked == ["127.0.0.3", "127.0.0.3"]
        assert user.lost == []


async def test_without_a_route_an_allocation_stays_where_it_is(route: Route) -> None:
    """No network at the moment: nothing is moved to nowhere, and nothing is given up."""
    async with front() as running, relay_user(*LOGIN) as user:
        user.allocate(RelayServer((running.udp_addresses[0],)))
        relay = await user.first()
        way, route.source, route.looks = relay.way, None, 0
        await user.until(lambda: route.looks > 2)
        assert relay.way is way and not relay.client.is_moving and user.lost == []


@pytest.mark.parametrize("kind", ["connect", "socks"])
async def test_the_relay_is_reached_through_a_proxy(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment names one, the stream goes through it, and the proxy's end is survived."""
    for name in ("http_proxy", "https_proxy", "socks_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    make, scheme = (connect_proxy, "http") if kind == "connect" else (socks_proxy, "socks5")
    async with make() as proxy, front() as running, relay_user(*LOGIN) as user:
        monkeypatch.setenv("ALL_PROXY", f"{scheme}://127.0.0.1:{proxy.port}")
        user.allocate(by_tcp(running))
        await user.first()
        await echo_once(user, b"through")
        [address] = running.tcp_addresses
        assert proxy.targets == [(address.host, address.port)]
        user.close()
        await asyncio.sleep(0.05)


async def test_nobody_is_waited_for_when_all_ways_are_closed() -> None:
    """A refused connection and no UDP: the race is over at once."""
    with plain_socket() as nobody:
        async with relay_user(*LOGIN) as user:
            user.allocate(RelayServer((), (StreamTarget("127.0.0.1", nobody.local.port),)))
            await user.until(lambda: user.over == 1)
