"""Transfers that a later process can go on with: what both sides keep from the first meeting to the end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from crowline.base.secrets import Secret
from crowline.net.transfer_records import RecordSlot, TransferRecord, claim

__all__ = ["Unfinished", "incoming", "outgoing"]


class Unfinished:
    """One transfer as this machine remembers it; use it as a context manager around the transfer.

    `is_known` says that an earlier process left it unfinished. `code`, `url` and `secret` then say how the
    other side is met again: by `ByKey(url, secret)`; the code is what people know it by.
    """

    def __init__(self, slot: RecordSlot) -> None:
        self._slot = slot

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._slot.close()

    @property
    def is_known(self) -> bool:
        return self._slot.record is not None

    @property
    def code(self) -> str:
        return self._slot.record.code if self._slot.record is not None else ""

    @property
    def url(self) -> str:
        return self._slot.record.url if self._slot.record is not None else ""

    @property
    def secret(self) -> Secret:
        return Secret(self._slot.record.secret if self._slot.record is not None else b"")

    @property
    def hosts(self) -> bool:
        """Whether this side hosts when the two meet again."""
        return self._slot.record is not None and self._slot.record.hosts

    def keep(self, code: str, url: str, secret: Secret, *, hosts: bool) -> None:
        """Both sides have met: from now on a later process can go on."""
        self._slot.keep(TransferRecord(code, url, secret.reveal(), hosts))

    def forget(self) -> None:
        """The transfer is complete, or nobody wants it."""
        self._slot.forget()


def outgoing(paths: Sequence[Path], peer: str = "", folder: Path | None = None) -> Unfinished:
    """What was kept when `paths` were sent before, in whatever order they were named, to that known `peer` or
    by a code.

    Each call has another one of the same paths, as for many receivers. `folder`: where it is kept.
    """
    names = sorted({os.fsencode(path.resolve()) for path in paths})
    return Unfinished(claim(b"\0".join([b"send", peer.encode(), *names]), folder))


def incoming(code: str, target: Path, peer: str = "", folder: Path | None = None) -> Unfinished:
    """What was kept when `code`, or what the known `peer` sent, was received into `target` before."""
    name = b"\0".join([b"receive", code.encode(), peer.encode(), os.fsencode(target.resolve())])
    return Unfinished(claim(name, folder))
