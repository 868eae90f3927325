"""What the TURN machine needs of the world: its clock, its relayed addresses, and a way to its clients."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.server.relay_ports import SocketRelayPorts
from crowline.turn.server import TurnServer

_log = logging.getLogger(__name__)


class TurnDriver:
    """Drives one `TurnServer`. `ports` hands what peers send to `from_peer`."""

    def __init__(self, send: Callable[[Transmit], None]) -> None:
        """`send` brings an answer to a client; what peers get leaves by `ports`."""
        self.counters: Counter[str] = Counter()
        self.machine: TurnServer
        self.ports: SocketRelayPorts
        self._send_to_client = send
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def close(self) -> None:
        """End all allocations and give their ports back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.machine.close()
        self.ports.close_all()

    def receive(self, data: memoryview, source: Address, local: Address, segment_size: int) -> None:
        """What a client sent over UDP; `flush` is due before `data` is used again."""
        self.machine.receive(data, source, time.monotonic(), local, segment_size)

    def from_peer(self, data: memoryview, peer: Address, size: int, relayed: Address) -> None:
        try:
            segment_size = size if size < len(data) else None
            self.machine.receive_from_peer(data, peer, time.monotonic(), relayed, segment_size)
            self.flush()
        except Exception:
            self._survive()

    def flush(self) -> None:
        """Send everything at once: bulk data still lies in the buffer it was received into."""
        while (transmit := self.machine.next_transmit()) is not None:
            if not self.ports.send(transmit):
                self._send_to_client(transmit)
        self._set_timer()

    def drop(self) -> int:
        """Forget what is still to be sent, and say how much that was."""
        dropped = 0
        while self.machine.next_transmit() is not None:
            dropped += 1
        return dropped

    def _set_timer(self) -> None:
        at = self.machine.next_timeout()
        if at is None or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, at - time.monotonic()), self._expire)

    def _expire(self) -> None:
        self._timer = None
        try:
            self.machine.handle_timeout(time.monotonic())
            self.flush()
        except Exception:
            self._survive()

    def _survive(self) -> None:
        """A fault of ours costs what was just done, not the server."""
        self.counters["handler_error"] += 1
        self.counters["dropped_by_error"] += self.drop()
        _log.debug("a packet could not be handled", exc_info=True)
