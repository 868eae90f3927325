"""What the callers of a file transfer give and get."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from msgspec import Struct

from crowline.api.transfer.events import OfferMade, TransferEvent
from crowline.net.files import SourceTree
from crowline.transfer.manifest import Manifest

OnEvent = Callable[[TransferEvent], None]
Clock = Callable[[], float]


class Decision(Struct, frozen=True):
    """An answer to an offer.

    With `accept`, everything is taken but the files whose indices are in `skip`, into `folder` if it is
    given. Top-level names that a shell or desktop obeys unasked (``.bashrc``, ``.ssh``, ``autorun.inf``)
    are taken with `take_unasked` only. With `merge`, new files go into folders of the same names that are
    there already; else what arrives is never mixed with what was there. Without `accept`, the sender hears
    `reason`.
    """

    accept: bool
    folder: Path | None = None
    reason: str = ""
    skip: frozenset[int] = frozenset()
    take_unasked: bool = False
    merge: bool = False


class Summary(Struct, frozen=True):
    """How a transfer ended. `saved` are the receiver's top-level names as they are on its disk; `seconds`
    count from the acceptance. A receiver that declined has `declined`. `skipped` of the files and `kept` of
    the bytes were there already."""

    files: int
    bytes: int
    seconds: float
    saved: tuple[str, ...] = ()
    declined: bool = False
    skipped: int = 0
    kept: int = 0

    @property
    def moved(self) -> int:
        """Bytes that had to come."""
        return self.bytes - self.kept


class Prepared(Struct, frozen=True):
    """What is ready to be offered; no file has been read yet."""

    tree: SourceTree

    @property
    def manifest(self) -> Manifest:
        return self.tree.manifest

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about what is kept out or offered under another name."""
        return self.tree.warnings


Decide = Callable[[OfferMade], Awaitable[Decision]]
