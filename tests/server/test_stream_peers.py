"""STUN and TURN over TCP and TLS, and TCP relays, against programs that other people wrote."""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from aioice import turn as aioice_turn

import turn_front
from certificates import self_signed
from crowline.base.addresses import Address
from crowline.server.certificate import Certificate
from crowline.server.front import StunTurnFront
from crowline.turn.auth import issue_credentials
from needs import missing, needs_program
from peer_programs import background, run
from turn_front import SECRET
from turn_socket import PATIENCE, free_port, plain_socket
from waiting import until

pytestmark = pytest.mark.peer

PEER_HOST = "127.0.0.2"
LOGIN = ("-u", "user", "-w", "password")
# Short: ten messages of two clients, no companion sockets.
LOAD = ("-c", "-n", "10", "-m", "2", "-l", "200")


def front(folder: Path, host: str = "127.0.0.1") -> AbstractAsyncContextManager[StunTurnFront]:
    """Our server on loopback over UDP, TCP and TLS."""
    files = self_signed(folder)
    home = Address(host, 0)
    return turn_front.front(home, tls_listen=[home], tls=Certificate(files.certificate, files.key))


def port_of(running: StunTurnFront, flags: tuple[str, ...]) -> str:
    """Of TLS where the flags ask for it; UDP and TCP have the same one."""
    return str((running.tls_addresses if "-S" in flags else running.tcp_addresses)[0].port)


@pytest.mark.parametrize("flags", [("-t",), ("-t", "-S")], ids=["TCP", "TLS"])
async def test_coturn_client_relays_to_an_echoing_peer(flags: tuple[str, ...], tmp_path: Path) -> None:
    """`turnutils_uclient` sends over a stream to a UDP peer that echoes."""
    program, echo = needs_program("turnutils_uclient"), needs_program("turnutils_peer")
    port = free_port(PEER_HOST)
    async with front(tmp_path) as running, background(echo, "-L", PEER_HOST, "-p", str(port)):
        output = await run(
            program, *flags, "-s", *LOAD, *LOGIN, "-e", PEER_HOST, "-r", str(port),
            "-p", port_of(running, flags), "127.0.0.1",
        )  # fmt: skip
        assert "handler_error" not in running.counters
    assert "tot_send_msgs=20, tot_recv_msgs=20" in output
    assert "Total lost packets 0" in output


@pytest.mark.parametrize("flags", [("-M",), ("-M", "-t")], ids=["UDP", "TCP"])
async def test_coturn_client_moves_by_ticket(flags: tuple[str, ...], tmp_path: Path) -> None:
    """RFC 8016: `turnutils_uclient` goes on from another port with its ticket, and loses nothing."""
    program, echo = needs_program("turnutils_uclient"), needs_program("turnutils_peer")
    port = free_port(PEER_HOST)
    async with front(tmp_path) as running, background(echo, "-L", PEER_HOST, "-p", str(port)):
        output = await run(
            program, *flags, "-s", *LOAD, *LOGIN, "-e", PEER_HOST, "-r", str(port),
            "-p", port_of(running, flags), "127.0.0.1",
        )  # fmt: skip
        assert running.counters["turn_moved"] >= 2
    assert "Total lost packets 0" in output


@pytest.mark.parametrize("flags", [("-x",), ("-x", "-t"), ("-x", "-t", "-S")], ids=["UDP", "TCP", "TLS"])
async def test_coturn_clients_meet_over_ipv6(flags: tuple[str, ...], tmp_path: Path) -> None:
    """Both ends of our server are IPv6, and two clients reach each other by it."""
    program = needs_program("turnutils_uclient")
    async with front(tmp_path, "::1") as running:
        output = await run(
            program, *flags, "-s", "-y", *LOAD, *LOGIN, "-p", port_of(running, flags), "::1"
        )  # fmt: skip
    assert "Total lost packets 0" in output


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("flags", [("-T",), ("-T", "-S")], ids=["TCP", "TLS"])
async def test_coturn_clients_speak_tcp_by_our_relay(
    flags: tuple[str, ...], host: str, tmp_path: Path
) -> None:
    """RFC 6062: Connect, ConnectionAttempt and ConnectionBind on both sides, and data both ways."""
    program = needs_program("turnutils_uclient")
    family = ("-x",) if ":" in host else ()
    async with front(tmp_path, host) as running:
        output = await run(program, *flags, *family, *LOAD, *LOGIN, "-p", port_of(running, flags), host)
        assert "handler_error" not in running.counters
    assert "tot_send_msgs=20, tot_recv_msgs=20" in output
    assert "Total lost packets 0" in output


async def test_coturn_client_takes_up_connections_of_a_peer(tmp_path: Path) -> None:
    """RFC 6062 with a peer that dials: what it sends, half of what is counted, arrives at the client."""
    program = needs_program("turnutils_uclient")
    async with front(tmp_path) as running:
        # Another address than the server's own, from which no peer may come.
        output = await run(
            program, "-P", "-L", "127.0.0.5", *LOAD, *LOGIN, "-p", port_of(running, ()), "127.0.0.1"
        )
    assert "tot_send_msgs=20, tot_recv_msgs=10" in output


