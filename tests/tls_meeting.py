"""Two tables of TLS links on real TCP connections of the loopback interface."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from crowline.api.tls_links import TlsLinkTable, TlsPairLink
from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.ice.agent import MIN_TA, IceAgent
from crowline.ice.candidate import Candidate, CandidateFactory, CandidateType
from crowline.ice.events import IceEvent, PairNominated, PairValid
from crowline.ice.pair import CandidatePair, ValidPair
from crowline.link.identity import Identity
from crowline.net.pump import Pump
from crowline.net.tcp_framed import FramedStream
from crowline.net.tcp_pairs import TcpHandlers, TcpPairs
from crowline.net.tcp_stream import TcpStream
from crowline.punch.syn_budget import SynBudget
from crowline.session.events import SessionEvent, StreamReadable
from crowline.session.links import LinkTransmit
from crowline.session.session import Session
from crowline.session.windows import LARGEST as WINDOW
from tls_pair import ALICE, BOB, KEY, trust

PATIENCE = 30.0  # seconds for something that must come


@dataclass
class Side:
    """A table with one connection, as its owner, and all that both said."""

    is_client: bool
    own: Identity
    peer: Identity
    stuns: list[tuple[bytes, Address, Address]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    ups: list[TlsPairLink] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    downs: list[str] = field(default_factory=list)
    # Of each connection that is over, whether the other side reset it.
    resets: list[bool] = field(default_factory=list)
    streams: list[FramedStream] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    drained: int = 0
    act_on_stun: Callable[[], None] | None = None
    checking: Checking | None = None
    speaker: Speaker | None = None
    stays_framed: bool = False
    table: TlsLinkTable = field(init=False)

    def __post_init__(self) -> None:
        self.table = TlsLinkTable(
            trust=trust(self.own, self.peer, is_client=self.is_client),
            client_key=KEY,
            entropy=os.urandom,
            numbers=itertools.count(7),
            on_up=self._up,
            on_data=self._data,
            on_down=lambda link, reason: self.downs.append(reason),
            on_drained=self._drained,
        )

    def adopt(self, sock: socket.socket, *, is_accepted: bool = False) -> FramedStream:
        """Frame a connected socket, as the port of this side gives it."""
        stream = TcpStream(
            sock,
            is_accepted=is_accepted,
            on_trusted=lambda stream: None,
            on_ended=lambda stream, was_reset: self._over(was_reset=was_reset),
        )
        framed = FramedStream(
            stream,
            on_packet=self._stun,
            on_ended=self._ended,
            on_drained=self._drained,
            stays_framed=self.stays_framed,
        )
        self.streams.append(framed)
        return framed

    def listen(self) -> TcpPairs:
        """A port of this side, whose connections it takes."""

        def opened(local: Address, remote: Address) -> None:
            stream = pairs.stream(local, remote)
            assert stream is not None
            self.streams.append(stream)
            self.changed.set()

        handlers = TcpHandlers(
            on_packet=lambda packet, source, local: self.stuns.append((packet, source, local)),
            on_opened=opened,
            on_lost=lambda local, remote, reason: self.ended.append(reason),
            on_mapping=lambda event: None,
            on_drained=self._drained,
        )
        pairs = TcpPairs(handlers, SynBudget(10), entropy=os.urandom)
        pairs.bind(Address("127.0.0.1", 0))
        return pairs

    @property
    def stream(self) -> FramedStream:
        return self.streams[0]

    @property
    def raw(self) -> TcpStream:
        """The connection without its frames."""
        return self.stream.stream

    @property
    def pair(self) -> ValidPair:
        """The addresses of the connection, as ICE has them when it is nominated."""
        local = host_candidate(self.stream.local, is_local=True)
        remote = host_candidate(self.stream.remote, is_local=False)
        return ValidPair(local, remote, CandidatePair(local, remote, 1))

    def nominate(self, *, is_controlling: bool) -> None:
        self.table.nominate(self.pair, self.stream, is_controlling=is_controlling)

    def send(self, data: Buffer) -> None:
        self.ups[0].send(data, 0.0)
        self.table.flush()

    def _over(self, *, was_reset: bool) -> None:
        self.resets.append(was_reset)
        self.changed.set()

    def _stun(self, stream: FramedStream, packet: bytes) -> None:
        self.stuns.append((packet, stream.remote, stream.local))
        if self.checking is not None:
            self.checking.receive(packet, stream.remote, stream.local)
        if self.act_on_stun is not None:
            self.act_on_stun()

    def _up(self, link: TlsPairLink) -> None:
        self.ups.append(link)
        if self.speaker is not None:
            self.speaker.attach(link)

    def _data(self, link: TlsPairLink, data: Buffer) -> None:
        if self.speaker is not None:
            self.speaker.session.receive(data, link.number, asyncio.get_running_loop().time())
        else:
            self.data += data

    def _ended(self, stream: FramedStream, reason: str) -> None:
        self.ended.append(reason)
        self.changed.set()

    def _drained(self) -> None:
        self.drained += 1
        self.flush()
        self.changed.set()

    def flush(self) -> None:
        """As a connection does it: hand on what came, then send what there is."""
        self.table.flush()
        if self.speaker is not None:
            self.speaker.pump.flush()
            self.table.flush()


class Checking:
    """One side's ICE agent; the connection is its only way."""

    def __init__(self, side: Side, *, controlling: bool) -> None:
        side.checking = self
        self._side = side
        self.agent = IceAgent(controlling, entropy=os.urandom, ta=MIN_TA)
        self._pump = Pump[Transmit, IceEvent](self.agent, self._send, self._on_event)
        self.candidate = CandidateFactory().host(side.stream.local)
        self.agent.add_local_candidate(self.candidate, self._pump.now)

    def meet(self, other: Checking) -> None:
        """Hear by signalling what the other side is."""
        now = self._pump.now
        self.agent.set_remote(other.agent.ufrag, other.agent.pwd, now)
        self.agent.add_remote_candidate(other.candidate, now)
        self._pump.flush()

    def receive(self, data: bytes, source: Address, local: Address) -> None:
        self.agent.receive(data, source, self._pump.now, local)
        self._pump.flush()

    def close(self) -> None:
        self._pump.close()
        self.agent.close()

    def _send(self, transmit: Transmit) -> None:
        self._side.stream.send(transmit.data)

    def _on_event(self, event: IceEvent) -> None:
        stream = self._side.stream
        if isinstance(event, PairValid):
            stream.trust()
        elif isinstance(event, PairNominated):
            self._side.table.nominate(event.pair, stream, is_controlling=self.agent.controlling)


