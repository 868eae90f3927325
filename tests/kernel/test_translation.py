"""Translators as their neighbours see them, by real packets; nftables and the user-space one must agree."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing

import pytest

from crowline.lab.namespaces import Internet
from crowline.lab.packet import checksum
from crowline.lab.places import Host, Site
from crowline.lab.profile import Firewall, Ipv6
from places import with_ipv6

Factory = Callable[..., Internet]

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
PORT = 3478
PATIENCE = 30.0  # seconds for something that must arrive
SILENCE = 0.15  # seconds in which what must not arrive would have, seven times over

TRANSLATORS = pytest.mark.parametrize("translator", ["kernel", "user"])
NATS = pytest.mark.parametrize("nat", ["home", "symmetric"])


class Sockets:
    """UDP sockets on the hosts of one internet, closed together."""

    def __init__(self, net: Internet) -> None:
        self.net = net
        self.stack = ExitStack()

    def __enter__(self) -> Sockets:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def on(self, host: Host, port: int = 0, address: str = "") -> socket.socket:
        made = self.stack.enter_context(closing(self.net.socket(host, UDP, address, port)))
        made.settimeout(PATIENCE)
        return made


def seen_from(source: socket.socket, server: socket.socket) -> tuple[str, int]:
    """Send one packet and say by which address the server saw it."""
    token = os.urandom(8)
    source.sendto(token, server.getsockname()[:2])
    data, address = server.recvfrom(100)
    assert data == token
    return address[:2]


def hears(receiver: socket.socket) -> bytes | None:
    """What arrives within the time of silence."""
    receiver.settimeout(SILENCE)
    try:
        return receiver.recv(100)
    except TimeoutError:
        return None


def two_ends(net: Internet, nat: str) -> tuple[Host, Site]:
    return net.server(), net.site(nat)


@TRANSLATORS
def test_a_preserving_translator_maps_the_same_to_everyone(internet: Factory, translator: str) -> None:
    """One inside port is one outside address for every destination, and keeps its number."""
    net = internet(translator)
    server, site = two_ends(net, "home")
    with Sockets(net) as sockets:
        inside = sockets.on(site.hosts[0], 5000)
        targets = [
            (server.addresses[0], PORT),
            (server.addresses[0], PORT + 1),
            (server.addresses[1], PORT),
        ]
        seen = {seen_from(inside, sockets.on(server, port, host)) for host, port in targets}
    assert seen == {(site.outside[0], 5000)}
    assert site.translators == (translator,)


@TRANSLATORS
def test_a_random_translator_maps_anew_for_everyone(internet: Factory, translator: str) -> None:
    """Every destination sees another port, and the same one again later."""
    net = internet(translator)
    server, site = two_ends(net, "symmetric")
    with Sockets(net) as sockets:
        inside = sockets.on(site.hosts[0], 5000)
        targets = [
            sockets.on(server, port, host)
            for host in server.addresses[:2]
            for port in (PORT, PORT + 1, PORT + 2)
        ]
        first = [seen_from(inside, target) for target in targets]
        again = [seen_from(inside, target) for target in targets]
    assert first == again
    assert {host for host, _ in first} == {site.outside[0]}
    assert len({port for _, port in first}) == len(targets)


@TRANSLATORS
@NATS
def test_an_answer_comes_back(internet: Factory, translator: str, nat: str) -> None:
    """What the server answers reaches the socket that asked, from the address that was asked."""
    net = internet(translator)
    server, site = two_ends(net, nat)
    with Sockets(net) as sockets:
        inside, outside = sockets.on(site.hosts[0]), sockets.on(server, PORT)
        outside.sendto(b"answer", seen_from(inside, outside))
        assert inside.recvfrom(100) == (b"answer", (server.addresses[0], PORT))


@TRANSLATORS
@NATS
def test_strangers_are_filtered(internet: Factory, translator: str, nat: str) -> None:
    """Neither another host nor another port of the same host gets through a mapping; the one asked does."""
    net = internet(translator)
    server, site = two_ends(net, nat)
    with Sockets(net) as sockets:
        inside, asked = sockets.on(site.hosts[0]), sockets.on(server, PORT)
        mapping = seen_from(inside, asked)
        sockets.on(server, PORT + 1).sendto(b"other port", mapping)
        sockets.on(server, PORT, server.addresses[1]).sendto(b"other host", mapping)
        assert hears(inside) is None
        asked.sendto(b"asked", mapping)
        assert hears(inside) == b"asked"


@TRANSLATORS
def test_an_early_packet_does_not_spoil_the_mapping(internet: Factory, translator: str) -> None:
    """A packet that comes before the hole is open is dropped without a trace: the port is still preserved."""
    net = internet(translator)
    server, site = two_ends(net, "home")
    with Sockets(net) as sockets:
        inside, outside = sockets.on(site.hosts[0], 5000), sockets.on(server, PORT)
        outside.sendto(b"too early", (site.outside[0], 5000))
        assert hears(inside) is None
        assert seen_from(inside, outside) == (site.outside[0], 5000)
        outside.sendto(b"in time", (site.outside[0], 5000))
        assert hears(inside) == b"in time"


@TRANSLATORS
def test_two_preserving_sites_punch_through(internet: Factory, translator: str) -> None:
    """Both send to the other's outside address: each first packet opens a hole, the later ones pass."""
    net = internet(translator)
    left, right = net.site("home"), net.site("home")
    with Sockets(net) as sockets:
        ends = [sockets.on(left.hosts[0], 5000), sockets.on(right.hosts[0], 6000)]
        outsides = [(left.outside[0], 5000), (right.outside[0], 6000)]
        for _ in range(2):
            ends[0].sendto(b"from the left", outsides[1])
            ends[1].sendto(b"from the right", outsides[0])
        assert ends[0].recvfrom(100) == (b"from the right", outsides[1])
        assert ends[1].recvfrom(100) == (b"from the left", outsides[0])


