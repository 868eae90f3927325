"""One side of a bulk transfer as a program: sends until its packets have grown and shrunk again, or receives.

python sized_peer.py receive URL          the code, then what came as JSON
python sized_peer.py send URL CODE        "grown", then what was sent as JSON
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys

from counted_bulk import receive, say
from crowline import Peer, Stream, join
from crowline.link import growth

PIECE = random.Random(1).randbytes(64 * 1024)
PATIENCE = 30.0  # seconds until packets must have changed
LEAST = 1200  # bytes of a packet that every path carries


async def send(url: str, code: str) -> None:
    digest = hashlib.sha256()
    async with join(code, url, port_mapping=False) as peer:
        stream = await peer.open_stream()
        await send_until(peer, stream, digest, is_large=True)
        size = peer.packet_size
        say("grown")
        await send_until(peer, stream, digest, is_large=False)
        await stream.close()
        await stream.delivered()
        say(json.dumps({"digest": digest.hexdigest(), "size": size}))


async def send_until(peer: Peer, stream: Stream, digest: hashlib._Hash, *, is_large: bool) -> None:
    """Bulk until the path has packets of that kind."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while not (peer.packet_size > LEAST if is_large else 0 < peer.packet_size <= LEAST):
        assert loop.time() < end, peer.path
        await stream.write(PIECE)
        digest.update(PIECE)


if __name__ == "__main__":
    growth.FAST = 0.0  # however slow this machine is
    asyncio.run(receive(sys.argv[2]) if sys.argv[1] == "receive" else send(*sys.argv[2:4]))
