"""One side of a meeting through the product: what `bench/ice.py` measures of it in the laboratory.

Arguments: `host` or `join`, and the kind of path to wait for. The host prints its code, the joining side
reads it from standard input. Both print a JSON object with milliseconds since the hub's word that both are
there: to the first byte that could be sent (`first`), to the first path of each kind. They stay until
standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import AbstractAsyncContextManager

from crowline.api.path import Path
from crowline.api.room import Room, enter, host

PATIENCE = 20.0  # seconds for a path of the wanted kind


async def meet(role: str, wanted: str) -> None:
    loop = asyncio.get_running_loop()
    server = os.environ["CROWLINE_LAB_URL"]
    times: dict[str, float] = {}
    found = asyncio.Event()

    def on_path(now: Path | None, _: Path | None) -> None:
        if now is not None:
            times.setdefault("first", loop.time())
            times.setdefault(now.kind, loop.time())
            if now.kind == wanted:
                found.set()

    opened: AbstractAsyncContextManager[Room]
    opened = host(server) if role == "host" else enter(sys.stdin.readline().strip(), server)
    async with opened as room:
        room.on_path(on_path)
        if role == "host":
            print(room.code, flush=True)
        peer = await room.peer()
        async with asyncio.timeout(PATIENCE):
            await found.wait()
        assert peer.setup_ms is not None
        start = times["first"] - peer.setup_ms / 1000
        print(json.dumps({kind: (at - start) * 1000 for kind, at in times.items()}), flush=True)
        await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(meet(*sys.argv[1:]))
