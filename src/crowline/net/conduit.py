"""One end of a stream of bytes on this machine: what a program reads and writes, with a half-close."""

from __future__ import annotations

from typing import Protocol

from crowline.base.machine import Buffer

# Bytes of one read: few enough turns of the event loop for bulk, little enough to have in hand.
CHUNK = 256 * 1024


class Conduit(Protocol):
    """Both directions may be used at once, each by one task."""

    async def read(self) -> bytes:
        """What is there, up to `CHUNK` bytes, as soon as there is anything; ``b""`` at the end.

        Raises `OSError` where there was no proper end.
        """

    async def write(self, data: Buffer) -> None:
        """Hand on all of it; waits while the other end does not take it. Raises `OSError`."""

    async def end(self) -> None:
        """Say that nothing more is written; what was written has been handed on when it returns."""

    def abort(self) -> None:
        """Give up both directions in a way that the other end can tell from an end, where there is one."""

    def close(self) -> None:
        """Release what is held; safe at any time, and twice."""
