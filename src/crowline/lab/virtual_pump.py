"""The pump of virtual time: what `net/pump.py` is in an asyncio loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from crowline.lab.clock import Timer, VirtualClock
from crowline.net.pump import Drivable

TT = TypeVar("TT")
EE = TypeVar("EE")


class VirtualPump(Generic[TT, EE]):
    """Sends what `machine` gives, hands on its events, keeps its one timer.

    Call `flush` after each call to the machine. `send` and `on_event` may call the machine, and `flush`,
    again.
    """

    def __init__(
        self,
        clock: VirtualClock,
        machine: Drivable[TT, EE],
        send: Callable[[TT], None],
        on_event: Callable[[EE], None],
    ) -> None:
        self._clock = clock
        self._machine = machine
        self._send = send
        self._on_event = on_event
        self._timer: Timer | None = None
        self._flushing = False
        self._again = False
        self._closed = False

    def flush(self) -> None:
        """Take everything the machine has to give and set its timer."""
        if self._flushing:
            self._again = True
            return
        if self._closed:
            return
        machine = self._machine
        self._flushing = self._again = True
        while self._again:
            self._again = False
            while (transmit := machine.next_transmit()) is not None:
                self._send(transmit)
            while (event := machine.next_event()) is not None:
                self._again = True
                self._on_event(event)
        self._flushing = False
        self._arm(machine.next_timeout())

    def close(self) -> None:
        """Stop; the machine is not called any more."""
        self._closed = True
        self._arm(None)

    def _arm(self, at: float | None) -> None:
        timer = self._timer
        if timer is not None:
            if at == timer.time:
                return
            timer.is_cancelled = True
        self._timer = None if at is None or self._closed else self._clock.call_at(at, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._machine.handle_timeout(self._clock.now)
        self.flush()
