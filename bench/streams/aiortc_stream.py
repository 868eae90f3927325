"""One data channel of aiortc, both descriptions exchanged by files."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from measure import Meter, content, find, leave, pieces, run, say_where

# What one message of a data channel may hold, and bytes unsent above which the sender waits.
MESSAGE = 64 * 1024 - 1
ROOM = 4 << 20


def described(connection: Any) -> dict[str, str]:
    return {"sdp": connection.localDescription.sdp, "type": connection.localDescription.type}


async def receive(folder: Path, _: list[str]) -> None:
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    meter, done = Meter(), asyncio.Event()
    say_where(folder, "waiting for an offer")
    offer = json.loads(await content(folder / "offer"))

    @connection.on("datachannel")
    def on_channel(channel: Any) -> None:
        @channel.on("message")
        def on_message(message: bytes) -> None:
            if message == b"end":
                meter.tell()
                channel.send(b"k")
                done.set()
            else:
                meter.add(len(message))

    await connection.setRemoteDescription(RTCSessionDescription(**offer))
    await connection.setLocalDescription(await connection.createAnswer())
    leave(folder / "answer", described(connection))
    await done.wait()
    await asyncio.sleep(0.3)
    await connection.close()


async def send(folder: Path, size: int, _: list[str]) -> None:
    await find(folder)
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    channel = connection.createDataChannel("bench")
    opened, answered, drained = asyncio.Event(), asyncio.Event(), asyncio.Event()
    channel.on("open", opened.set)
    channel.on("message", lambda _message: answered.set())
    channel.bufferedAmountLowThreshold = ROOM // 2
    channel.on("bufferedamountlow", drained.set)
    await connection.setLocalDescription(await connection.createOffer())
    leave(folder / "offer", described(connection))
    answer = json.loads(await content(folder / "answer"))
    await connection.setRemoteDescription(RTCSessionDescription(**answer))
    await opened.wait()
    meter = Meter()
    for piece in pieces(size):
        for start in range(0, len(piece), MESSAGE):
            data = bytes(piece[start : start + MESSAGE])
            meter.add(len(data))
            channel.send(data)
            if channel.bufferedAmount > ROOM:
                drained.clear()
                await drained.wait()
    channel.send(b"end")
    await answered.wait()
    meter.tell()
    await connection.close()


if __name__ == "__main__":
    run(receive, send)
