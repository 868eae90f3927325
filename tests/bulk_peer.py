"""One side of a bulk transfer as a program: sends until its path goes over TCP, or receives.

python bulk_peer.py receive URL          the code, then what came as JSON
python bulk_peer.py send URL CODE        what was sent as JSON
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys

from counted_bulk import receive, say
from crowline import join

PIECES = [random.Random(number).randbytes(64 * 1024) for number in range(17)]
PATIENCE = 60.0  # seconds until bulk must have moved
MORE = 2 << 20  # bytes that follow by the new path


def has_moved(transports: list[str]) -> bool:
    """Whether TCP came after UDP: before it, it is only what was there first."""
    return "udp" in transports and "tcp" in transports[transports.index("udp") :]


async def send(url: str, code: str) -> None:
    digest, transports = hashlib.sha256(), []
    async with join(code, url, port_mapping=False) as peer:
        peer.on_path(lambda now, before: transports.append(now.transport if now is not None else "none"))
        stream = await peer.open_stream()
        left, number = MORE, 0
        end = asyncio.get_running_loop().time() + PATIENCE
        while left > 0 and asyncio.get_running_loop().time() < end:
            piece = PIECES[number % len(PIECES)]
            number += 1
            await stream.write(piece)
            digest.update(piece)
            if has_moved(transports):
                left -= len(piece)
        await stream.close()
        await stream.delivered()
        say(json.dumps({"digest": digest.hexdigest(), "has_moved": has_moved(transports)}))


if __name__ == "__main__":
    asyncio.run(receive(sys.argv[2]) if sys.argv[1] == "receive" else send(*sys.argv[2:4]))
