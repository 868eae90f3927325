"""The pump: what turns any five-verb machine into something that runs in an asyncio loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

T = TypeVar("T", covariant=True)
E = TypeVar("E", covariant=True)
TT = TypeVar("TT")
EE = TypeVar("EE")


class Drivable(Protocol[T, E]):
    """The verbs a pump calls; `receive` is the owner's, since machines differ in what a source is."""

    def handle_timeout(self, now: float) -> None: ...

    def next_timeout(self) -> float | None: ...

    def next_transmit(self) -> T | None: ...

    def next_event(self) -> E | None: ...


class Pump(Generic[TT, EE]):
    """Sends what `machine` gives, hands on its events, keeps its one timer.

    Call `flush` after each call to the machine. `send` and `on_event` may call the machine, and `flush`,
    again. `on_timeout` is called when the machine's time has come, for owners whose `flush` does more.
    """

    def __init__(
        self,
        machine: Drivable[TT, EE],
        send: Callable[[TT], object],
        on_event: Callable[[EE], object],
        on_timeout: Callable[[], object] | None = None,
    ) -> None:
        self._machine = machine
        self._send = send
        self._on_event = on_event
        self._on_timeout = on_timeout or self.flush
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._flushing = False
        self._again = False
        self._closed = False

    @property
    def now(self) -> float:
        """Seconds of the loop's clock, which every machine of this process is told."""
        return self._loop.time()

    def flush(self) -> None:
        """Take everything the machine has to give and set its timer.

        The timer is set also where `send` or `on_event` raises.
        """
        if self._flushing:
            self._again = True
            return
        if self._closed:
            return
        self._flushing = True
        try:
            self._drain()
        finally:
            self._flushing = False
            self._arm()

    def close(self) -> None:
        """Stop; the machine is not called any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drain(self) -> None:
        self._again = True
        while self._again and not self._closed:
            self._again = False
            while (transmit := self._machine.next_transmit()) is not None:
                self._send(transmit)
            while not self._closed and (event := self._machine.next_event()) is not None:
                self._again = True
                self._on_event(event)

    def _arm(self) -> None:
        if self._closed:
            return
        at = self._machine.next_timeout()
        if self._timer is not None:
            if at is not None and self._timer.when() == at:
                return
            self._timer.cancel()
        self._timer = None if at is None else self._loop.call_at(at, self._expire)

    def _expire(self) -> None:
        self._timer = None
        if self._closed:
            return
        self._machine.handle_timeout(self._loop.time())
        self._on_timeout()
