"""TCP with peers (RFC 6062) through coturn, on real streams."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from coturn import LOGIN, coturn
from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.net.pump import Pump
from crowline.net.stream import StreamSocket, StreamTarget
from crowline.turn.events import Allocated, PeerConnection, PermissionCreated, TurnEvent
from crowline.turn.framing import StreamFramer
from crowline.turn.tcp_client import Bound, DataEvent, PeerBytes, TcpTurnClient

pytestmark = pytest.mark.peer


class Control:
    """The control connection: events in a queue."""

    def __init__(self, server: Address) -> None:
        name, password = LOGIN
        self.events: asyncio.Queue[TurnEvent] = asyncio.Queue()
        self.client = TcpTurnClient(server, name, Secret(password.encode()), entropy=os.urandom)
        self._framer = StreamFramer()
        self.stream: StreamSocket
        self.pump = Pump[Transmit, TurnEvent](
            self.client, lambda transmit: self.stream.send(transmit.data), self.events.put_nowait
        )

    def receive(self, data: bytes) -> None:
        self._framer.feed(data)
        while (message := self._framer.next_message()) is not None:
            self.client.receive(message, self.client.server, self.pump.now)
        self.pump.flush()


async def taken_up(control: Control, connection: int) -> tuple[StreamSocket, asyncio.Queue[DataEvent]]:
    """A data connection that is bound."""
    events: asyncio.Queue[DataEvent] = asyncio.Queue()
    machine = control.client.data_connection(connection)

    def received(data: bytes) -> None:
        machine.receive(data, machine.server, pump.now)
        pump.flush()

    target = StreamTarget(machine.server.host, machine.server.port)
    stream = await StreamSocket.connect(target, received, lambda reason: None)
    pump = Pump[Transmit, DataEvent](machine, lambda transmit: stream.send(transmit.data), events.put_nowait)
    machine.bind(pump.now)
    pump.flush()
    assert await events.get() == Bound()
    return stream, events


async def test_coturn_connects_us_with_a_peer_by_tcp(tmp_path: Path) -> None:
    """We dial a peer through the relay: a megabyte there and back, byte for byte."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    peers = await asyncio.start_server(echo, "127.0.0.1", 0)
    peer = Address("127.0.0.1", peers.sockets[0].getsockname()[1])
    async with coturn(tmp_path) as (port, _), asyncio.timeout(30):
        control = Control(Address("127.0.0.1", port))
        control.stream = await StreamSocket.connect(
            StreamTarget("127.0.0.1", port), control.receive, lambda reason: None
        )
        control.client.create_permission([peer], control.pump.now)
        control.client.allocate(control.pump.now)
        control.pump.flush()
        assert isinstance(await control.events.get(), Allocated)
        assert isinstance(await control.events.get(), PermissionCreated)
        control.client.connect(peer, control.pump.now)
        control.pump.flush()
        event = await control.events.get()
        assert isinstance(event, PeerConnection) and event.peer == peer
        stream, events = await taken_up(control, event.connection)
        sent, got = os.urandom(1 << 20), bytearray()
        stream.send(sent)
        while len(got) < len(sent):
            piece = await events.get()
            assert isinstance(piece, PeerBytes)
            got += piece.data
        assert bytes(got) == sent
        control.pump.close()
        for each in (stream, control.stream):
            each.close()
        await asyncio.sleep(0.05)
    peers.close()
    await peers.wait_closed()
