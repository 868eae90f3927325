"""Sockets that get successors before a translator ends their mappings: `link/renewal.py` with a timer."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Protocol

from crowline.base.addresses import Address
from crowline.link.renewal import Renewal


class RenewedSockets(Protocol):
    """What does the work: the gatherer."""

    def ask(self, bases: Collection[Address]) -> None:
        """Have the STUN servers say under which addresses they see those sockets."""

    def renew(self, base: Address) -> Address | None:
        """Open a socket beside the one at `base`, and take along what can be; None where there is none."""

    def retire(self, base: Address) -> None:
        """Nothing but what cannot move may leave by that socket any more."""


class RenewalOwner(Protocol):
    """Whoever knows of paths."""

    def bases_in_use(self) -> Collection[Address]:
        """The base of the path that carries the streams."""

    def on_fading(self, base: Address) -> None:
        """The socket at `base` will be gone soon, and has a successor."""


class Renewals:
    """Call `close` at the end; nothing happens after that."""

    def __init__(self, sockets: RenewedSockets, owner: RenewalOwner) -> None:
        self._sockets = sockets
        self._owner = owner
        self._renewal = Renewal()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    def opened(self, base: Address) -> None:
        """A socket of this side sends from now on."""
        self._renewal.opened(base, self._loop.time())
        self._arm()

    def closed(self, base: Address) -> None:
        """It does not any more."""
        self._renewal.closed(base)

    def fell_silent(self, base: Address) -> None:
        """A direct path by that socket carries nothing any more."""
        self._renewal.fell_silent(base, self._loop.time())
        self._arm()

    def seen(self, base: Address, address: Address) -> None:
        """A STUN server sees the socket as `address`."""
        self._renewal.seen(base, address, self._loop.time())
        self._arm()

    def is_renewed(self, base: Address) -> bool:
        """Whether nothing new is to be built on that socket."""
        return self._renewal.is_renewed(base)

    def close(self) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        """The work itself is done by the loop: whoever told something may be in the middle of its own."""
        if self._timer is not None:
            self._timer.cancel()
        at = None if self._is_over else self._renewal.next_timeout()
        self._timer = None if at is None else self._loop.call_at(at, self._work)

    def _work(self) -> None:
        now = self._loop.time()
        work = self._renewal.due(now, self._owner.bases_in_use())
        if work.ask:
            self._sockets.ask(work.ask)
        for base in work.renew:
            if self._sockets.renew(base) is None:
                self._renewal.put_off(base, now)
            else:
                self._renewal.renewed(base, now)
                self._owner.on_fading(base)
        for base in work.retire:
            self._renewal.closed(base)
            self._sockets.retire(base)
        self._arm()
