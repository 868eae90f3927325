"""One stream of `Peer.open_stream`, with all layers; the server's URL stands in CROWLINE_SERVER.

Payload counts from the first direct path on, or with ``relay`` as the last argument from the first relayed
one, so that what goes by the server while a path is sought is not measured. With ``quic`` as the last
argument bulk stays on its QUIC link, however near the other side is.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from measure import PIECE, Meter, find, pieces, run, say_where

import crowline
from crowline.session import bulk_route


async def on_path(peer: crowline.Peer, kinds: tuple[str, ...]) -> None:
    """Wait until the peer is reached so."""
    there = asyncio.Event()
    peer.on_path(lambda now, _: there.set() if now is not None and now.kind in kinds else None)
    if peer.path is None or peer.path.kind not in kinds:
        await there.wait()


def wanted(rest: list[str]) -> tuple[bool, tuple[str, ...]]:
    if rest[-1:] == ["quic"]:
        bulk_route.NEAR = 0.0
    relayed = rest[-1:] == ["relay"]
    return relayed, ("relay",) if relayed else ("direct", "lan")


async def receive(folder: Path, rest: list[str]) -> None:
    relayed, kinds = wanted(rest)
    async with crowline.host(relay_only=relayed, port_mapping=False) as room:
        say_where(folder, room.code)
        peer = await room.peer()
        await on_path(peer, kinds)
        stream, meter = await peer.accept_stream(), Meter()
        while data := await stream.read(PIECE):
            meter.add(len(data))
        meter.tell()
        await stream.write(b"k")
        await stream.close()
        with contextlib.suppress(crowline.CrowlineError):
            await peer.accept_stream()


async def send(folder: Path, size: int, rest: list[str]) -> None:
    relayed, kinds = wanted(rest)
    async with crowline.join(await find(folder), relay_only=relayed, port_mapping=False) as peer:
        await on_path(peer, kinds)
        stream, meter = await peer.open_stream(), Meter()
        for piece in pieces(size):
            meter.add(len(piece))
            await stream.write(piece)
        await stream.close()
        path = peer.path
        await stream.readexactly(1)
        meter.tell(path=f"{path.kind} {path.transport}" if path else "")


if __name__ == "__main__":
    run(receive, send)
