"""Binding at the front on real sockets of the loopback interface, over UDP and TCP."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from contextlib import suppress

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Transmit
from crowline.server import stream_client, stream_front, udp_front
from crowline.server.front import StunTurnFront
from crowline.stun import attributes as a
from crowline.stun.budget import Allowance
from crowline.stun.message import Message, MessageClass, Method, parse
from crowline.turn.events import AllocationFailed
from turn_front import HOME, client_of, credentials, front
from turn_socket import PATIENCE, SocketClient, free_port, plain_socket

PEER_HOST = "127.0.0.2"


def binding(*attributes: a.AnyAttribute) -> bytes:
    return Message(Method.BINDING, MessageClass.REQUEST, os.urandom(12), attributes).encode()


# --- Binding over UDP -----------------------------------------------------------------------------------


async def test_binding_over_udp() -> None:
    """The front tells a client its own address, from the address that was asked."""
    async with front() as running:
        with plain_socket() as probe:
            probe.send(binding(), running.address)
            data, source = await probe.receive()
            assert parse(data).message.get(a.XorMappedAddress) == a.XorMappedAddress(probe.local)
            assert source == running.address
            assert len(data) == 32


async def test_binding_over_ipv6() -> None:
    """IPv6 listens beside IPv4."""
    async with front(HOME, Address("::1", 0)) as running:
        with plain_socket("::1") as probe:
            probe.send(binding(), running.udp_addresses[1])
            data, source = await probe.receive()
            assert parse(data).message.get(a.XorMappedAddress) == a.XorMappedAddress(probe.local)
            assert source == running.udp_addresses[1]


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "::"])
async def test_a_wildcard_answers_from_the_address_that_was_asked(wildcard: str) -> None:
    """On all addresses at once, each answer leaves by the address its request came to."""
    asked = ["127.0.0.1", "127.0.0.7"] if wildcard == "0.0.0.0" else ["::1"]
    async with front(Address(wildcard, 0)) as running:
        for host in asked:
            with plain_socket("127.0.0.1" if wildcard == "0.0.0.0" else "::1") as probe:
                probe.send(binding(), Address(host, running.address.port))
                data, source = await probe.receive()
                assert source == Address(host, running.address.port)
                assert parse(data).message.get(a.XorMappedAddress) == a.XorMappedAddress(probe.local)


async def test_the_ipv6_wildcard_is_ipv4_too() -> None:
    """`::` listens on every address of both families, at one port, over UDP and TCP."""
    async with front(Address("::", 0)) as running:
        assert {address.host for address in running.udp_addresses} == {"0.0.0.0", "::"}
        assert len({address.port for address in running.udp_addresses + running.tcp_addresses}) == 1
        for host in ("127.0.0.1", "127.0.0.7", "::1"):
            with plain_socket("::1" if ":" in host else "127.0.0.1") as probe:
                probe.send(binding(), Address(host, running.address.port))
                assert (await probe.receive())[1] == Address(host, running.address.port)


@pytest.mark.parametrize("has_ipv6", [False, True])
async def test_both_wildcards_may_be_listed(has_ipv6: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Naming the wildcards of both families is the same as naming the one of IPv6."""
    monkeypatch.setattr(udp_front, "_has_ipv6", lambda: has_ipv6)
    port = free_port("0.0.0.0")
    async with front(Address("0.0.0.0", port), Address("::", port)) as running:
        hosts = ["0.0.0.0", "::"] if has_ipv6 else ["0.0.0.0"]
        assert running.udp_addresses == [Address(host, port) for host in hosts]


