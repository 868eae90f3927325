"""Which plans led across between which networks: read once, and written in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from crowline.net.plan_store import PlanStore
from crowline.punch.plan_memory import PlanMemory


class PlanNotes:
    """The notes of one meeting, between two networks that are named when both are known."""

    def __init__(self, store: PlanStore | None = None) -> None:
        self._store = store or PlanStore()
        self._memory: PlanMemory | None = None
        self._key = ""
        self._writing: asyncio.Future[None] | None = None

    async def read(self) -> None:
        """Look at what was kept, if that was not done."""
        if self._memory is None:
            self._memory = PlanMemory.load(await asyncio.to_thread(self._store.load))

    def between(self, own_host: str, peer_host: str) -> Mapping[str, int]:
        """The scores of plans between the networks of two outside addresses, as far as they have been read;
        what is noted from now on is about these.
        """
        if self._memory is None:
            return {}
        self._key = self._store.key(own_host, peer_host)
        return self._memory.scores(self._key)

    def tried(self, plan: str) -> None:
        """A plan began."""
        if self._memory is not None and self._key:
            self._memory.tried(self._key, plan)
            self._write()

    def worked(self, plan: str) -> None:
        """It led across."""
        if self._memory is not None and self._key:
            self._memory.worked(self._key, plan)
            self._write()

    def _write(self) -> None:
        """One after the other: what is noted while one is written is in the next."""
        if self._memory is None or (self._writing is not None and not self._writing.done()):
            return
        data = self._memory.dump()
        self._writing = asyncio.get_running_loop().run_in_executor(None, self._store.save, data)
        self._writing.add_done_callback(lambda _: self._rewrite(data))

    def _rewrite(self, written: bytes) -> None:
        if self._memory is not None and self._memory.dump() != written:
            self._write()
