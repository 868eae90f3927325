"""Whether two TCP ports of this machine reach each other by their outside addresses (RFC 5382 §7.2)."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack, suppress

from crowline.net.tcp_dial import Dial, Obstacle
from crowline.net.tcp_sockets import name_of, open_shared, reset
from crowline.stun.nat_findings import Hairpinning, Sample

_BACKLOG = 4  # connections that wait to be accepted: ours is one


async def tcp_hairpin(one: Sample, two: Sample, patience: float) -> Hairpinning | None:
    """Let both ports dial each other at once, so that each opens the filter for the other.

    `mapped` of each is how the other one reaches it. ``None`` where nothing was turned round in `patience`
    seconds. What one port alone connects to may be a stranger: both have to, or one has to be called.
    """
    with ExitStack() as stack:
        attempt = _Attempt(one, two)
        for each in (one, two):
            attempt.listen(each, stack)
        # The first SYN of all opens a filter and may be dropped there; in the second round none is closed.
        for order in ((one, two), (two, one)):
            await attempt.dial(*order, patience / 2)
            if attempt.result is not None:
                break
        return attempt.result


class _Attempt:
    """Two ports that listen and dial."""

    def __init__(self, one: Sample, two: Sample) -> None:
        self.result: Hairpinning | None = None
        self._samples = (one, two)
        self._loop = asyncio.get_running_loop()
        self._is_over = asyncio.Event()
        self._connected: list[socket.socket] = []
        self._failed = 0

    def listen(self, here: Sample, stack: ExitStack) -> None:
        """Take the SYN of the other port where this one has not dialled yet."""
        try:
            listener = open_shared(here.local)
        except OSError:
            return
        stack.callback(listener.close)
        try:
            listener.listen(_BACKLOG)
        except OSError:
            return
        self._loop.add_reader(listener, self._accept, listener)
        stack.callback(self._loop.remove_reader, listener)

    async def dial(self, first: Sample, second: Sample, patience: float) -> None:
        """Connect to each other's outside addresses; over when that is known to work, or not to."""
        self._failed = 0
        self._is_over.clear()
        dials = [
            Dial(here.local, there.mapped, self._dialled, self._lost)
            for here, there in ((first, second), (second, first))
        ]
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._is_over.wait()
        finally:
            for dial in dials:
                dial.cancel()
            for sock in self._connected:
                reset(sock)
            self._connected.clear()

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, name = listener.accept()
        except OSError:
            return
        reset(sock)
        source = name_of(name[:2])
        if any(source == each.local for each in self._samples):
            self._settle(Hairpinning.INTERNAL_SOURCE)
        elif any(source.host == each.mapped.host for each in self._samples):
            self._settle(Hairpinning.EXTERNAL_SOURCE)

    def _dialled(self, sock: socket.socket) -> None:
        """Where both did, their SYNs have crossed. To end the first at once would end the other's attempt."""
        self._connected.append(sock)
        if len(self._connected) == len(self._samples):
            self._settle(Hairpinning.EXTERNAL_SOURCE)

    def _lost(self, obstacle: Obstacle, text: str) -> None:
        self._failed += 1
        if self._failed == len(self._samples):
            self._is_over.set()

    def _settle(self, result: Hairpinning) -> None:
        self.result = result
        self._is_over.set()