class Speaker:
    """One side's session, which reads what comes unless it is told not to."""

    def __init__(self, side: Side, *, initiator: bool, window: int = WINDOW) -> None:
        side.speaker = self
        self.session = Session(initiator=initiator, window=window)
        self.received = bytearray()
        self.is_reading = True
        self._side = side
        self.pump = Pump[LinkTransmit, SessionEvent](self.session, self._send, self._on_event)
        for link in side.ups:
            self.attach(link)

    def attach(self, link: TlsPairLink) -> None:
        self.session.attach(link.number, link, 1, self.pump.now)
        self.pump.flush()

    def say(self, contents: bytes) -> int:
        """Send a whole stream; its number."""
        stream = self.session.open_stream()
        self.session.write(stream, contents)
        self.session.finish(stream)
        self._side.flush()
        return stream

    def read(self, stream: int) -> None:
        while len(data := self.session.read(stream, 1 << 20)):
            self.received += data
        self._side.flush()

    def has_all(self, stream: int) -> bool:
        return bool(self.received) and self.session.is_ended(stream)

    def close(self) -> None:
        self.pump.close()

    def _send(self, transmit: LinkTransmit) -> None:
        (link,) = (each for each in self._side.ups if each.number == transmit.link)
        for part in transmit.data:
            link.send(part, self.pump.now)
        self._side.table.flush()

    def _on_event(self, event: SessionEvent) -> None:
        if self.is_reading and isinstance(event, StreamReadable):
            self.read(event.stream)


@dataclass
class Meeting:
    """Two sides on one TCP connection."""

    client: Side
    server: Side

    @property
    def sides(self) -> tuple[Side, Side]:
        return (self.client, self.server)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what both sides do together."""
        changed = self.server.changed = self.client.changed
        async with asyncio.timeout(PATIENCE):
            while not condition():
                changed.clear()
                await changed.wait()

    async def rise(self, *, client_controls: bool = True) -> Meeting:
        """Have both check and nominate, and wait for their links."""
        for side in self.sides:
            side.stream.send(b"check")
        self.client.nominate(is_controlling=client_controls)
        self.server.nominate(is_controlling=not client_controls)
        await self.until(lambda: bool(self.client.ups and self.server.ups))
        return self

    def close(self) -> None:
        for side in self.sides:
            side.table.close()
            for framed in side.streams:
                framed.stream.abort()


def host_candidate(address: Address, *, is_local: bool) -> Candidate:
    base = address if is_local else None
    return Candidate("1", 1, "tcp", 1, address, CandidateType.HOST, base=base)


def socket_pair(buffer: int | None = None) -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection, the dialling one first; `buffer`: bytes that the kernel keeps."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dialled = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    if buffer is not None:
        for sock in (dialled, accepted):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    return dialled, accepted


def strangers(*, server: Identity = BOB, stays_framed: bool = False) -> Meeting:
    """Two sides without a connection."""
    return Meeting(
        Side(is_client=True, own=ALICE, peer=BOB, stays_framed=stays_framed),
        Side(is_client=False, own=server, peer=ALICE, stays_framed=stays_framed),
    )


def meeting(
    *,
    client_dials: bool = True,
    server: Identity = BOB,
    buffer: int | None = None,
    stays_framed: bool = False,
) -> Meeting:
    """Both sides have the connection; nothing has been sent on it."""
    made = strangers(server=server, stays_framed=stays_framed)
    sides = made.sides if client_dials else made.sides[::-1]
    for side, sock, is_accepted in zip(sides, socket_pair(buffer), (False, True), strict=True):
        side.adopt(sock, is_accepted=is_accepted)
    return made