async def test_without_ipv6_the_wildcard_is_ipv4_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without IPv6 `::` still starts."""
    monkeypatch.setattr(udp_front, "_has_ipv6", lambda: False)
    async with front(Address("::", 0)) as running:
        assert [address.host for address in running.udp_addresses] == ["0.0.0.0"]


async def test_a_taken_second_port_is_done_without() -> None:
    """Only RFC 5780 needs the second port: alone it may be missing, with an alternate address it may not."""
    async with front() as first:
        below = Address("127.0.0.1", vars(vars(first)["_udp"])["_sockets"].copy().popitem()[0].port - 1)
        async with front(below, tcp=False) as second:
            assert second.counters["no_second_port"] == 1
            with plain_socket() as probe:
                probe.send(binding(), below)
                await probe.receive()
        with pytest.raises(LocalProblem):
            async with front(below, alternate_address="127.0.0.3", tcp=False):
                pass


@pytest.mark.parametrize("listen", ["127.0.0.1", "0.0.0.0", "::"])
@pytest.mark.parametrize("change_ip", [False, True])
@pytest.mark.parametrize("change_port", [False, True])
async def test_change_request_changes_the_source(listen: str, change_ip: bool, change_port: bool) -> None:
    """With a second address, CHANGE-REQUEST is answered from the other address, port or both."""
    async with front(Address(listen, 0), alternate_address="127.0.0.3") as running:
        with plain_socket() as probe:
            main = Address("127.0.0.3", running.address.port)
            probe.send(binding(), main)
            data, source = await probe.receive()
            assert source == main
            other = parse(data).message.get(a.OtherAddress)
            assert other is not None
            assert other.address.host != main.host
            assert other.address.port != main.port
            probe.send(binding(a.ChangeRequest(change_ip, change_port)), main)
            data, source = await probe.receive()
            expected = Address(
                other.address.host if change_ip else main.host,
                other.address.port if change_port else main.port,
            )
            assert parse(data).message.get(a.ResponseOrigin) == a.ResponseOrigin(expected)
            if not (listen != "127.0.0.1" and change_ip and not other.address.host.startswith("127.")):
                assert source == expected


async def test_many_bindings_in_one_burst_are_all_answered() -> None:
    """Requests that the kernel hands over as one run are answered one by one."""
    async with front() as running:
        with plain_socket() as probe:
            requests = [binding() for _ in range(20)]
            for request in requests:
                probe.send(request, running.address)
            answers = {(await probe.receive())[0][8:20] for _ in requests}
            assert answers == {request[8:20] for request in requests}


async def test_budget_silences_one_source_and_not_the_front() -> None:
    """Past its burst a source meets silence; the counter shows it."""
    async with front(binding=Allowance(rate=0.001, burst=3)) as running:
        with plain_socket() as probe, plain_socket(PEER_HOST) as other:
            for _ in range(10):
                probe.send(binding(), running.address)
            for _ in range(3):
                await probe.receive()
            assert await probe.hears_nothing()
            assert running.counters["over_budget"] == 7
            other.send(binding(), running.address)
            await other.receive()


async def test_junk_is_survived_and_forgotten() -> None:
    """Thousands of junk datagrams of all kinds leave no allocation, no error and a living front."""
    async with front() as running:
        with plain_socket() as probe:
            for n in range(3000):
                probe.send(os.urandom(n % 200), running.address)
                if n % 50 == 0:
                    await asyncio.sleep(0)
            with plain_socket(PEER_HOST) as other:
                other.send(binding(), running.address)
                await other.receive()
        assert running.counters["allocations"] == 0
        assert running.counters.get("handler_error", 0) == 0


async def test_a_fault_of_ours_costs_one_packet(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in a handler is counted; the next packet is answered."""
    async with front() as running:
        responder = vars(running)["_udp"].responder
        honest = responder.receive

        def fail(*args: object) -> None:
            raise RuntimeError("a fault")

        with plain_socket() as probe:
            monkeypatch.setattr(responder, "receive", fail)
            probe.send(binding(a.Software("long way")), running.address)
            assert await probe.hears_nothing()
            monkeypatch.setattr(responder, "receive", honest)
            probe.send(binding(), running.address)
            await probe.receive()
        assert running.counters["handler_error"] == 1


