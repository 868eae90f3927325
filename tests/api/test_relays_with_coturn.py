"""Our relays at a server of somebody else: coturn, by UDP, TCP and TLS, with moves and redirections."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from certificates import self_signed
from coturn import LOGIN, coturn
from crowline.api.traversal.relay import DatagramWay, StreamWay
from crowline.api.traversal.relay_server import RelayServer
from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.net.stream import StreamTarget
from crowline.stun.transaction import UDP
from crowline.turn import head_start
from relay_owner import RelayUser, relay_user
from turn_socket import plain_socket

pytestmark = pytest.mark.peer


async def exchange(user: RelayUser, count: int = 20) -> None:
    """Datagrams both ways between the relay and a plain socket, first as indications, then on a channel."""
    host = user.relay.relayed[0].host
    with plain_socket(host) as peer:
        user.relay.permit(peer.local)
        for number in range(count):
            if number == count // 2:
                user.relay.bind(peer.local)
                await user.until(lambda: not user.relay.client.is_busy)
            sent = b"%d" % number * (number + 1)
            user.send(sent, peer.local)
            assert await peer.receive() == (sent, user.relay.base_for(peer.local))
            before = len(user.received)
            peer.send(sent[::-1], user.relay.relayed[0])
            await user.until(lambda before=before: len(user.received) > before)  # type: ignore[misc]
            assert user.received[-1][:2] == (sent[::-1], peer.local)


@pytest.mark.parametrize("transport", list(Transport), ids=lambda transport: transport.value)
async def test_data_goes_through_coturn_by_every_transport(tmp_path: Path, transport: Transport) -> None:
    """Allocation, permission, indications and a channel; TLS with its self-signed certificate pinned."""
    certificate = self_signed(tmp_path)
    async with coturn(tmp_path, certificate=certificate) as (plain, secure), relay_user(*LOGIN) as user:
        port = secure if transport is Transport.TLS else plain
        if transport is Transport.UDP:
            user.allocate(RelayServer((Address("127.0.0.1", port),)))
        else:
            target = StreamTarget("127.0.0.1", port, transport, certificate.fingerprint)
            user.allocate(RelayServer((), (target,)))
        relay = await user.first()
        assert relay.way.transport is transport
        await exchange(user)


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP], ids=lambda transport: transport.value)
async def test_coturn_on_ipv6(tmp_path: Path, transport: Transport) -> None:
    """A server that has IPv6 alone gives an IPv6 relay."""
    async with coturn(tmp_path, host="::1") as (plain, _), relay_user(*LOGIN) as user:
        if transport is Transport.UDP:
            user.allocate(RelayServer((Address("::1", plain),)))
        else:
            user.allocate(RelayServer((), (StreamTarget("::1", plain),)))
        relay = await user.first()
        assert relay.relayed[0].is_ipv6
        await exchange(user)


async def test_udp_wins_where_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every way open, UDP makes the allocation, and no stream was needed."""
    monkeypatch.setattr(head_start, "KNOWN_HEAD_START", 20.0)  # on the slowest machine
    async with coturn(tmp_path) as (plain, _), relay_user(*LOGIN) as user:
        # It has answered before, as it has in a meeting whose mappings were asked for.
        user.heard.add(Address("127.0.0.1", plain))
        server = RelayServer((Address("127.0.0.1", plain),), (StreamTarget("127.0.0.1", plain),))
        user.allocate(server)
        assert (await user.first()).way.transport is Transport.UDP
        assert user.over == 1


async def test_tcp_wins_where_udp_is_silent(tmp_path: Path) -> None:
    """No datagram comes back: there is a relay by TCP long before the requests by UDP are given up."""
    async with coturn(tmp_path) as (plain, _), relay_user(*LOGIN) as user:
        user.is_deaf = True
        server = RelayServer((Address("127.0.0.1", plain),), (StreamTarget("127.0.0.1", plain),))
        started = asyncio.get_running_loop().time()
        user.allocate(server)
        relay = await user.first()
        assert relay.way.transport is Transport.TCP
        assert asyncio.get_running_loop().time() - started < UDP.patience / 2
        await exchange(user)


async def test_s6_coturn_cannot_send_us_elsewhere_unsigned(tmp_path: Path) -> None:
    """Its `--alternate-server` answers before it knows us, unsigned: whoever is in between could say that."""
    redirecting = coturn(tmp_path, "--alternate-server", "127.0.0.1:9")
    async with redirecting as (plain, _), relay_user(*LOGIN) as user:
        user.allocate(RelayServer((Address("127.0.0.1", plain),)))
        [race] = user.relays._races
        [relay] = race.relays
        await user.until(lambda: relay.client.counters["unverified"] > 0)
        assert (race.relays, user.allocated, user.over) == ({relay}, [], 0)


async def test_coturn_keeps_an_allocation_that_moves(tmp_path: Path) -> None:
    """`--mobility`: another socket takes the allocation up with the ticket, and data flows on."""
    async with coturn(tmp_path, "--mobility") as (plain, _), relay_user(*LOGIN) as user:
        user.allocate(RelayServer((Address("127.0.0.1", plain),)))
        relay = await user.first()
        relayed, socket = list(relay.relayed), user.socket_at("127.0.0.2")
        assert relay.client.ticket is not None and socket is not None
        relay.move(DatagramWay(socket), relay.server)
        await user.until(lambda: not relay.client.is_moving)
        assert (user.relay, relay.relayed, user.lost) == (relay, relayed, [])
        await exchange(user)


async def test_a_wrong_password_ends_the_race(tmp_path: Path) -> None:
    """No relay, said once, and nothing is tried again."""
    async with coturn(tmp_path) as (plain, _), relay_user("alice", "wrong") as user:
        user.allocate(RelayServer((Address("127.0.0.1", plain),), (StreamTarget("127.0.0.1", plain),)))
        await user.until(lambda: user.over == 1)
        assert user.allocated == [] and user.relays.winners() == []


async def test_a_stream_to_coturn_that_breaks_is_replaced(tmp_path: Path) -> None:
    """Cut with a ticket in hand: whatever coturn makes of the ticket, there is a relay again at once."""
    async with coturn(tmp_path, "--mobility") as (plain, _), relay_user(*LOGIN) as user:
        user.allocate(RelayServer((), (StreamTarget("127.0.0.1", plain),)))
        relay = await user.first()
        assert relay.client.ticket is not None and isinstance(relay.way, StreamWay)
        before = relay.way
        connection = before.connection._transport
        assert connection is not None
        connection.abort()
        await user.until(
            lambda: (
                bool(user.relays.winners())
                and user.relay.way is not before
                and not user.relay.client.is_moving
            )
        )
        assert len(user.allocated) == 1 + len(user.lost)
        await exchange(user)
