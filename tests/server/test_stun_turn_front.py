"""The STUN and TURN front on real sockets of the loopback interface."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

import pytest

from crowline.base.addresses import Address, AddressPolicy
from crowline.base.errors import LocalProblem, UsageError
from crowline.net.udp import UdpSocket
from crowline.server import stream_front
from crowline.server.front import StunTurnFront
from crowline.stun import attributes as a
from crowline.stun.message import Message, MessageClass, Method
from crowline.turn import checks
from crowline.turn.events import AllocationFailed, DataReceived, PermissionRefused
from crowline.turn.quota import Limits
from turn_front import SECRET, client_of, credentials, front
from turn_socket import free_port, plain_socket, turn_client
from waiting import until

PEER_HOST = "127.0.0.2"


def binding(*attributes: a.AnyAttribute) -> bytes:
    return Message(Method.BINDING, MessageClass.REQUEST, os.urandom(12), attributes).encode()


# --- TURN -----------------------------------------------------------------------------------------------


async def test_relayed_both_ways() -> None:
    """Allocate, permit, bind: data reaches a peer from the relayed address and comes back."""
    async with front() as running, client_of(running) as client:
        allocated = await client.allocate()
        with plain_socket(PEER_HOST) as peer:
            await client.permit(peer.local)
            client.send(b"by indication", peer.local)
            assert await peer.receive() == (b"by indication", allocated.relayed)
            peer.send(b"back", allocated.relayed)
            assert await client.event(DataReceived) == DataReceived(b"back", peer.local)
            await client.bind(peer.local)
            client.send(b"by channel", peer.local)
            assert await peer.receive() == (b"by channel", allocated.relayed)
            peer.send(b"and back", allocated.relayed)
            await client.until(lambda: client.payloads == [(b"and back", peer.local)])
        await client.close()
        assert running.counters["allocations"] == 0


async def test_runs_are_relayed_in_order_and_whole() -> None:
    """A megabyte in runs of 1,200-byte datagrams goes through a channel without loss or reordering."""
    async with front() as running, client_of(running) as client:
        allocated = await client.allocate()
        with plain_socket(PEER_HOST) as peer:
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            await client.bind(peer.local)
            got = bytearray()
            data = os.urandom(20 * 48_000)
            for start in range(0, len(data), 48_000):
                client.send(data[start : start + 48_000], peer.local, 1200)
                while len(got) < start + 48_000:
                    piece, source = await peer.receive()
                    assert (len(piece), source) == (1200, allocated.relayed)
                    got += piece
            assert bytes(got) == data


async def test_relay_to_relay_never_leaves_the_process() -> None:
    """Two clients meet at their relayed addresses; other sockets on that address hear nothing."""
    async with (
        front(policy=AddressPolicy()) as running,
        client_of(running, "a") as first,
        client_of(running, "b") as second,
    ):
        here, there = (await first.allocate()).relayed, (await second.allocate()).relayed
        await first.permit(there)
        await second.permit(here)
        first.send(b"hello", there)
        assert await second.event(DataReceived) == DataReceived(b"hello", here)
        with plain_socket() as bystander:
            first.send(b"secret", bystander.local)
            assert await bystander.hears_nothing()
            bystander.send(b"forged", there)
            await asyncio.sleep(0.05)
            assert second.events == []


@pytest.mark.parametrize("listen", ["::1", "::"])
async def test_relays_over_ipv6(listen: str) -> None:
    """An IPv6 client that asks for it gets an IPv6 relay, and reaches another one by it."""
    async with front(Address(listen, 0)) as running:
        server = Address("::1", running.address.port)
        async with (
            turn_client(server, *credentials("a")) as first,
            turn_client(server, *credentials("b")) as second,
        ):
            here, there = (await first.allocate()).relayed, (await second.allocate()).relayed
            assert (here.host, there.host) == ("::1", "::1")
            await first.bind(there)
            await second.bind(here)
            first.send(b"hello", there)
            await second.until(lambda: second.payloads == [(b"hello", here)])


async def test_q9_ports_of_another_program_are_508_until_free() -> None:
    """A range that somebody else holds gives 508; when the port is free again, it is given."""
    with plain_socket() as other:
        port = other.local.port
        async with front(relay_ports=(port, port)) as running, client_of(running) as client:
            client.client.allocate(client.pump.now)
            client.pump.flush()
            assert (await client.event(AllocationFailed)).code == 508
            other.socket.close()
            async with client_of(running) as again:
                assert (await again.allocate()).relayed.port == port


async def test_q10_without_descriptors_there_is_508(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the process has no descriptor left, Allocate is 508 and everything else goes on."""
    async with front() as running, client_of(running) as client:

        def exhausted(*args: object, **options: object) -> None:
            raise OSError(errno.EMFILE, "too many open files")

        monkeypatch.setattr(UdpSocket, "bind", exhausted)
        client.client.allocate(client.pump.now)
        client.pump.flush()
        assert (await client.event(AllocationFailed)).code == 508
        assert "handler_error" not in running.counters


