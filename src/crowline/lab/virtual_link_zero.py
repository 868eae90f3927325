"""Link zero of a virtual peer: sends at once, for the stream below it has no back-pressure."""

from __future__ import annotations

from collections.abc import Callable

from crowline.base.machine import Buffer
from crowline.lab.virtual import Internet
from crowline.lab.virtual_pump import VirtualPump
from crowline.link.events import LinkEvent
from crowline.link.hub import HubLink


class VirtualLinkZero:
    """The hub's link with its pump; the session's carrier."""

    def __init__(
        self,
        internet: Internet,
        link: HubLink,
        send: Callable[[bytes], None],
        on_event: Callable[[LinkEvent], None],
    ) -> None:
        self._internet = internet
        self._link = link
        self._pump: VirtualPump[bytes, LinkEvent] = VirtualPump(internet, link, send, on_event)

    @property
    def unanswered_since(self) -> float | None:
        return self._link.unanswered_since

    def room(self) -> int:
        return self._link.room()

    def send(self, data: Buffer, now: float) -> None:
        self._link.send(data, now)
        self._link.queued = 0
        self._pump.flush()

    def receive(self, data: bytes) -> None:
        self._link.receive(data, None, self._internet.now)
        self._pump.flush()

    def grant(self, limit: int, *, final: bool) -> None:
        self._link.grant(limit, final=final)
        self._pump.flush()
