"""One TLS link on a TCP connection of the loopback interface, without ICE.

With ``link`` as the last argument the link and its driver alone, with ``session`` one stream of a session on
it, read and written as by an application.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
from hashlib import sha256
from pathlib import Path
from typing import cast

from measure import PIECE, Meter, content, find, leave, pieces, run, say_where

from crowline.api.connection import Connection
from crowline.api.observers import Observers
from crowline.api.stream import Stream
from crowline.api.tls_links import TlsLinkTable, TlsPairLink
from crowline.base.heap import keep_freed
from crowline.base.machine import Buffer
from crowline.base.secrets import Secret
from crowline.ice.candidate import Candidate, CandidateType
from crowline.ice.pair import CandidatePair, ValidPair
from crowline.link.identity import Identity
from crowline.link.tls_trust import TlsTrust
from crowline.net.own_certificate import load
from crowline.net.pump import Pump
from crowline.net.tcp_framed import FramedStream
from crowline.net.tcp_stream import TcpStream
from crowline.session.events import SessionEvent, StreamOpened
from crowline.session.links import LinkTransmit
from crowline.session.session import Session

KEY = Secret(bytes(32))


class BareLink:
    """A link and its driver."""

    def __init__(self, sock: socket.socket, trust: TlsTrust) -> None:
        self._is_client = trust.is_client
        self._link: TlsPairLink | None = None
        self._changed = asyncio.Event()
        self._came = 0
        self._table = TlsLinkTable(
            trust=trust,
            client_key=KEY,
            entropy=os.urandom,
            numbers=itertools.count(1),
            on_up=self.up,
            on_data=self.take,
            on_down=lambda link, reason: None,
            on_drained=self.flush,
        )
        self._stream = FramedStream(
            TcpStream(sock, is_accepted=False, on_trusted=lambda stream: None, on_ended=lambda *_: None),
            on_packet=lambda stream, packet: None,
            on_ended=lambda stream, reason: None,
            on_drained=self.flush,
        )
        near, far = (
            Candidate("1", 1, "tcp", 1, address, CandidateType.HOST)
            for address in (self._stream.local, self._stream.remote)
        )
        self._stream.send(b"check")
        pair = ValidPair(near, far, CandidatePair(near, far))
        self._table.nominate(pair, self._stream, is_controlling=trust.is_client)

    async def read(self) -> int:
        """Bytes that have come, as soon as there are any."""
        while not self._came:
            await self._change()
        came, self._came = self._came, 0
        return came

    async def write(self, data: Buffer) -> None:
        while self._link is None or self._link.room() < len(data):
            await self._change()
        self._link.send(data, asyncio.get_running_loop().time())
        self._table.flush()

    def close(self) -> None:
        self._table.close()

    def up(self, link: TlsPairLink) -> None:
        self._link = link

    def take(self, link: TlsPairLink, data: Buffer) -> None:
        self._came += len(data)

    def flush(self) -> None:
        self._table.flush()
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class SessionOnLink(BareLink):
    """A session with one stream on it. It stands in for the connection that the stream belongs to."""

    def __init__(self, sock: socket.socket, trust: TlsTrust) -> None:
        loop = asyncio.get_running_loop()
        self.session = Session(initiator=trust.is_client)
        self.observers, self.ended = Observers(), loop.create_future()
        self._pump = Pump[LinkTransmit, SessionEvent](self.session, self._send, self._on_event, self.flush)
        self._number: asyncio.Future[int] = loop.create_future()
        self._of_session: Stream | None = None
        super().__init__(sock, trust)

    async def stream(self) -> Stream:
        if self._of_session is None:
            number = await self._number
            self._of_session = Stream(cast("Connection", self), number, lambda number: None)
        return self._of_session

    async def read(self) -> int:
        return len(await (await self.stream()).read(PIECE))

    async def write(self, data: Buffer) -> None:
        await (await self.stream()).write(data)

    def close(self) -> None:
        self._pump.close()
        super().close()

    def up(self, link: TlsPairLink) -> None:
        super().up(link)
        self.session.attach(link.number, link, 1, self._pump.now)
        if self._is_client:
            self._number.set_result(self.session.open_stream())

    def take(self, link: TlsPairLink, data: Buffer) -> None:
        self.session.receive(data, link.number, self._pump.now)

    def flush(self) -> None:
        super().flush()
        self._pump.flush()
        super().flush()

    def _send(self, transmit: LinkTransmit) -> None:
        assert self._link is not None
        for part in transmit.data:
            self._link.send(part, self._pump.now)

    def _on_event(self, event: SessionEvent) -> None:
        if isinstance(event, StreamOpened):
            self._number.set_result(event.stream)
        elif (stream := getattr(event, "stream", None)) in self.observers.streams:
            self.observers.streams[stream](event)


def trust(own: Identity, certificate: bytes, *, is_client: bool) -> TlsTrust:
    fingerprint = sha256(certificate).digest()
    return TlsTrust(
        is_client=is_client, identity=own, certificate=certificate, fingerprint=fingerprint, load=load
    )


def link_on(sock: socket.socket, trusted: TlsTrust, rest: list[str]) -> BareLink:
    sock.setblocking(False)
    keep_freed()  # as every process that has UDP sockets does
    return (SessionOnLink if rest[-1] == "session" else BareLink)(sock, trusted)


async def receive(folder: Path, rest: list[str]) -> None:
    own = Identity.generate()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        say_where(folder, [listener.getsockname()[1], own.certificate_der.hex()])
        size, certificate = json.loads(await content(folder / "sender"))
        sock, _ = listener.accept()
    link, meter = link_on(sock, trust(own, bytes.fromhex(certificate), is_client=False), rest), Meter()
    while meter.bytes < size:
        meter.add(await link.read())
    meter.tell()
    await link.write(b"k")
    link.close()


async def send(folder: Path, size: int, rest: list[str]) -> None:
    port, certificate = await find(folder)
    own = Identity.generate()
    sock = socket.create_connection(("127.0.0.1", port))
    leave(folder / "sender", [size, own.certificate_der.hex()])
    link, meter = link_on(sock, trust(own, bytes.fromhex(certificate), is_client=True), rest), Meter()
    for piece in pieces(size):
        meter.add(len(piece))
        await link.write(piece)
    await link.read()
    meter.tell()
    link.close()


if __name__ == "__main__":
    run(receive, send)
