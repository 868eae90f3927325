"""Runs of ChannelData, and data between two clients of one server: fast or long, the same arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

import turn_front
from batches import use_batches
from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.server.front import StunTurnFront
from crowline.turn.quota import Limits
from crowline.turn.server import TurnServer
from turn_socket import SocketClient, plain_socket, turn_client

PEER_HOST = "127.0.0.2"
SIZE = 1000
# A run, its last datagram shorter, and one alone.
BULK = [bytes([number]) * SIZE for number in range(40)] + [b"short"]


@pytest.fixture(params=["fast", "long"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test holds on both ways; without batches there is only the long one."""
    use_batches(monkeypatch, request.param == "fast")
    kind: str = request.param
    return kind


def server(host: str = "127.0.0.1", **options: Any) -> AbstractAsyncContextManager[StunTurnFront]:
    return turn_front.front(Address(host, 0), tcp=False, **options)


def machine_of(running: StunTurnFront) -> TurnServer:
    machine: TurnServer = vars(running)["_driver"].machine
    return machine


@asynccontextmanager
async def two_clients(running: StunTurnFront) -> AsyncIterator[tuple[SocketClient, SocketClient]]:
    """With channels to each other's relayed addresses, of different numbers."""
    at = Address("127.0.0.1", running.address.port)
    async with turn_client(at, "user", "password") as left, turn_client(at, "user", "password") as right:
        here, there = (await left.allocate()).relayed, (await right.allocate()).relayed
        await right.bind(Address(PEER_HOST, 9))
        await left.bind(there)
        await right.bind(here)
        yield left, right


def relayed_of(client: SocketClient) -> Address:
    assert client.client.relayed is not None
    return client.client.relayed


async def send_bulk(sender: SocketClient, receiver: SocketClient) -> None:
    """A run, a datagram alone, and another run; they arrive so."""
    run, peer = b"".join(BULK), relayed_of(receiver)
    receiver.payloads.clear()
    sender.send(run, peer, SIZE)
    sender.send(b"alone", peer)
    sender.send(run, peer, SIZE)
    wanted = [*BULK, b"alone", *BULK]
    await receiver.until(lambda: len(receiver.payloads) == len(wanted))
    assert receiver.payloads == [(data, relayed_of(sender)) for data in wanted]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_two_clients_of_one_server_hear_each_other_in_order(
    host: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs and single datagrams, both ways at first and again; the fast way asks the machine nothing."""
    async with server(host) as running, two_clients(running) as (left, right):
        asked = 0
        receive = machine_of(running).receive

        def count(*arguments: Any) -> None:
            nonlocal asked
            asked += 1
            receive(*arguments)

        monkeypatch.setattr(machine_of(running), "receive", count)
        for _ in range(2):
            await send_bulk(left, right)
            await send_bulk(right, left)
        assert (asked == 0) == (way == "fast")


async def test_a_run_reaches_a_peer_outside_in_order() -> None:
    """Each datagram without its header."""
    async with server() as running, two_clients(running) as (left, _):
        with plain_socket(PEER_HOST) as peer:
            await left.bind(peer.local)
            left.send(b"".join(BULK), peer.local, SIZE)
            left.send(b"after", peer.local)
            received = [await peer.receive() for _ in range(len(BULK) + 1)]
            assert [data for data, _ in received] == [*BULK, b"after"]
            assert {source for _, source in received} == {relayed_of(left)}


async def test_what_is_no_even_run_is_looked_at_piece_by_piece() -> None:
    """Two channels, a lie and padding in one run: each datagram goes where it belongs, or nowhere."""
    async with server() as running, two_clients(running) as (left, right):
        with plain_socket(PEER_HOST) as peer:
            await left.bind(peer.local)
            inside, outside = (
                bytes(left.client.wrap(b"12345", to).data) for to in (relayed_of(right), peer.local)
            )
            lie = inside[:2] + b"\x00\x06" + inside[4:]
            for run in (inside + outside + lie + inside, inside + lie, inside * 2 + inside[:6]):
                left.socket.send(Transmit(run, left.client.server, None, len(inside)))
            await right.until(lambda: len(right.payloads) == 5)
            assert right.payloads == [(b"12345", relayed_of(left))] * 5
            assert (await peer.receive())[0] == b"12345"
            assert await peer.hears_nothing()


async def test_a_padded_datagram_is_passed_on_without_what_is_behind_it() -> None:
    """ChannelData may be padded over UDP (RFC 8656 §12.5)."""
    async with server() as running, two_clients(running) as (left, right):
        wrapped = left.client.wrap(b"12345", relayed_of(right))
        heard: list[bytes] = []
        monitor = right._received
        right.socket._on_receive = lambda data, *more: (heard.append(bytes(data)), monitor(data, *more))
        left.socket.send(Transmit(bytes(wrapped.data) + bytes(3), wrapped.destination))
        await right.until(lambda: bool(right.payloads))
        assert [data[4:] for data in heard] == [b"12345"]


async def test_the_rate_of_a_user_holds_inside_the_server() -> None:
    """Both ends pay; what is beyond the rate of either is dropped, and counted once."""
    limits = Limits(bytes_per_second=1.0)
    async with server(limits=limits) as running, two_clients(running) as (left, right):
        # Both clients are one user's: of its burst there is enough for one run at both ends, not for two.
        count = int(limits.burst / 3 / SIZE)
        for _ in range(3):
            left.send(bytes(count * SIZE), relayed_of(right), SIZE)
        await left.permit(Address(PEER_HOST, 1))  # answered when everything before it is done
        await right.until(lambda: len(right.payloads) == count)
        assert machine_of(running).counters["dropped_rate"] == 2


@pytest.mark.parametrize("what", ["permission", "channel", "allocation"])
async def test_what_has_ended_carries_nothing_inside_the_server(what: str) -> None:
    """At the other end too, although it did a moment ago; without a channel there it is an indication."""
    async with server() as running, two_clients(running) as (left, right):
        await send_bulk(left, right)
        right.payloads.clear()
        other = machine_of(running).allocations.of_relayed(relayed_of(right))
        assert other is not None
        if what == "allocation":
            await right.close()
        else:
            for channel in other.channels.values():
                channel.expires = 0.0
                if what == "permission":
                    channel.permission.expires = 0.0
            other.version += 1
        left.send(b"".join(BULK), relayed_of(right), SIZE)
        left.send(b"alone", relayed_of(right))
        with plain_socket(PEER_HOST) as peer:
            assert await peer.hears_nothing()
        assert right.payloads == []
        assert sum(hasattr(event, "data") for event in right.events) == (
            len(BULK) + 1 if what == "channel" else 0
        )
