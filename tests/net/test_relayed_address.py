"""A relayed address over a socket or stream that the caller owns, against our server and coturn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from coturn import LOGIN, coturn
from crowline.base.addresses import Address
from crowline.base.errors import Refused, ServerUnreachable
from crowline.base.transport import Transport
from crowline.net.relayed_address import RelayedAddress, TurnAccount
from datagram_endpoint import Endpoint, endpoint
from turn_front import front

PATIENCE = 45.0  # seconds until something must have happened: TURN's own 39.5 and some
# Not the server's own host: a port of that which lies in the relay's range is taken for another allocation.
PEER_HOST = "127.0.0.2"


class Arrivals:
    """What came through the relay."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[bytes, Address]] = asyncio.Queue()

    def take(self, data: memoryview, peer: Address) -> None:
        self.queue.put_nowait((bytes(data), peer))


def relay_on(own: Endpoint, account: TurnAccount, arrivals: Arrivals) -> RelayedAddress:
    relay = RelayedAddress(account, send=own.send, on_data=arrivals.take)
    own.take = relay.receive
    return relay


@asynccontextmanager
async def account(
    kind: str, folder: Path, transport: Transport = Transport.UDP
) -> AsyncIterator[TurnAccount]:
    if kind == "ours":
        async with front() as running:
            yield TurnAccount(running.address, "user", "password", transport)
    else:
        async with coturn(folder) as (plain, _):
            yield TurnAccount(Address("127.0.0.1", plain), *LOGIN, transport)


SERVERS = ["ours", pytest.param("coturn", marks=pytest.mark.peer)]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("is_bound", [False, True])
async def test_datagrams_go_both_ways(tmp_path: Path, server: str, is_bound: bool) -> None:
    """By indications and by a channel; a peer sees the relayed address only."""
    async with (
        account(server, tmp_path) as where,
        endpoint() as own,
        endpoint(PEER_HOST) as peer,
        asyncio.timeout(PATIENCE),
    ):
        arrivals = Arrivals()
        relay = relay_on(own, where, arrivals)
        allocated = await relay.allocate()
        assert allocated.mapped == own.local
        assert allocated.relayed == relay.address
        if is_bound:
            relay.bind(peer.local)
        await relay.permit(peer.local)
        relay.send(b"there", peer.local)
        assert await peer.others.get() == (b"there", allocated.relayed)
        peer.write(b"and back", allocated.relayed)
        assert await arrivals.queue.get() == (b"and back", peer.local)
        await relay.close()


async def test_other_datagrams_are_the_callers() -> None:
    """What is not from the server is left."""
    async with front() as running, endpoint() as own, endpoint() as friend, asyncio.timeout(PATIENCE):
        relay = relay_on(own, TurnAccount(running.address, "user", "password"), Arrivals())
        await relay.allocate()
        friend.write(b"hello", own.local)
        assert await own.others.get() == (b"hello", friend.local)
        await relay.close()


@pytest.mark.parametrize("server", SERVERS)
async def test_a_stream_of_the_callers_does_as_well(tmp_path: Path, server: str) -> None:
    """Bytes are handed over as they come, in any pieces."""
    async with (
        account(server, tmp_path, Transport.TCP) as where,
        endpoint(PEER_HOST) as peer,
        asyncio.timeout(PATIENCE),
    ):
        arrivals = Arrivals()
        reader, writer = await asyncio.open_connection(where.address.host, where.address.port)
        relay = RelayedAddress(where, send=lambda t: writer.write(t.data), on_data=arrivals.take)

        async def read() -> None:
            while piece := await reader.read(7):
                relay.receive(piece, where.address)

        reading = asyncio.ensure_future(read())
        allocated = await relay.allocate()
        relay.bind(peer.local)
        await relay.permit(peer.local)
        relay.send(b"there!", peer.local)
        assert await peer.others.get() == (b"there!", allocated.relayed)
        peer.write(b"and back", allocated.relayed)
        assert await arrivals.queue.get() == (b"and back", peer.local)
        await relay.close()
        writer.close()
        reading.cancel()
        await asyncio.gather(reading, writer.wait_closed(), return_exceptions=True)


async def test_a_wrong_password_is_refused() -> None:
    """With the server's code and reason, and nobody waits for what needs the address."""
    async with front() as running, endpoint() as own, asyncio.timeout(PATIENCE):
        relay = relay_on(own, TurnAccount(running.address, "user", "wrong"), Arrivals())
        permitting = asyncio.ensure_future(relay.permit(Address("127.0.0.1", 9)))
        with pytest.raises(Refused, match="401"):
            await relay.allocate()
        with pytest.raises(Refused, match="401"):
            await permitting
        await relay.close()


async def test_a_peer_that_is_forbidden_is_refused() -> None:
    """Others may still be permitted, and the same one asked for again."""

    def permits(user: str, peer: Address) -> bool:
        return peer.host == "127.0.0.1"

    async with front(permits=permits) as running, endpoint() as own, asyncio.timeout(PATIENCE):
        relay = relay_on(own, TurnAccount(running.address, "user", "password"), Arrivals())
        await relay.allocate()
        for _ in range(2):
            with pytest.raises(Refused, match=r"127\.0\.0\.9.*403"):
                await relay.permit(Address("127.0.0.9", 9))
        await asyncio.gather(*(relay.permit(Address("127.0.0.1", port)) for port in (7, 8)))
        await relay.close()


async def test_an_address_that_is_lost_is_said() -> None:
    """What is no TURN on a stream ends it: whoever waits hears the same."""
    lost: list[str] = []
    account = TurnAccount(Address("192.0.2.1", 3478), "user", "password", Transport.TCP)
    relay = RelayedAddress(account, send=lambda t: None, on_data=lambda data, peer: None, on_lost=lost.append)
    allocating = asyncio.ensure_future(relay.allocate())
    await asyncio.sleep(0)
    for _ in range(2):
        assert relay.receive(b"SSH-2.0-OpenSSH_9.9\r\n", account.address)
    with pytest.raises(ServerUnreachable, match="gone"):
        await allocating
    with pytest.raises(ServerUnreachable, match="gone"):
        await relay.permit(Address("192.0.2.9", 9))
    assert lost == ["what came on the stream is no TURN"]
    await relay.close()


async def test_closing_cancels_who_waits() -> None:
    """Nobody hangs on an answer that will not come, and closing does not wait for it either."""
    relay = RelayedAddress(
        TurnAccount(Address("192.0.2.1", 3478), "user", "password"),
        send=lambda t: None,
        on_data=lambda data, peer: None,
    )
    waiting = [
        asyncio.ensure_future(relay.allocate()),
        asyncio.ensure_future(relay.permit(Address("192.0.2.9", 9))),
    ]
    await asyncio.sleep(0)
    await relay.close()
    await asyncio.wait(waiting)
    assert all(task.cancelled() for task in waiting)


def test_a_password_does_not_print() -> None:
    """Accounts may be logged."""
    assert "secret" not in repr(TurnAccount(Address("192.0.2.1", 3478), "user", "secret"))
