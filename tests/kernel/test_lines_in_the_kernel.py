"""What lines do to real packets, and what moving the clock does to real connection tracking."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from crowline.lab import conntrack
from crowline.lab.impairment import GilbertElliott, Impairment
from crowline.lab.namespace import inside
from crowline.lab.namespaces import Internet

Factory = Callable[..., Internet]

UDP = socket.SOCK_DGRAM
PATIENCE = 30.0
UDP_SEGMENT = 103


def received(sink: socket.socket) -> list[bytes]:
    sink.setblocking(False)
    found = []
    while True:
        try:
            found.append(sink.recv(65536))
        except BlockingIOError:
            return found


def all_received(net: Internet, sink: socket.socket) -> list[bytes]:
    """What arrives until nothing more does; a busy kernel may hold packets before the wire has them."""
    deadline = time.monotonic() + PATIENCE
    found: list[bytes] = []
    while time.monotonic() < deadline:
        net.settle()
        time.sleep(0.1)
        more = received(sink)
        if found and not more:
            break
        found += more
    return found


@pytest.mark.parametrize("loss", [0.3, GilbertElliott.of_bursts(0.3, 4)], ids=["even", "bursts"])
def test_single_packets_are_lost(internet: Factory, loss: float | GilbertElliott) -> None:
    """Also when they were sent as a run by one system call: the share is that of packets, not of runs."""
    net = internet()
    server = net.server()
    site = net.site("home", impairment=Impairment(loss=loss))
    with (
        closing(net.socket(server, UDP, port=9000)) as sink,
        closing(net.socket(site.hosts[0], UDP)) as source,
    ):
        sink.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
        source.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 500)
        for _ in range(40):
            source.sendto(os.urandom(500 * 50), (server.addresses[0], 9000))
        found = all_received(net, sink)
    assert {len(data) for data in found} == {500}
    assert 1100 < len(found) < 1700  # of 2000: more than six standard deviations, for bursts too
    of_others = net.counters()["lost"] - (2000 - len(found))
    assert 0 <= of_others < 10  # kernels announce their multicast groups over the same line


def test_a_slow_line_takes_its_time(internet: Factory) -> None:
    """40 packets of 1,028 bytes at 100 kB/s need 0.4 s, and the delay."""
    net = internet()
    server = net.server()
    site = net.site("home", impairment=Impairment(delay=0.02, rate=100e3))
    with (
        closing(net.socket(server, UDP, port=9000)) as sink,
        closing(net.socket(site.hosts[0], UDP)) as source,
    ):
        sink.settimeout(PATIENCE)
        start = time.monotonic()
        for _ in range(40):
            source.sendto(os.urandom(1000), (server.addresses[0], 9000))
        sink.recv(2000)
        first = time.monotonic() - start
        for _ in range(39):
            sink.recv(2000)
        last = time.monotonic() - start
    assert first > 0.02
    assert 0.42 <= last < 5


def test_impairments_can_be_changed_and_taken_away(internet: Factory) -> None:
    """A line that loses everything loses nothing any more once it is told so."""
    net = internet()
    server, site = net.server(), net.site("home", delay=0.0)
    with (
        closing(net.socket(server, UDP, port=9000)) as sink,
        closing(net.socket(site.hosts[0], UDP)) as source,
    ):
        for loss, arrives in ((1.0, False), (0.0, True)):
            net.impair(site, Impairment(loss=loss))
            source.sendto(b"?", (server.addresses[0], 9000))
            net.settle()
            assert bool(received(sink)) == arrives


def test_time_passes_for_connection_tracking(internet: Factory) -> None:
    """Entries get older by what is asked for, and end when nothing is left; no real time passes."""
    net = internet("kernel")
    server, site = net.server(), net.site("home", delay=0.0)
    start = time.monotonic()
    with closing(net.socket(site.hosts[0], UDP)) as source:
        source.sendto(b"?", (server.addresses[0], 9000))
        net.settle()
        assert 100 < remaining(net, site.name) <= 120
        net.advance(100)
        assert 0 < remaining(net, site.name) <= 20
        source.sendto(b"?", (server.addresses[0], 9000))
        net.settle()
        assert remaining(net, site.name) > 100
        net.advance(121)
        assert remaining(net, site.name) == 0
    assert time.monotonic() - start < 60


def remaining(net: Internet, site: str) -> int:
    """Seconds that the one UDP flow of that gateway has left; 0 without any."""

    def look() -> list[int]:
        with closing(conntrack.open_netlink()) as kernel:
            return [entry.left for entry in conntrack.entries(kernel) if entry.left <= 120]  # others: IGMP

    left = inside(f"{net.prefix}{site}", look)
    assert len(left) <= 1
    return left[0] if left else 0
