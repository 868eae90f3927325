"""Drives the plan of one TCP simultaneous open with sockets (`punch/tcp_schedule.py`)."""

from __future__ import annotations

import socket
from collections.abc import Callable

from crowline.base.addresses import Address
from crowline.net.pump import Pump
from crowline.net.tcp_dial import Dial, Obstacle
from crowline.punch.tcp_schedule import Attempt, Command, PunchFailed, TcpSchedule


class TcpPunch:
    """Begins at once. `on_connected` takes over a socket; `on_failed` says why the plan ended without one.

    After `on_connected` the plan rests: `lost` lets it go on.
    """

    def __init__(
        self,
        local: Address,
        schedule: TcpSchedule,
        on_connected: Callable[[socket.socket], None],
        on_failed: Callable[[PunchFailed], None],
    ) -> None:
        self._local = local
        self._schedule = schedule
        self._on_connected = on_connected
        self._dial: Dial | None = None
        self._number = 0
        self._pump: Pump[Command, PunchFailed] = Pump(schedule, self._do, on_failed)
        schedule.start(self._pump.now)
        self._pump.flush()

    @property
    def remote(self) -> Address:
        return self._schedule.remote

    def proven(self) -> None:
        """The budget of the plan has no limit any more."""
        self._schedule.proven(self._pump.now)
        self._pump.flush()

    def let_in(self) -> None:
        """The other side's connection came to the listener of the port: the plan rests, as for its own."""
        self._number = self._schedule.let_in() or self._number
        self._pump.flush()

    def lost(self) -> bool:
        """The connection was reset before it proved anything. Gives whether the plan goes on."""
        self._schedule.lost(self._number, self._pump.now)
        self._pump.flush()
        return not self._schedule.is_over

    def close(self) -> None:
        """End the plan and its attempt; what it connected has an owner of its own."""
        self._schedule.stop()
        self._pump.flush()
        self._pump.close()

    def _do(self, command: Command) -> None:
        if not isinstance(command, Attempt):
            self._cancel()
            return
        number = self._number = command.number
        self._dial = Dial(
            self._local,
            self.remote,
            self._connected,
            lambda obstacle, _: self._failed(number, obstacle),
            command.hop_limit,
        )

    def _connected(self, sock: socket.socket) -> None:
        self._dial = None
        self._schedule.opened(self._number)
        self._pump.flush()
        self._on_connected(sock)

    def _failed(self, number: int, obstacle: Obstacle) -> None:
        self._dial = None
        now = self._pump.now
        if obstacle is Obstacle.REFUSED:
            self._schedule.refused(number, now)
        elif obstacle is Obstacle.UNSENT:
            self._schedule.unsent(number, now)
        else:
            self._schedule.unreachable(number, now)
        self._pump.flush()

    def _cancel(self) -> None:
        dial, self._dial = self._dial, None
        if dial is not None:
            dial.cancel()
