"""A UDP socket on all addresses of this machine that answers from the one that was asked.

A datagram to a host with several addresses must be answered from the address it was sent to: NATs and clients
drop what comes from anywhere else. The kernel tells that address with each datagram, and takes it
for each answer (IP_PKTINFO, RFC 3542 §6).
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import TypeAlias

from crowline.base.addresses import Address
from crowline.net.arrival import IP_PKTINFO, IPV6_RECVPKTINFO, Arrival
from crowline.net.udp import BatchSocket

Receiver: TypeAlias = Callable[[memoryview, Address, int, Address], None]
"""Gets the bytes of a run, good only during the call, its source, the size of its datagrams, and the address
that was asked."""

IS_SUPPORTED = sys.platform.startswith("linux")


class AskedSocket(BatchSocket):
    """`bind(address, on_receive)` takes a wildcard address and a `Receiver`; `send` leaves by
    `transmit.local`.
    """

    __slots__ = ()
    says_local = True

    @classmethod
    def _prepare(cls, sock: socket.socket) -> None:
        super()._prepare(sock)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)

    def _deliver(self, data: memoryview, arrival: Arrival) -> None:
        if arrival.local is not None:
            self._on_receive(data, arrival.source, arrival.segment_size or len(data), arrival.local)
