"""The receiving side of bulk as a program: says the code, then what came as JSON."""

from __future__ import annotations

import hashlib
import json
import sys

from crowline import host


def say(line: str) -> None:
    """To whoever started the program."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def receive(url: str) -> None:
    """One stream to its end."""
    digest = hashlib.sha256()
    async with host(url, port_mapping=False) as room:
        say(room.code)
        peer = await room.peer()
        stream = await anext(peer.streams())
        while data := await stream.read():
            digest.update(data)
        say(json.dumps({"digest": digest.hexdigest()}))
        await stream.close()
        await stream.delivered()
