"""The laboratory's long path: distance, a narrow place and losses that the kernel makes."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from crowline.lab.long_path import Distance, LongPath
from crowline.lab.namespaces import Internet
from needs import needs_program

PATIENCE = 30.0
PACKET = 1000


@contextmanager
def path(distance: Distance) -> Iterator[tuple[socket.socket, socket.socket, LongPath]]:
    """A UDP socket on the near and one on the far side; both wait for what must come."""
    needs_program("tc")
    needs_program("nft")
    with Internet() as net, closing(LongPath(net, distance)) as laid:
        near = net.socket(laid.near, socket.SOCK_DGRAM)
        far = net.socket(laid.far, socket.SOCK_DGRAM)
        with near, far:
            near.settimeout(PATIENCE)
            far.settimeout(PATIENCE)
            yield near, far, laid


def test_a_packet_takes_the_delay_each_way() -> None:
    """There and back takes twice the delay at the least, and the packet is the one that was sent."""
    with path(Distance(delay=0.05, rate=1e6)) as (near, far, _):
        began = time.monotonic()
        near.sendto(b"there", far.getsockname())
        data, source = far.recvfrom(100)
        far.sendto(b"and back", source)
        assert (data, near.recvfrom(100)[0]) == (b"there", b"and back")
        assert time.monotonic() - began >= 0.1


def test_the_narrow_place_lets_through_no_more_than_its_rate() -> None:
    """What is sent at once arrives no faster than the rate, beyond what the bucket lets through at once."""
    count, rate, burst = 200, 400e3, 64 * 1024
    with path(Distance(delay=0.01, rate=rate)) as (near, far, _):
        for _ in range(count):
            near.sendto(bytes(PACKET), far.getsockname())
        far.recv(2 * PACKET)
        began = time.monotonic()
        for _ in range(count - 1):
            far.recv(2 * PACKET)
        assert time.monotonic() - began >= 0.8 * (count * PACKET - burst) / rate


def test_single_packets_are_lost() -> None:
    """Of packets sent as one run some are lost and some are not: losses fall on packets, not on runs."""
    udp_segment, runs, segments = 103, 10, 20
    with path(Distance(delay=0.001, rate=10e6, loss=0.3)) as (near, far, _):
        near.setsockopt(socket.IPPROTO_UDP, udp_segment, PACKET)
        for _ in range(runs):
            near.sendto(bytes(segments * PACKET), far.getsockname())
        far.settimeout(1.0)
        arrived = 0
        with pytest.raises(TimeoutError):
            while True:
                assert len(far.recv(2 * PACKET)) == PACKET
                arrived += 1
        assert 0.4 * runs * segments < arrived < 0.95 * runs * segments
