"""The meeting by which the two sides reach each other now, and how the next one is got into."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from crowline.api.meeting_point import Callbacks, MeetingPoint, Place
from crowline.base.errors import CrowlineError
from crowline.net.patience import within
from crowline.rendezvous.code import Code
from crowline.rendezvous.role import Role
from crowline.rendezvous.signals import Signal

if TYPE_CHECKING:
    from crowline.api.traversal.traversal import Traversal

# Seconds before each attempt to meet again, the last one from then on; each is shortened by lot, so that the
# many whose server was away do not come all at once.
DELAYS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0)


class HubLine:
    """One meeting point after the other. What an earlier one still says is not heard.

    `on_next` is called before another one begins, so that the first words can be queued.
    """

    def __init__(
        self,
        place: Place,
        role: Role,
        code: Code | None,
        callbacks: Callbacks,
        *,
        on_next: Callable[[], None],
    ) -> None:
        self.point: MeetingPoint | None = None
        self._place = place
        self._role = role
        self._code = code
        self._callbacks = callbacks
        self._on_next = on_next
        self._traversal: Traversal | None = None
        # How many meeting points there have been.
        self._generation = 0
        self._attempts = 0
        self._seeking: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._hurry = asyncio.Event()

    @property
    def is_seeking(self) -> bool:
        return self._seeking is not None and not self._seeking.done()

    @property
    def is_first(self) -> bool:
        """Whether there has been no other meeting before this one."""
        return self._generation == 0

    async def open(self) -> MeetingPoint:
        """The first one. Raises what `Place.open` raises."""
        self.point = await self._place.open(self._role, self._code, self._audible())
        return self.point

    def start(self, traversal: Traversal) -> None:
        """Begin."""
        assert self.point is not None
        self._traversal = traversal
        self.point.start(traversal)

    def seek(self, place: Place) -> None:
        """Leave the meeting that there is, and get into another one, however long that takes."""
        if self.is_seeking or self._traversal is None:
            return
        self._generation += 1
        if self.point is not None:
            leaving = asyncio.create_task(self.point.close(), name="leave a meeting")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
            self.point = None
        self._hurry.clear()
        self._seeking = asyncio.create_task(self._seek(place), name="seek a meeting")

    def settled(self) -> None:
        """The two have met: the next search begins at once again."""
        self._attempts = 0

    def signal(self, signal: Signal) -> None:
        """Tell the other side; between two meetings nothing is heard, and all is told again in the next."""
        if self.point is not None:
            self.point.signal(signal)

    def vouch(self, host: str) -> None:
        if self.point is not None:
            self.point.vouch(host)

    def verify(self) -> None:
        self._hurry.set()
        if self.point is not None:
            self.point.verify()

    def follow(self, gone: Collection[str]) -> None:
        """This machine's network changed; it no longer has the addresses `gone`."""
        self._hurry.set()
        if self.point is not None:
            self.point.follow(gone)

    def flush_link(self) -> None:
        if self.point is not None:
            self.point.flush_link()

    async def close(self) -> None:
        if self._seeking is not None:
            self._seeking.cancel()
            await asyncio.gather(self._seeking, return_exceptions=True)
        closing = [] if self.point is None else [self.point.close()]
        await asyncio.gather(*closing, *self._leaving, return_exceptions=True)

    async def _seek(self, place: Place) -> None:
        while True:
            delay = DELAYS[min(self._attempts, len(DELAYS) - 1)]
            self._attempts += 1
            await within(delay * random.uniform(0.5, 1.0), self._hurry.wait())
            self._hurry.clear()
            try:
                self.point = await place.open(self._role, None, self._audible())
            except CrowlineError:
                continue
            break
        assert self._traversal is not None
        self._on_next()
        self.point.start(self._traversal)

    def _audible(self) -> Callbacks:
        """The callbacks, for as long as this meeting is the one."""
        generation = self._generation

        def while_current(tell: Callable[..., None]) -> Callable[..., None]:
            def told(*arguments: Any) -> None:
                if generation == self._generation:
                    tell(*arguments)

            return told

        listeners = self._callbacks
        return Callbacks(
            on_event=while_current(listeners.on_event),
            on_link_data=while_current(listeners.on_link_data),
            on_link_down=while_current(listeners.on_link_down),
            on_link_room=while_current(listeners.on_link_room),
            on_broken=while_current(listeners.on_broken),
            on_returned=while_current(listeners.on_returned),
            on_closed=while_current(listeners.on_closed),
            on_warning=while_current(listeners.on_warning),
        )
