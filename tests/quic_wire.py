"""Two ends of a QUIC link on a path in virtual time, with a delay, a largest packet, and loss if wanted."""

from __future__ import annotations

import heapq
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.link.events import LinkData, LinkDown, LinkEvent
from crowline.link.identity import Identity
from crowline.link.quic import DATAGRAM_SIZE, LINK_ID_LENGTH, QuicLink

CLIENT, SERVER = Address("192.0.2.1", 1000), Address("198.51.100.2", 2000)
KEY = Secret(b"k" * 32)
IDENTITY = Identity.generate()
# The longest step of the clock, seconds.
STEP = 0.01


@dataclass
class Wire:
    """A client and, from its first datagram on, a server. Every datagram takes `delay` seconds."""

    client: QuicLink
    identity: Identity = field(default_factory=lambda: IDENTITY)
    key: Secret = KEY
    now: float = 0.0
    delay: float = 0.0
    server: QuicLink | None = None
    # As the client's where it is not given.
    server_size: int | None = None
    events: dict[str, list[LinkEvent]] = field(default_factory=lambda: {"client": [], "server": []})
    # By the client.
    sent: list[Transmit] = field(default_factory=list)
    # The largest datagram that passes, by the side that sends it; larger ones get lost without a word.
    mtu: dict[str, int] = field(default_factory=lambda: {"client": 65535, "server": 65535})
    # Whether a datagram of that side gets lost.
    loses: Callable[[str], bool] = lambda side: False
    # The same by what is in it.
    loses_datagram: Callable[[str, bytes], bool] = lambda side, data: False
    _way: list[tuple[float, int, str, bytes, int]] = field(default_factory=list)
    _order: itertools.count[int] = field(default_factory=itertools.count)

    def run(self, seconds: float = 1.0, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, or as much of it as it takes until that is so."""
        end = self.now + seconds
        while self.now < end and not until():
            self.exchange()
            times = [link.next_timeout() for link in self.links()]
            later = [t for t in times if t is not None and t > self.now]
            self.now = min([self.now + STEP, end, *later, *(item[0] for item in self._way[:1])])
            for link in self.links():
                if (t := link.next_timeout()) is not None and t <= self.now:
                    link.handle_timeout(self.now)
        self.exchange()

    def links(self) -> list[QuicLink]:
        return [link for link in (self.client, self.server) if link is not None]

    def data(self, side: str) -> bytes:
        return b"".join(bytes(e.data) for e in self.events[side] if isinstance(e, LinkData))

    def downs(self, side: str) -> list[str]:
        return [e.reason for e in self.events[side] if isinstance(e, LinkDown)]

    def exchange(self) -> None:
        """Everything that can move now."""
        while self._send() + self._arrive():
            pass

    def deliver(self, side: str, transmit: Transmit) -> None:
        """Put what `side` sends on its way."""
        if side == "client":
            self.sent.append(transmit)
        size = transmit.segment_size or len(transmit.data)
        data = bytes(transmit.data)
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        passing = [
            piece
            for piece in pieces
            if len(piece) <= self.mtu[side] and not (self.loses(side) or self.loses_datagram(side, piece))
        ]
        if passing:
            size = len(passing[0])
            item = (self.now + self.delay, next(self._order), side, b"".join(passing), size)
            heapq.heappush(self._way, item)

    def _send(self) -> int:
        moved = 0
        for side, link in (("client", self.client), ("server", self.server)):
            while link is not None and (transmit := link.next_transmit()) is not None:
                moved += 1
                self.deliver(side, transmit)
            while link is not None and (event := link.next_event()) is not None:
                self.events[side].append(event)
        return moved

    def _arrive(self) -> int:
        moved = 0
        while self._way and self._way[0][0] <= self.now:
            _, _, side, data, size = heapq.heappop(self._way)
            moved += 1
            if side == "server":
                self.client.receive_run(data, size, self.now)
                continue
            if self.server is None:
                self.server = QuicLink.accept(
                    data[:size],
                    destination=CLIENT,
                    local=SERVER,
                    identity=self.identity,
                    client_key=self.key,
                    now=self.now,
                    size=self.server_size or self.client.size,
                )
            self.server.receive_run(data, size, self.now)
        return moved


def connect(
    key: Secret = KEY,
    fingerprint: bytes = IDENTITY.fingerprint,
    size: int = DATAGRAM_SIZE,
    rtt: float = 0.04,
) -> QuicLink:
    return QuicLink.connect(
        destination=SERVER,
        local=CLIENT,
        peer_fingerprint=fingerprint,
        client_key=key,
        link_id=os.urandom(LINK_ID_LENGTH),
        now=0.0,
        rtt=rtt,
        size=size,
    )


def up(size: int = DATAGRAM_SIZE, delay: float = 0.0) -> Wire:
    """Both ends up."""
    wire = Wire(connect(size=size, rtt=max(0.04, 2 * delay)), delay=delay)
    wire.run(0.2 + 10 * delay)
    assert wire.client.is_up and wire.server is not None and wire.server.is_up
    return wire
