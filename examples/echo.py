"""Two programs meet by a code and talk over whatever path works: run `host` here and `join CODE` there."""

from __future__ import annotations

import asyncio
import sys

import crowline


async def host() -> None:
    async with crowline.host() as room:
        print(f"code {room.code}", flush=True)
        peer = await room.peer()
        peer.on_path(lambda now, before: print(f"path {now}", flush=True))
        async for stream in peer.streams():
            while line := await stream.readline():
                await stream.write(line.upper())
            await stream.close()


async def join(code: str) -> None:
    async with crowline.join(code) as peer:
        stream = await peer.open_stream()
        for word in ("as", "the", "crow", "flies"):
            await stream.write(f"{word}\n".encode())
            print((await stream.readline()).decode().strip(), flush=True)
        await stream.close()
        print(f"by {peer.path}; all paths: {[path.kind for path in peer.paths()]}", flush=True)


if __name__ == "__main__":
    asyncio.run(join(sys.argv[2]) if sys.argv[1:2] == ["join"] else host())
