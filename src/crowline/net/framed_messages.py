"""Whole messages over one TCP connection: what a WebSocket carries, without HTTP in front of it.

Each message: `kind u8 (0 text, 1 bytes) | length u32 | data`. For two programs of one network that have found
each other; what is in the messages is sealed by others.
"""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections.abc import AsyncIterator
from contextlib import suppress

from crowline.base.addresses import Address
from crowline.base.errors import ServerUnreachable
from crowline.net.patience import within

MAX_MESSAGE = 80 * 1024
MAX_QUEUED = 2 * 1024 * 1024
"""Bytes that wait for a side that does not read; all that a meeting keeps for one has half of that."""

# Seconds to connect to a neighbour, and for the last messages to leave.
OPEN_LIMIT = 5.0
CLOSE_LIMIT = 1.0

_HEAD = struct.Struct("!BI")
_TEXT, _BYTES = 0, 1


class FramedMessages:
    """One connection. Text is signalling, bytes are link zero."""

    server_host = ""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Raises `ServerUnreachable` for a connection that was reset before anybody looked at it."""
        self._reader = reader
        self._writer = writer
        if (name := writer.get_extra_info("peername")) is None:
            writer.close()
            raise ServerUnreachable("The other side hung up at once.")
        host, port = name[:2]
        self.remote = Address(str(host), port)
        self.local_host = str(writer.get_extra_info("sockname")[0])
        self.url = f"lan://{self.remote}"
        self.is_loopback = ipaddress.ip_address(self.remote.host).is_loopback

    @classmethod
    async def connect(cls, address: Address) -> FramedMessages:
        """Raises `ServerUnreachable`."""
        try:
            async with asyncio.timeout(OPEN_LIMIT):
                return cls(*await asyncio.open_connection(address.host, address.port))
        except (OSError, TimeoutError) as error:
            raise ServerUnreachable(
                "The other side was found in this network and does not answer."
            ) from error

    @property
    def queued(self) -> int:
        """Bytes that have not been handed to the kernel yet."""
        return self._writer.transport.get_write_buffer_size()

    def send(self, message: str | bytes) -> None:
        """Queue a message. Whoever lets too much wait is cut off."""
        data = message.encode() if isinstance(message, str) else message
        if self.queued > MAX_QUEUED:
            self._writer.transport.abort()
        if not self._writer.transport.is_closing():
            self._writer.write(_HEAD.pack(_TEXT if isinstance(message, str) else _BYTES, len(data)) + data)

    async def messages(self) -> AsyncIterator[str | bytes]:
        """Every message until the connection ends, or brings what is none."""
        with suppress(OSError, asyncio.IncompleteReadError, UnicodeDecodeError):
            while True:
                kind, length = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
                if length > MAX_MESSAGE or kind not in (_TEXT, _BYTES):
                    return
                data = await self._reader.readexactly(length)
                yield data.decode() if kind == _TEXT else data

    def abort(self) -> None:
        """Cut it, once what was said last has left, or a second has passed."""
        self._writer.close()
        asyncio.get_running_loop().call_later(CLOSE_LIMIT, self._writer.transport.abort)

    async def close(self) -> None:
        with suppress(OSError):
            await within(CLOSE_LIMIT, self._writer.drain())
        self._writer.close()
        with suppress(OSError):
            await within(CLOSE_LIMIT, self._writer.wait_closed())
        self._writer.transport.abort()
