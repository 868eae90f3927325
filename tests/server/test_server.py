"""The whole server in one process: hub, STUN and TURN on loopback."""

from __future__ import annotations

import asyncio
import os

import pytest
from websockets.asyncio.client import connect

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem, UsageError
from crowline.rendezvous import wire
from crowline.server.config import (
    ANYWHERE,
    parse_endpoint,
    parse_host,
    parse_network,
    parse_ports,
    parse_size,
)
from crowline.server.config import ServerConfig as Config
from crowline.server.server import Server
from crowline.stun.attributes import XorMappedAddress
from crowline.stun.message import Message, MessageClass, Method, parse
from crowline.turn.auth import user_of
from crowline.turn.events import AllocationFailed
from hub_server import hear, meet, say
from turn_socket import turn_client
from waiting import until

LOOPBACK = Config(listen=Address("127.0.0.1", 0), stun_listen=Address("127.0.0.1", 0))


async def test_a_server_needs_no_configuration_but_ports() -> None:
    """One URL: the welcome tells where STUN is, and STUN answers there."""
    async with Server(LOOPBACK) as server, connect(f"{server.url}/v1", proxy=None) as socket:
        welcome = await hear(socket)
        assert isinstance(welcome, wire.Welcome)
        service, by_tcp = welcome.stun
        assert service == wire.ServerAddress("127.0.0.1", server.stun.port)
        assert by_tcp.transport == "tcp" and by_tcp.host == "127.0.0.1"
        assert welcome.budget == server.config.limits.budget
        mapped = (await ask_binding(Address(service.host, service.port))).get(XorMappedAddress)
        assert mapped is not None
        assert mapped.address.host == "127.0.0.1"


async def test_turn_credentials_are_good_for_this_meeting() -> None:
    """Both sides get credentials when they meet; the addresses seen are permitted, and no others."""
    async with (
        Server(LOOPBACK) as server,
        connect(f"{server.url}/v1", proxy=None) as host,
        connect(f"{server.url}/v1", proxy=None) as join,
    ):
        _, claimed, joined = await meet(host, join)
        for turn in (claimed.turn, joined.turn):
            assert turn is not None
            user = user_of(turn.username)
            assert server.permits(user, Address("127.0.0.1", 9))
            assert not server.permits(user, Address("198.51.100.1", 9))


async def test_turn_credentials_end_with_their_meeting() -> None:
    """Once both sides have left, nobody gets a relay for what they were given."""
    async with Server(LOOPBACK) as server:
        async with (
            connect(f"{server.url}/v1", proxy=None) as host,
            connect(f"{server.url}/v1", proxy=None) as join,
        ):
            _, claimed, _ = await meet(host, join)
            turn = claimed.turn
            assert turn is not None
            async with turn_client(server.stun, turn.username, turn.password) as client:
                await client.allocate()
                await client.close()
        await until(lambda: len(server.hub) == 0)
        async with turn_client(server.stun, turn.username, turn.password) as client:
            client.client.allocate(client.pump.now)
            client.pump.flush()
            assert (await client.event(AllocationFailed)).code == 401


async def test_the_hub_vouches_for_a_client_of_its_relay() -> None:
    """By the meeting's credentials: a WebSocket may have come from elsewhere. The pong shows the silence."""
    async with (
        Server(LOOPBACK) as server,
        connect(f"{server.url}/v1", proxy=None, local_addr=("127.0.0.2", 0)) as host,
        connect(f"{server.url}/v1", proxy=None) as join,
    ):
        _, _, joined = await meet(host, join)
        assert joined.turn is not None
        for message in (wire.Vouch("127.0.0.1"), wire.Ping(), wire.Vouch("127.0.0.2")):
            await say(join, message)
        assert [await hear(join), await hear(join)] == [wire.Pong(), wire.Vouched("127.0.0.2")]
        async with turn_client(server.stun, joined.turn.username, joined.turn.password) as client:
            await client.allocate()
            await say(join, wire.Vouch("127.0.0.1"))
            assert await hear(join) == wire.Vouched("127.0.0.1")
            await client.close()