@TRANSLATORS
def test_neighbours_share_an_outside_address_and_a_network(internet: Factory, translator: str) -> None:
    """Two hosts behind one translator have the same outside address, and reach each other without it."""
    net = internet(translator)
    server = net.server()
    site = net.site("home", hosts=2)
    with Sockets(net) as sockets:
        outside = sockets.on(server, PORT)
        first, second = sockets.on(site.hosts[0], 5000), sockets.on(site.hosts[1], 5001)
        assert seen_from(first, outside)[0] == seen_from(second, outside)[0] == site.outside[0]
        first.sendto(b"hello neighbour", (site.hosts[1].addresses[0], 5001))
        assert second.recvfrom(100) == (b"hello neighbour", (site.hosts[0].addresses[0], 5000))


@TRANSLATORS
def test_ipv6_is_not_translated(internet: Factory, translator: str) -> None:
    """A host's IPv6 address is seen as it is; open, everyone may call it; firewalled, only whom it called."""
    net = internet(translator)
    server = net.server()
    v6 = server.addresses[2]
    for kind in (Ipv6.OPEN, Ipv6.FIREWALLED):
        host = net.site(with_ipv6("home", kind)).hosts[0]
        with Sockets(net) as sockets:
            inside, caller = sockets.on(host, 5000, host.addresses[1]), sockets.on(server, PORT, v6)
            caller.sendto(b"unasked", (host.addresses[1], 5000))
            assert hears(inside) == (b"unasked" if kind is Ipv6.OPEN else None)
            assert seen_from(inside, caller) == (host.addresses[1], 5000)
            caller.sendto(b"asked", (host.addresses[1], 5000))
            assert hears(inside) == b"asked"


@TRANSLATORS
@NATS
def test_tcp_passes(internet: Factory, translator: str, nat: str) -> None:
    """A megabyte goes through a TCP connection out of a translator, and back."""
    net = internet(translator)
    server, site = two_ends(net, nat)
    sent = os.urandom(1 << 20)
    with ExitStack() as stack:
        listener = stack.enter_context(closing(net.socket(server, TCP, port=8080)))
        listener.listen()
        listener.settimeout(PATIENCE)
        dialler = stack.enter_context(closing(net.socket(site.hosts[0], TCP)))
        dialler.settimeout(PATIENCE)
        dialler.connect((server.addresses[0], 8080))
        accepted, source = listener.accept()
        stack.enter_context(closing(accepted))
        accepted.settimeout(PATIENCE)
        assert source[0] == site.outside[0]
        for out, back in ((dialler, accepted), (accepted, dialler)):
            assert exchanged(out, back, sent) == sent


def exchanged(out: socket.socket, back: socket.socket, data: bytes) -> bytes:
    """Write and read in turns, so that neither end's buffer has to hold everything."""
    view, received = memoryview(data), bytearray()
    while len(received) < len(data):
        if view:
            view = view[out.send(view[:16384]) :]
        received += back.recv(65536)
    return bytes(received)


