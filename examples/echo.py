"""Two programs meet by a code and talk over whatever path works: run `host` here and `join CODE` there."""

from __future__ import annotations

import asyncio
import contextlib
import sys

import crowline
from crowline.base.errors import CrowlineError


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
    match sys.argv[1:]:
        case ["host"]:
            end = host()
        case ["join", code]:
            end = join(code)
        case _:
            sys.exit("Usage: echo.py host | echo.py join CODE")
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(end)
    except CrowlineError as error:
        sys.exit(f"{error}\n{error.hint}")
