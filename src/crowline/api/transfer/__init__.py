"""Files and folders over one stream: offer and send, or choose and receive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from crowline.api.transfer.conversation import ByteStream
from crowline.api.transfer.events import (
    FileFinished,
    FileStarted,
    OfferMade,
    Progress,
    TransferEvent,
    Warning,
)
from crowline.api.transfer.receiving import Receiving
from crowline.api.transfer.sending import Sending
from crowline.api.transfer.terms import Clock, Decide, Decision, OnEvent, Prepared, Summary
from crowline.net.files import SourceTree

__all__ = [
    "ByteStream",
    "Decision",
    "FileFinished",
    "FileStarted",
    "OfferMade",
    "Prepared",
    "Progress",
    "Summary",
    "TransferEvent",
    "Warning",
    "prepare",
    "receive_into",
    "send",
    "send_paths",
]


def _ignore(event: TransferEvent) -> None:
    pass


def prepare(paths: Sequence[str | Path]) -> Prepared:
    """Look at `paths`, and into the folders among them, without reading a file.

    It blocks while it looks: for large trees call it in a thread. Raises `LocalProblem` for what is
    missing, unreadable, neither file nor folder, or too much.
    """
    return Prepared(SourceTree.walk(paths))


async def send_paths(
    stream: ByteStream,
    paths: Sequence[str | Path],
    *,
    on_event: OnEvent = _ignore,
    clock: Clock = time.monotonic,
) -> Summary:
    """`prepare` and `send` in one call."""
    prepared = await asyncio.to_thread(prepare, paths)
    return await send(stream, prepared, on_event=on_event, clock=clock)


async def send(
    stream: ByteStream, prepared: Prepared, *, on_event: OnEvent = _ignore, clock: Clock = time.monotonic
) -> Summary:
    """Offer what was prepared, and send what the other side takes. The stream is ended in any case.

    Raises `Refused`: the other side declined or had to stop; `LocalProblem`: a file could not be sent as
    it was offered (the others were sent); `IntegrityFailed`: a file arrived damaged; `Interrupted`: the
    other side stopped or went away; `ProtocolViolation`. Memory: about 10 MiB beside the manifest (500
    bytes a file) and what `stream` holds.
    """
    return await Sending(stream, prepared, on_event, clock).run()


async def receive_into(
    stream: ByteStream,
    folder: Path | str,
    *,
    decide: Decide,
    on_event: OnEvent = _ignore,
    clock: Clock = time.monotonic,
    begun: bytes = b"",
) -> Summary:
    """Read an offer, ask `decide`, and receive into `folder`. The stream is ended in any case. `begun` is
    what the caller has read of it already.

    Nothing is ever replaced, and nothing is written outside the folder. What is there of an offered file,
    from a transfer that was broken off or as the user's own, is proven chunk by chunk and not sent again;
    what has come when a transfer breaks off stays under private names for the next one.

    Raises `LocalProblem`: the disk is full or a file cannot be written; `IntegrityFailed`: a file did not
    arrive as it was sent (the others are kept); `Refused`: the sender had to stop; `Interrupted`: it was
    stopped or went away; `ProtocolViolation`. Memory: about 8 MiB beside the manifest (500 bytes a file;
    100 MiB for the longest names) and what `stream` holds.
    """
    return await Receiving(stream, Path(folder), decide, on_event, clock, begun).run()
