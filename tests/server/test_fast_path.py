"""The fast path of single datagrams: it says what the long way says, and leaves to it what is not plain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

import turn_front
from batches import use_batches
from crowline.base.addresses import Address
from crowline.server.front import StunTurnFront
from crowline.stun.attributes import ErrorCode, Nonce, RequestedTransport, XorMappedAddress
from crowline.stun.budget import Allowance
from crowline.stun.message import Message, MessageClass, Method, parse
from crowline.turn.quota import Limits
from turn_socket import SocketClient, plain_socket, turn_client

PEER_HOST = "127.0.0.2"
FOR_UDP = RequestedTransport(17)
BINDING = Message(Method.BINDING, MessageClass.REQUEST, b"twelve bytes").encode()


@pytest.fixture(params=["fast", "long"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test holds on both ways; without batches there is only the long one."""
    use_batches(monkeypatch, request.param == "fast")
    kind: str = request.param
    return kind


def server(host: str = "127.0.0.1", **options: Any) -> AbstractAsyncContextManager[StunTurnFront]:
    options = {"binding": Allowance(100.0, 500.0), "tcp": False} | options
    return turn_front.front(Address(host, 0), **options)


@asynccontextmanager
async def bound_client(running: StunTurnFront, peer: Address) -> AsyncIterator[SocketClient]:
    """A client with a channel to `peer`."""
    async with turn_client(Address("127.0.0.1", running.address.port), "user", "password") as client:
        await client.allocate()
        await client.bind(peer)
        yield client


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1"])
async def test_each_of_a_burst_of_questions_gets_its_own_answer(host: str) -> None:
    """A hundred bare requests at once, each answered with its transaction and the mapped address."""
    async with server(host) as running:
        with plain_socket("::1" if ":" in host else "127.0.0.1") as probe:
            target = Address("::1" if ":" in host else "127.0.0.1", running.address.port)
            asked = {b"question%4d" % number for number in range(100)}
            for transaction_id in asked:
                probe.send(Message(Method.BINDING, MessageClass.REQUEST, transaction_id).encode(), target)
            answered = set()
            for _ in asked:
                data, source = await probe.receive()
                message = parse(data).message
                assert source == target and message.message_class is MessageClass.SUCCESS
                assert message.get(XorMappedAddress) == XorMappedAddress(probe.local)
                answered.add(message.transaction_id)
        assert answered == asked
        assert running.counters["stun_answered"] == 100


async def test_the_budget_of_a_source_bounds_its_answers() -> None:
    """Beyond it there is silence, and a counter."""
    async with server(binding=Allowance(0.001, 5.0)) as running:
        with plain_socket() as probe:
            for _ in range(20):
                probe.send(BINDING, running.address)
            for _ in range(5):
                await probe.receive()
            assert await probe.hears_nothing()
        assert running.counters["over_budget"] == 15


async def test_bursts_of_channel_data_go_both_ways_in_order() -> None:
    """A hundred datagrams of growing size each way, none cut, none mixed up."""
    async with server() as running:
        with plain_socket(PEER_HOST) as peer:
            async with bound_client(running, peer.local) as client:
                texts = [b"%03d" % number * (number + 1) for number in range(100)]
                for text in texts:
                    client.send(text, peer.local)
                received = [await peer.receive() for _ in texts]
                assert [data for data, _ in received] == texts
                for text in texts:
                    peer.send(text, received[0][1])
                await client.until(lambda: len(client.payloads) == len(texts))
                assert client.payloads == [(text, peer.local) for text in texts]


async def test_bytes_behind_the_data_of_a_channel_stay_behind() -> None:
    """ChannelData may be padded over UDP; a length that lies reaches nobody (RFC 8656 §12.5, §12.6)."""
    async with server() as running:
        with plain_socket(PEER_HOST) as peer:
            async with bound_client(running, peer.local) as client:
                plain = bytes(client.client.wrap(b"12345", peer.local).data)
                for data in (b"\x00\x06".join((plain[:2], plain[4:])), plain + bytes(3), plain[:3]):
                    client.socket._socket.sendto(data, (running.address.host, running.address.port))
                assert (await peer.receive())[0] == b"12345"
                assert await peer.hears_nothing()


async def test_the_rate_of_a_user_holds() -> None:
    """What is beyond it is dropped and counted."""
    limits = Limits(bytes_per_second=1.0)
    async with server(limits=limits) as running:
        with plain_socket(PEER_HOST) as peer:
            async with bound_client(running, peer.local) as client:
                for _ in range(int(limits.burst / 1000) + 20):
                    client.send(bytes(1000), peer.local)
                arrived = 0
                while not await peer.hears_nothing():
                    arrived += 1
                assert arrived <= limits.burst / 1000
                assert running.counters["turn_dropped_rate"] >= 20


async def test_an_expired_channel_carries_nothing() -> None:
    """Neither way, although both sides were heard on it a moment ago."""
    async with server() as running:
        with plain_socket(PEER_HOST) as peer:
            async with bound_client(running, peer.local) as client:
                client.send(b"before", peer.local)
                _, relayed = await peer.receive()
                for allocation in vars(running)["_driver"].machine.allocations:
                    for channel in allocation.channels.values():
                        channel.expires = channel.permission.expires = 0.0
                    allocation.version += 1
                client.send(b"after", peer.local)
                peer.send(b"after", relayed)
                assert await peer.hears_nothing()
                assert client.payloads == []


async def test_an_ended_allocation_is_not_remembered() -> None:
    """The next allocation of the same address has its own peers only."""
    async with server() as running:
        with plain_socket(PEER_HOST) as peer:
            async with bound_client(running, peer.local) as client:
                client.send(b"before", peer.local)
                _, relayed = await peer.receive()
                machine = vars(running)["_driver"].machine
                wrapped = client.client.wrap(b"after", peer.local)
                machine.close()
                client.socket.send(wrapped)
                peer.send(b"after", relayed)
                assert await peer.hears_nothing()
                assert client.payloads == []
                await asyncio.sleep(0)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1"])
async def test_whoever_begins_is_challenged_within_the_budget_of_its_source(host: str) -> None:
    """Forty times the plainest Allocate: twenty get a 401, each to its own question, and the rest silence."""
    here = "::1" if ":" in host else "127.0.0.1"
    asked = [b"question%4d" % number for number in range(40)]
    async with server(host) as running:
        target = Address(here, running.address.port)
        with plain_socket(here) as probe:
            for transaction_id in asked:
                request = Message(Method.ALLOCATE, MessageClass.REQUEST, transaction_id, (FOR_UDP,))
                probe.send(request.encode(), target)
            probe.send(BINDING, target)
            challenges = []
            while (answer := parse((await probe.receive())[0]).message).method is Method.ALLOCATE:
                error = answer.get(ErrorCode)
                assert error is not None and error.code == 401
                assert answer.get(Nonce) is not None
                challenges.append(answer.transaction_id)
        assert challenges[:20] == asked[:20]
        counters = vars(running)["_driver"].machine.counters
        assert counters["rejected_401"] == len(challenges)
        assert counters["rejected_401"] + counters["over_budget"] == 40