@TRANSLATORS
@NATS
def test_ping_passes(internet: Factory, translator: str, nat: str) -> None:
    """An ICMP echo goes out and its reply comes back with the identifier that was sent."""
    net = internet(translator)
    server, site = two_ends(net, nat)

    def raw() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)

    with closing(net.inside(site.hosts[0], raw)) as inside:
        inside.settimeout(PATIENCE)
        request = bytearray(struct.pack("!BBHHH", 8, 0, 0, 4711, 1) + b"ping")
        struct.pack_into("!H", request, 2, checksum(request))
        inside.sendto(request, (server.addresses[0], 0))
        reply, (host, _) = inside.recvfrom(200)
    assert host == server.addresses[0]
    assert struct.unpack_from("!BBHHH", reply, 20)[0] == 0
    assert struct.unpack_from("!BBHHH", reply, 20)[3] == 4711


@TRANSLATORS
@pytest.mark.parametrize(("hops", "arrives"), [(1, False), (2, False), (3, True)])
def test_hops_are_counted(internet: Factory, translator: str, hops: int, arrives: bool) -> None:
    """Gateway and router take one each; whoever takes the last says so, and the inside socket hears it."""
    net = internet(translator)
    server, site = two_ends(net, "home")
    with Sockets(net) as sockets:
        inside, outside = sockets.on(site.hosts[0], 5000), sockets.on(server, PORT)
        inside.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
        inside.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
        inside.connect((server.addresses[0], PORT))
        inside.send(b"how far?")
        if arrives:
            assert outside.recv(100) == b"how far?"
            return
        with pytest.raises(OSError, match="No route to host"):
            inside.recv(100)
        assert hears(outside) is None


@TRANSLATORS
def test_a_short_lived_packet_opens_the_hole(internet: Factory, translator: str) -> None:
    """A packet that dies on the way to the other side has made the mapping all the same."""
    net = internet(translator)
    server, site = two_ends(net, "home")
    with Sockets(net) as sockets:
        inside, outside = sockets.on(site.hosts[0], 5000), sockets.on(server, PORT)
        inside.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 2)
        inside.sendto(b"opener", (server.addresses[0], PORT))
        assert hears(outside) is None
        outside.sendto(b"through", (site.outside[0], 5000))
        assert hears(inside) == b"through"


@TRANSLATORS
def test_blocked_udp_is_dropped_and_tcp_is_not(internet: Factory, translator: str) -> None:
    """A site without UDP still connects by TCP, and has UDP again when the block is lifted."""
    net = internet(translator)
    server = net.server()
    site = net.site("udp-blocked")
    with Sockets(net) as sockets, closing(net.socket(server, TCP, port=8080)) as listener:
        listener.listen()
        inside, outside = sockets.on(site.hosts[0]), sockets.on(server, PORT)
        inside.sendto(b"lost", (server.addresses[0], PORT))
        assert hears(outside) is None
        with closing(net.socket(site.hosts[0], TCP)) as dialler:
            dialler.settimeout(PATIENCE)
            dialler.connect((server.addresses[0], 8080))
        net.set_firewall(site, Firewall.NONE)
        outside.settimeout(PATIENCE)
        assert seen_from(inside, outside)[0] == site.outside[0]


@TRANSLATORS
@NATS
def test_runs_of_datagrams_arrive_whole(internet: Factory, translator: str, nat: str) -> None:
    """What one system call sends as a run of segments, another receives: every byte, through a translator."""
    net = internet(translator)
    server, site = two_ends(net, nat)
    segment, count = 1200, 50
    sent = os.urandom(segment * count)
    with Sockets(net) as sockets:
        inside, outside = sockets.on(site.hosts[0]), sockets.on(server, PORT)
        outside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        inside.setsockopt(socket.IPPROTO_UDP, 103, segment)  # UDP_SEGMENT
        inside.sendto(sent, (server.addresses[0], PORT))
        received = [outside.recvfrom(65536) for _ in range(count)]  # without UDP_GRO: one at a time
    assert b"".join(data for data, _ in received) == sent
    assert {len(data) for data, _ in received} == {segment}
    assert {address[0] for _, address in received} == {site.outside[0]}


@TRANSLATORS
def test_programs_run_on_hosts(internet: Factory, translator: str) -> None:
    """A spawned program has its host's addresses and its host's way out."""
    net = internet(translator)
    server, site = two_ends(net, "home")
    code = (
        "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
        f"s.connect(('{server.addresses[0]}', {PORT})); s.send(b'program'); print(s.getsockname()[0])"
    )
    with Sockets(net) as sockets:
        outside = sockets.on(server, PORT)
        process = net.spawn(site.hosts[0], [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert outside.recvfrom(100)[1][0] == site.outside[0]
        assert process.communicate(timeout=30)[0].strip() == site.hosts[0].addresses[0]
