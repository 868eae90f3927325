"""A bare hub with connections that say what they like."""

from __future__ import annotations

import itertools
import random

from crowline.base.addresses import Address
from crowline.rendezvous import wire
from crowline.rendezvous.hub import Delivery, Hub
from crowline.rendezvous.limits import HubLimits


class Bench:
    """`heard`, `frames` and `closed` are what each connection got."""

    def __init__(self, limits: HubLimits | None = None) -> None:
        self.hub = Hub(entropy=random.Random(3).randbytes, limits=limits)
        self.now = 0.0
        self._numbers = itertools.count(1)
        self.heard: dict[int, list[wire.HubMessage]] = {}
        self.frames: dict[int, list[bytes]] = {}
        self.closed: dict[int, int] = {}

    def connect(self, ip: str = "203.0.113.9") -> int:
        number = next(self._numbers)
        self.heard[number], self.frames[number] = [], []
        self.hub.connect(number, Address(ip, 1000), self.now)
        self._take()
        return number

    def say(self, connection: int, message: wire.ClientMessage | bytes) -> list[wire.HubMessage]:
        """What this connection hears in answer."""
        before = len(self.heard[connection])
        data = message if isinstance(message, bytes) else wire.encode(message)
        self.hub.receive(connection, data, self.now)
        self._take()
        return self.heard[connection][before:]

    def frame(self, connection: int, data: bytes) -> None:
        self.hub.receive_binary(connection, data, self.now)
        self._take()

    def disconnect(self, connection: int) -> None:
        """Its WebSocket breaks."""
        self.hub.disconnect(connection, self.now)
        self._take()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.hub.handle_timeout(self.now)
        self._take()

    def host(self, ip: str = "198.51.100.1") -> tuple[int, int]:
        """A connection with a mailbox, and its number."""
        connection = self.connect(ip)
        [allocated] = self.say(connection, wire.Allocate(wire.VERSION, b"host"))
        assert isinstance(allocated, wire.Allocated)
        return connection, allocated.number

    def claim(self, number: int, ip: str = "203.0.113.9") -> tuple[int, wire.HubMessage]:
        connection = self.connect(ip)
        [answer] = self.say(connection, wire.Claim(wire.VERSION, number, b"join"))
        return connection, answer

    def _take(self) -> None:
        while (delivery := self.hub.next_transmit()) is not None:
            self._took(delivery)

    def _took(self, delivery: Delivery) -> None:
        if delivery.close is not None:
            self.closed[delivery.connection] = delivery.close
        elif delivery.is_binary:
            self.frames[delivery.connection].append(bytes(delivery.data))
        else:
            self.heard[delivery.connection].append(wire.decode_hub(delivery.data))
