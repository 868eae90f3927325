"""Crowline itself as a program under test: a peer script as `lab/peer_script.py` describes them.

    python -m crowline.lab.crowline_peer server|a|b

Side a opens a room and leaves its code in the shared folder, side b joins with it. Both talk over whatever
path there is, and end when both have a direct one, or `SETTLE` seconds after they met; `MORE` seconds later
where it is not known by then that no plan leads through their translators, however lucky. All of that ends
within the attempt's patience.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path as File

from crowline import CrowlineError, Path, Peer, Stream, host, join
from crowline.lab.outcome import Outcome
from crowline.punch.obstacle import MISSED, NOTHING_YET, STILL_SOUGHT

# Seconds after both are there in which a better path may still be found: four checks of each pair, which
# leave at 0, 0.5, 1.5 and 3.5 s (RFC 8489 §6.2.1).
SETTLE = 4.5
# Seconds for all plans, and after their rest, of 20 s, for the likely ones again: once in sixty times the
# longest one misses.
MORE = 45.0
# Seconds of an attempt's patience that are left for meeting, and for the two to take leave of each other.
_MARGIN = 8.0
_POLL = 0.01  # seconds between looks for the code
_YET = (NOTHING_YET, STILL_SOUGHT, MISSED)
_READY, _DIRECT, _DONE = b"ready\n", b"direct\n", b"done\n"


def main(role: str) -> int:
    """Take that part; print the outcome."""
    if role == "server":
        return 0  # the laboratory runs one
    try:
        outcome = asyncio.run(_attempt(role))
    except CrowlineError as error:
        outcome = Outcome("failed", reason=error.message)
    sys.stdout.write(json.dumps(outcome.to_fields()) + "\n")
    return 0


async def _attempt(role: str) -> Outcome:
    async with _peer(role) as peer:
        is_asker = role == "b"
        stream = await peer.open_stream() if is_asker else await anext(peer.streams())
        await _settle(peer, stream, is_asker, more=min(MORE, max(0.0, _patience() - SETTLE - _MARGIN)))
        return _outcome(peer)


@asynccontextmanager
async def _peer(role: str) -> AsyncIterator[Peer]:
    server, file = os.environ["CROWLINE_LAB_URL"], File(os.environ["CROWLINE_LAB_FOLDER"]) / "code"
    timeout = _patience()
    if role == "a":
        async with host(server, timeout=timeout) as room:
            unfinished = file.with_suffix(".unfinished")
            unfinished.write_text(room.code)
            unfinished.rename(file)
            yield await room.peer()
    else:
        while not file.exists():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(_POLL)
        async with join(file.read_text(), server, timeout=timeout) as peer:
            yield peer


async def _settle(peer: Peer, stream: Stream, is_asker: bool, *, more: float) -> None:
    """Exchange first bytes, then wait until both sides have said that they need no better path.

    `more`: seconds in which plans may still lead somewhere.
    """
    await stream.write(_READY)
    await _expect(stream, _READY)
    is_direct, is_known = asyncio.Event(), asyncio.Event()

    def look(path: Path | None) -> None:
        if path is not None and path.is_direct:
            is_direct.set()
        if path is not None and (path.is_direct or not any(words in path.reason for words in _YET)):
            is_known.set()

    peer.on_path(lambda now, _: look(now))
    look(peer.path)
    for event, limit in ((is_direct, SETTLE), (is_known, more)):
        with suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), limit)
    await stream.write(_DIRECT)
    await _expect(stream, _DIRECT)
    # The side that hears the last word goes first: else the other one would lose its connection for it.
    if is_asker:
        await stream.write(_DONE)
        await _expect(stream, _DONE)
    else:
        await _expect(stream, _DONE)
        await stream.write(_DONE)
        await stream.close()


def _patience() -> float:
    """Seconds for the whole attempt."""
    return float(os.environ["CROWLINE_LAB_TIMEOUT"])


async def _expect(stream: Stream, line: bytes) -> None:
    if await stream.readline() != line:
        raise CrowlineError("The other side ended the conversation early.")


def _outcome(peer: Peer) -> Outcome:
    path = peer.path
    if path is None:
        return Outcome("failed", reason="no path is left")
    return Outcome(path.kind, peer.setup_ms, peer.direct_ms, _technique(path), path.reason)


def _technique(path: Path) -> str:
    """As far as this side can tell; "" where the other side knows more."""
    if not path.is_direct:
        return path.kind
    if path.kind == "lan":
        return "host"
    local = path.local.rpartition(":")[0].strip("[]")
    if ":" in local:
        return "ipv6"
    return "" if local in os.environ["CROWLINE_LAB_ADDRESSES"].split() else "srflx"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