async def test_all_addresses_means_where_the_hub_was_reached() -> None:
    """Behind a wildcard the server does not guess its address: the client knows it."""
    config = Config(listen=Address(ANYWHERE, 0), stun_listen=Address(ANYWHERE, 0))
    async with Server(config) as server, connect(f"{server.url}/v1", proxy=None) as socket:
        welcome = await hear(socket)
        assert isinstance(welcome, wire.Welcome)
        assert {service.host for service in welcome.stun} == {""}


async def test_a_public_address_is_told() -> None:
    """Where it is set, clients get it instead."""
    config = Config(LOOPBACK.listen, LOOPBACK.stun_listen, public_address="203.0.113.5")
    async with Server(config) as server, connect(f"{server.url}/v1", proxy=None) as socket:
        welcome = await hear(socket)
        assert isinstance(welcome, wire.Welcome)
        assert welcome.stun[0] == wire.ServerAddress("203.0.113.5", server.stun.port)
        assert {service.host for service in welcome.stun} == {"203.0.113.5"}


async def test_ports_are_free_again_after_the_end() -> None:
    """A server that ended leaves nothing behind, even with clients connected."""
    async with Server(LOOPBACK) as first:
        socket = await connect(f"{first.url}/v1", proxy=None)
        await hear(socket)
        taken = Config(first.address, first.stun)
    async with Server(taken) as second:
        assert second.address == taken.listen
    await socket.close()


@pytest.mark.parametrize("which", ["listen", "stun_listen"])
async def test_a_port_in_use_is_a_sentence(which: str) -> None:
    """Whichever port it is: exit code 8, a hint, and nothing left open."""
    async with Server(LOOPBACK) as first:
        config = Config(
            first.address if which == "listen" else LOOPBACK.listen,
            first.stun if which == "stun_listen" else LOOPBACK.stun_listen,
        )
        with pytest.raises(LocalProblem) as problem:
            async with Server(config):
                pass
        assert problem.value.exit_code == 8
        assert problem.value.message.endswith(".")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1:80", Address("192.0.2.1", 80)),
        ("192.0.2.1", Address("192.0.2.1", 8080)),
        (":90", Address("::", 90)),
        ("[2001:db8::1]:90", Address("2001:db8::1", 90)),
        ("2001:db8::1", Address("2001:db8::1", 8080)),
        ("[::]", Address("::", 8080)),
    ],
)
def test_endpoints_are_read(text: str, address: Address) -> None:
    """IPv4, IPv6 in brackets, only an address, only a port."""
    assert parse_endpoint(text, 8080) == address


@pytest.mark.parametrize(
    "text", ["name:80", "1.2.3.4:99999", "1.2.3.4:-1", "1.2.3.4:８０", "[::1", "a", "1.2.3:4:5"]
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    """Names, ports out of range and foreign digits are usage errors."""
    with pytest.raises(UsageError):
        parse_endpoint(text, 8080)


def test_ranges_sizes_and_hosts_are_read() -> None:
    """What is meant is taken, anything else is a usage error (exit 2)."""
    assert str(parse_network("10.0.0.0/8")) == "10.0.0.0/8"
    assert parse_ports("5000-6000") == (5000, 6000)
    assert [parse_size(text) for text in ("512", "4K", "4M", "4MiB", "1g")] == [
        512,
        4096,
        4 << 20,
        4 << 20,
        1 << 30,
    ]
    assert parse_host("2001:DB8::1") == "2001:db8::1"
    for parse_it, text in [
        (parse_network, "10.0.0.1/8"),
        (parse_network, "10.0.0.0/33"),
        (parse_ports, "6000-5000"),
        (parse_ports, "80-6000"),
        (parse_ports, "5000"),
        (parse_size, "many"),
        (parse_size, "-1"),
        (parse_host, "example.org"),
    ]:
        with pytest.raises(UsageError):
            parse_it(text)


async def ask_binding(server: Address) -> Message:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()

    class Client(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            answer.set_result(data)

    transport, _ = await loop.create_datagram_endpoint(Client, remote_addr=(server.host, server.port))
    try:
        transport.sendto(Message(Method.BINDING, MessageClass.REQUEST, os.urandom(12), ()).encode())
        async with asyncio.timeout(30):
            return parse(await answer).message
    finally:
        transport.close()