async def test_a_fault_leaves_nothing_to_send_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was about to leave points into a buffer that the next packet overwrites: it is dropped."""
    async with front() as running, client_of(running) as client:
        allocated = await client.allocate()
        with plain_socket(PEER_HOST) as peer:
            await client.bind(peer.local)
            ports = vars(running)["_driver"].ports
            honest = ports.send

            def fail(transmit: Transmit) -> bool:
                monkeypatch.setattr(ports, "send", honest)
                raise RuntimeError("a fault")

            monkeypatch.setattr(ports, "send", fail)
            turn = vars(running)["_driver"].machine
            first = client.client.wrap(b"first", peer.local).data
            turn.receive(first, client.socket.local, time.monotonic(), running.address)
            padded = bytes(client.client.wrap(b"other", peer.local).data) + b"\0"
            client.socket.send(Transmit(2 * padded, running.address, None, len(padded)))  # takes the long way
            await asyncio.sleep(0.1)
            client.send(b"after", peer.local)
            assert await peer.receive() == (b"after", allocated.relayed)
            assert await peer.hears_nothing()
        assert running.counters["handler_error"] == 1


# --- Binding over TCP -----------------------------------------------------------------------------------


async def tcp(running: StunTurnFront) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = running.tcp_addresses[0]
    return await asyncio.open_connection(address.host, address.port)


async def test_binding_over_tcp_in_any_pieces() -> None:
    """Byte by byte or two at once: each whole request gets its answer."""
    async with front() as running:
        reader, writer = await tcp(running)
        name = writer.get_extra_info("sockname")
        first, second, third = binding(), binding(), binding()
        for n in range(len(first)):
            writer.write(first[n : n + 1])
            await writer.drain()
            await asyncio.sleep(0)
        answer = parse(await reader.readexactly(32)).message
        assert answer.get(a.XorMappedAddress) == a.XorMappedAddress(Address(name[0], name[1]))
        writer.write(second + third)
        answers = [parse(await reader.readexactly(32)).message.transaction_id for _ in range(2)]
        assert answers == [second[8:20], third[8:20]]
        writer.close()
        await writer.wait_closed()


async def test_change_request_is_for_udp_only() -> None:
    """A TCP connection cannot be answered from elsewhere: CHANGE-REQUEST is unknown there."""
    async with front(alternate_address="127.0.0.3") as running:
        reader, writer = await tcp(running)
        writer.write(binding(a.ChangeRequest(True, True)))
        answer = parse(await reader.readexactly(36)).message
        assert answer.get(a.ErrorCode) == a.ErrorCode(420)
        writer.close()
        await writer.wait_closed()


async def test_q10_allocations_leave_descriptors_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default no more allocations than half the descriptors of the process."""
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (4, 4))
    async with front() as running:
        clients = [SocketClient(running.address, *credentials()) for _ in range(3)]
        for client in clients[:2]:
            await client.allocate()
        clients[2].client.allocate(clients[2].pump.now)
        clients[2].pump.flush()
        assert (await clients[2].event(AllocationFailed)).code == 508
        for client in clients:
            client.abandon()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"\x00\x01\x00\x00\x00\x00\x00\x00" + bytes(12),
        b"\x00\x01\xff\xfc\x21\x12\xa4\x42" + bytes(12),
        b"\x00\x01\x00\x03\x21\x12\xa4\x42" + bytes(15),
        b"\x01\x01\x00\x00\x21\x12\xa4\x42" + bytes(12),
    ],
)
async def test_tcp_closes_on_what_is_no_request(data: bytes) -> None:
    """HTTP, TLS, no cookie, too long, of odd length, a response: closed without a byte."""
    async with front() as running:
        reader, writer = await tcp(running)
        writer.write(data)
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        writer.close()


async def test_tcp_silence_and_dribble_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first message must be whole in time; bytes that dribble in do not extend it."""
    monkeypatch.setattr(stream_client, "FIRST_MESSAGE_TIME", 0.15)
    async with front() as running:
        reader, writer = await tcp(running)

        async def dribble() -> None:
            for byte in binding(a.Software("x" * 100)):
                writer.write(bytes([byte]))
                await asyncio.sleep(0.02)

        task = asyncio.create_task(dribble())
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        task.cancel()
        writer.close()


async def test_tcp_connections_of_one_host_are_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the cap connections are refused at once; when one ends there is room again."""
    monkeypatch.setattr(stream_front, "MAX_CONNECTIONS_PER_SOURCE", 2)
    async with front() as running:
        kept = [await tcp(running) for _ in range(2)]
        for reader, writer in kept:
            writer.write(binding())
            await reader.readexactly(32)
        reader, writer = await tcp(running)
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        writer.close()
        assert running.counters["tcp_refused"] == 1
        for _, writer in kept:
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.05)
        reader, writer = await tcp(running)
        writer.write(binding())
        assert len(await reader.readexactly(32)) == 32
        writer.close()
        await writer.wait_closed()
