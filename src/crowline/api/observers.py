"""Whom a connection tells what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from crowline.api.path import Path
from crowline.session.events import SessionEvent

# Sentences kept for whoever listens first: a room says its first ones before anybody has it in hand.
_MOST_UNHEARD = 8


@dataclass(slots=True)
class Observers:
    """Each is called in the event loop: at a change of path with the new and the old one, at a sentence for
    the person, at a stream of the other side, when that takes new ones again, at a datagram of it, and with
    what happens to each stream."""

    on_path: list[Callable[[Path | None, Path | None], None]] = field(default_factory=list)
    on_warning: list[Callable[[str], None]] = field(default_factory=list)
    on_stream_opened: Callable[[int], None] = lambda _: None
    on_streams_allowed: Callable[[], None] = lambda: None
    on_datagram: Callable[[bytes | memoryview], None] = lambda _: None
    streams: dict[int, Callable[[SessionEvent], None]] = field(default_factory=dict)
    _unheard: list[str] = field(default_factory=list)
    _told: Path | None = None

    def add_warning_listener(self, tell: Callable[[str], None]) -> None:
        """Have `tell` called for each sentence from now on, and for those that nobody has heard yet."""
        self.on_warning.append(tell)
        unheard, self._unheard = self._unheard, []
        for sentence in unheard:
            _call("on_warning", tell, sentence)

    def tell_path(self, now: Path | None, before: Path | None) -> None:
        """Say that the streams take another path; another link of the same one is none."""
        if now is not None and before is not None and now.is_same_way(before):
            self._told = now
        else:
            self._tell_path(now, before)

    def retell_path(self, now: Path | None) -> None:
        """Say the path that was told once more where its reason is another one by now."""
        if now is not None and self._told is not None and now.reason != self._told.reason:
            self._tell_path(now, self._told)

    def tell_warning(self, sentence: str) -> None:
        """Say what a person should know, now or to the first who listens."""
        if not self.on_warning and len(self._unheard) < _MOST_UNHEARD:
            self._unheard.append(sentence)
        for tell in list(self.on_warning):
            _call("on_warning", tell, sentence)

    def _tell_path(self, now: Path | None, before: Path | None) -> None:
        self._told = now
        for tell in list(self.on_path):
            _call("on_path", tell, now, before)


def _call(name: str, tell: Callable[..., None], *arguments: object) -> None:
    """What an application's function raises is its own: the connection goes on."""
    try:
        tell(*arguments)
    except Exception as error:
        context = {"message": f"a function given to {name} failed", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)
