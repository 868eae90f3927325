"""Whom a connection tells what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from crowline.api.path import Path
from crowline.session.events import SessionEvent


@dataclass(slots=True)
class Observers:
    """Each is called in the event loop: at a change of path with the new and the old one, at a sentence for
    the person, at a stream of the other side, and with what happens to each stream."""

    on_path: list[Callable[[Path | None, Path | None], None]] = field(default_factory=list)
    on_warning: list[Callable[[str], None]] = field(default_factory=list)
    on_stream_opened: Callable[[int], None] = lambda _: None
    streams: dict[int, Callable[[SessionEvent], None]] = field(default_factory=dict)