async def test_expired_allocations_give_their_ports_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The front's own timer ends what nobody refreshes, without any packet."""
    monkeypatch.setattr(checks, "DEFAULT_LIFETIME", 1)
    async with front(limits=Limits(max_lifetime=0)) as running, client_of(running) as client:
        await client.allocate()
        client.abandon()
        await until(lambda: running.counters["allocations"] == 0)
        assert running.counters["turn_ended"] == 1


async def test_permits_decides() -> None:
    """The hub's no is a refusal of that peer."""
    asked: list[tuple[str, Address]] = []

    def permits(user: str, peer: Address) -> bool:
        asked.append((user, peer))
        return False

    async with front(permits=permits) as running, client_of(running, "room-9") as client:
        await client.allocate()
        peer = Address(PEER_HOST, 5000)
        await client.permit(peer)
        assert (await client.event(PermissionRefused)).code == 403
        assert asked == [("room-9", peer)]


async def test_the_client_of_an_allocation_is_known_by_user_and_address() -> None:
    """For whoever asks, as long as the allocation exists."""
    async with front() as running, client_of(running, "someone") as client:
        assert not running.has_client("someone", "127.0.0.1")
        await client.allocate()
        assert running.has_client("someone", "127.0.0.1")
        assert not running.has_client("someone", PEER_HOST)
        assert not running.has_client("somebody", "127.0.0.1")
        await client.close()
        assert not running.has_client("someone", "127.0.0.1")


async def test_loopback_peers_need_the_switch() -> None:
    """With the default policy a loopback peer is refused, though `permits` would allow it."""
    async with front(policy=AddressPolicy()) as running, client_of(running) as client:
        await client.allocate()
        await client.permit(Address(PEER_HOST, 5000))
        assert (await client.event(PermissionRefused)).code == 403


async def test_relay_port_range_is_kept_and_runs_out() -> None:
    """Relayed ports come from the range only; when it is used up there is 508, and room after a close."""
    port = free_port()
    async with (
        front(relay_ports=(port, port)) as running,
        client_of(running) as first,
        client_of(running) as second,
        client_of(running) as third,
    ):
        assert (await first.allocate()).relayed.port == port
        second.client.allocate(second.pump.now)
        second.pump.flush()
        assert (await second.event(AllocationFailed)).code == 508
        await first.close()
        assert (await third.allocate()).relayed.port == port


async def test_public_address_is_what_clients_are_told() -> None:
    """Behind a 1:1 NAT the relayed address is the public one, and it counts as a relay of ours."""
    async with (
        front(public_address="44.1.1.1") as running,
        client_of(running, "a") as first,
        client_of(running, "b") as second,
    ):
        here, there = (await first.allocate()).relayed, (await second.allocate()).relayed
        assert (here.host, there.host) == ("44.1.1.1", "44.1.1.1")
        await first.permit(there)
        await second.permit(here)
        first.send(b"hello", there)
        assert await second.event(DataReceived) == DataReceived(b"hello", here)


async def test_wildcard_relays_on_the_address_that_was_asked() -> None:
    """Behind a wildcard the relayed address is the one the client knows the server by."""
    async with front(Address("0.0.0.0", 0)) as running, client_of(running) as client:
        allocated = await client.allocate()
        assert allocated.relayed.host == "127.0.0.1"
        with plain_socket(PEER_HOST) as peer:
            await client.permit(peer.local)
            client.send(b"hello", peer.local)
            assert await peer.receive() == (b"hello", allocated.relayed)


# --- starting and closing -------------------------------------------------------------------------------


async def test_a_taken_port_is_a_local_problem() -> None:
    """A port in use is told in a sentence, and nothing stays open."""
    async with front() as running:
        second = StunTurnFront(running.address, secret=SECRET, permits=lambda user, peer: True)
        with pytest.raises(LocalProblem):
            await second.start()
        assert vars(vars(second)["_udp"])["_sockets"] == {}


async def test_a_port_of_the_kernels_choice_is_free_for_tcp_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where TCP is taken at the port that UDP got, both move to another one."""
    listen, calls = stream_front.listen, []

    def taken_at_first(address: Address, **options: Any) -> socket.socket:
        calls.append(address.port)
        if len(calls) == 1:
            raise LocalProblem("The port is in use.")
        return listen(address, **options)

    monkeypatch.setattr(stream_front, "listen", taken_at_first)
    async with front() as running:
        assert len(calls) > 1 and calls[1] == running.address.port
        assert running.tcp_addresses == running.udp_addresses == [running.address]


async def test_close_gives_everything_back() -> None:
    """After `close` the same ports can be bound again, allocations or not."""
    async with front() as running, client_of(running) as client:
        await client.allocate()
        address = running.address
        await running.close()
        again = StunTurnFront(address, secret=SECRET, permits=lambda user, peer: True)
        await again.start()
        assert (again.address, again.tcp_addresses) == (address, [address])
        await again.close()


def test_an_address_is_needed() -> None:
    """A front without any address makes no sense."""
    with pytest.raises(UsageError):
        StunTurnFront([], secret=SECRET, permits=lambda user, peer: True)