@pytest.mark.parametrize("kind", ["tcp", "tls"])
async def test_aioice_relays_over_streams(kind: str, tmp_path: Path) -> None:
    """aioice allocates, binds a channel and exchanges data over TCP and over TLS."""
    async with front(tmp_path) as running:
        username, password = issue_credentials(SECRET, "alice", int(time.time()) + 3600)
        received: asyncio.Queue[tuple[bytes, tuple[str, int]]] = asyncio.Queue()

        class Receiver(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                received.put_nowait((data, addr))

        context = ssl.create_default_context(cafile=str(tmp_path / "turn.test.pem"))
        server = (running.tls_addresses if kind == "tls" else running.tcp_addresses)[0]
        transport, _ = await aioice_turn.create_turn_endpoint(
            Receiver,
            server_addr=(server.host, server.port),
            username=username,
            password=password,
            ssl=context if kind == "tls" else False,
            transport="tcp",
        )
        relayed = Address(*transport.get_extra_info("sockname"))
        with plain_socket(PEER_HOST) as peer:
            name = (peer.local.host, peer.local.port)
            for size in (1, 2, 3, 1199):
                transport.sendto(bytes(size), name)
                assert await peer.receive() == (bytes(size), relayed)
                peer.send(b"b" * size, relayed)
                assert await asyncio.wait_for(received.get(), PATIENCE) == (b"b" * size, name)
        transport.close()
        await until(lambda: running.counters["allocations"] == 0)


LIBNICE = """
import sys
import gi
gi.require_version("Nice", "0.1")
from gi.repository import Gio, GLib, Nice

host, port, kind, user, password = sys.argv[1:]
loop = GLib.MainLoop()
agents, streams, ready, said, heard = [], [], set(), [], []
for number in (0, 1):
    # Reliable: its own TCP above ICE, which has the streams that introspection can read.
    agent = Nice.Agent.new_reliable(loop.get_context(), Nice.Compatibility.RFC5245)
    agent.set_property("controlling-mode", number == 0)
    agent.set_property("force-relay", True)
    agent.set_property("upnp", False)
    agent.set_property("ice-tcp", False)
    address = Nice.Address.new()
    address.set_from_string("127.0.0.1")
    agent.add_local_address(address)
    stream = agent.add_stream(1)
    assert agent.set_relay_info(stream, 1, host, int(port), user, password, getattr(Nice.RelayType, kind))
    agents.append(agent)
    streams.append(stream)

def gathered(agent, stream, number):
    ready.add(number)
    if len(ready) < 2:
        return
    for here, there in ((0, 1), (1, 0)):
        found, ufrag, pwd = agents[there].get_local_credentials(streams[there])
        agents[here].set_remote_credentials(streams[here], ufrag, pwd)
    for here, there in ((0, 1), (1, 0)):
        candidates = agents[there].get_local_candidates(streams[there], 1)
        agents[here].set_remote_candidates(streams[here], 1, candidates)

def changed(agent, stream, component, state, number):
    if state == Nice.ComponentState.FAILED:
        print("failed")
        loop.quit()

def writable(agent, stream, component, number):
    if number == 0 and not said:
        said.append(agent.get_io_stream(stream, 1).get_output_stream().write(b"hello", None))

def listen(number):
    pipe = agents[number].get_io_stream(streams[number], 1).get_input_stream()
    pipe.read_bytes_async(100, GLib.PRIORITY_DEFAULT, None, arrived, number)

def arrived(pipe, result, number):
    heard.append(pipe.read_bytes_finish(result).get_data())
    if number == 1:
        agents[1].get_io_stream(streams[1], 1).get_output_stream().write(b"back", None)
    else:
        loop.quit()

for number, agent in enumerate(agents):
    agent.connect("candidate-gathering-done", gathered, number)
    agent.connect("component-state-changed", changed, number)
    agent.connect("reliable-transport-writable", writable, number)
    listen(number)
for number, agent in enumerate(agents):
    assert agent.gather_candidates(streams[number])
GLib.timeout_add_seconds(20, loop.quit)
loop.run()
print("done" if heard == [b"hello", b"back"] else heard)
"""


@pytest.mark.parametrize("kind", ["UDP", "TCP"])
async def test_libnice_agents_connect_through_our_relay_only(kind: str, tmp_path: Path) -> None:
    """Two agents of libnice with nothing but relayed candidates of our server exchange data."""
    python = needs_program("/usr/bin/python3")
    try:
        await run(python, "-c", 'import gi; gi.require_version("Nice", "0.1")')
    except AssertionError:
        missing("libnice for GObject introspection is not installed")
    async with front(tmp_path) as running:
        username, password = issue_credentials(SECRET, "alice", int(time.time()) + 3600)
        server = running.address if kind == "UDP" else running.tcp_addresses[0]
        output = await run(python, "-c", LIBNICE, server.host, str(server.port), kind, username, password)
        assert running.counters["turn_allocated"] >= 2
    assert "done" in output.split(), output
