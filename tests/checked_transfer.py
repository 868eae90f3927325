"""The receiving end of a transfer whose sender compares the checksum: a program for a host of its own."""

from __future__ import annotations

RECEIVER = """
import asyncio, hashlib, sys
import crowline

async def main(server, code):
    async with crowline.join(code, server) as peer:
        async for stream in peer.streams():
            checksum, size = hashlib.sha256(), 0
            while part := await stream.read():
                checksum.update(part)
                size += len(part)
            await stream.write(f"{size} {checksum.hexdigest()}".encode())
            await stream.close()
            await stream.delivered()
            break

asyncio.run(main(*sys.argv[1:]))
"""
