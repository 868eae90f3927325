"""A `UpnpDevice` on real sockets: HTTP and the search port, on loopback or inside a namespace."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

from crowline.base.addresses import Address
from crowline.lab.upnp_device import UpnpDevice
from crowline.lab.upnp_http import MAX_REQUEST, HttpReply, read_request

GROUP = "239.255.255.250"
_MOST_ENDLESS = 64 * 1024 * 1024  # bytes, after which an endless answer ends all the same


@dataclass(frozen=True, slots=True)
class Served:
    """Where the device is found, and the URL of its description as it tells searchers.

    `sent` counts the bytes of its HTTP answers that were handed to the kernel.
    """

    http: Address
    ssdp: Address
    location: str
    sent: Counter[str] = field(default_factory=Counter)


@asynccontextmanager
async def served(
    device: UpnpDevice, *, ssdp_port: int = 0, hears_group: bool = False
) -> AsyncIterator[Served]:
    """Answer on the device's host, at its HTTP port and at `ssdp_port`; 0 is any that is free.

    With `hears_group`, searches to UPnP's multicast group are heard too, on every interface.
    """
    host = device.http.host
    loop = asyncio.get_running_loop()
    http = _Http(device)
    server = await asyncio.start_server(http.serve, host, device.http.port, limit=MAX_REQUEST)
    bound = server.sockets[0].getsockname()
    device.http = Address(bound[0], bound[1])
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Search(device), sock=_search_socket(Address(host, ssdp_port), hears_group=hears_group)
    )
    name = transport.get_extra_info("sockname")
    try:
        yield Served(device.http, Address(host, name[1]), device.location, http.sent)
    finally:
        transport.close()
        server.close()
        await http.end()


class _Http:
    """The connections of one device."""

    def __init__(self, device: UpnpDevice) -> None:
        self.sent: Counter[str] = Counter()
        self._device = device
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, ValueError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def end(self) -> None:
        """End what is still open."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data, request = b"", None
        while request is None and len(data) < MAX_REQUEST:
            piece = await reader.read(MAX_REQUEST)
            data += piece
            request = read_request(data)
            if not piece:
                break
        if request is None:
            return
        client = writer.get_extra_info("peername")[0]
        reply = self._device.answer(request, client, time.monotonic())
        if reply is None:
            await reader.read()
            return
        await asyncio.sleep(reply.delay)
        await self._write(writer, reply)

    async def _write(self, writer: asyncio.StreamWriter, reply: HttpReply) -> None:
        data = reply.encode()
        while data:
            writer.write(data)
            await writer.drain()
            self.sent["bytes"] += len(data)
            data = reply.body if reply.is_endless and self.sent["bytes"] < _MOST_ENDLESS else b""


class _Search(asyncio.DatagramProtocol):
    def __init__(self, device: UpnpDevice) -> None:
        self._device = device
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        for reply in self._device.search(data):
            if reply.host == self._device.http.host and self._transport is not None:
                self._transport.sendto(reply.data, source)
            else:
                _send_from(reply.host, reply.data, source)


def _send_from(host: str, data: bytes, to: tuple[str, int]) -> None:
    """From another address of this machine, where it has that."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((host, 0))
        other.sendto(data, to)


def _search_socket(address: Address, *, hears_group: bool) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hears_group:
            # A socket that hears a group is bound to no address of its own.
            sock.bind(("", address.port))
            member = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton(address.host))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        else:
            sock.bind((address.host, address.port))
    except BaseException:
        sock.close()
        raise
    return sock
