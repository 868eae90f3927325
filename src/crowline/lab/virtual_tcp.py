"""TCP in a virtual internet: listening, connecting, simultaneous open, refusal, and messages in order.

The handshake goes by segments of its own through every translator (RFC 9293 §3.5, RFC 5382); so do the
messages, which are repeated when one is lost. Windows, byte numbers and congestion are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.lab.behaviour import TCP
from crowline.lab.clock import Timer
from crowline.lab.network import Host, Packet
from crowline.lab.segment import HEADERS, Flag, Segment

if TYPE_CHECKING:
    from crowline.lab.virtual import Internet

# Seconds after the first SYN at which Linux (6.5 and later) repeats it, and when it is given up here.
SYN_REPEATS = (1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 11.0)
SYN_LIMIT = 19.0
FIRST_REPEAT = 0.2  # seconds until a lost message is sent again, doubled each time: Linux's least RTO
MESSAGE_TRIES = 10
SEGMENT_SIZE = 1220  # bytes of messages that travel together: what IPv6's least MTU leaves
EPHEMERAL = (32768, 60999)  # Linux's range of ports for connections that name none


class State(Enum):
    """RFC 9293 §3.3.2, as far as a handshake goes."""

    SYN_SENT = "syn-sent"
    SYN_RECEIVED = "syn-received"
    ESTABLISHED = "established"
    CLOSED = "closed"


class Stream(Protocol):
    """What a connection tells its owner."""

    def on_open(self) -> None: ...

    def on_message(self, data: bytes) -> None: ...

    def on_closed(self, reason: str) -> None:
        """Said once: ``closed``, ``refused``, ``unreachable``, ``time exceeded`` or ``timed out``."""


class Connection:
    """One end of a connection; `send` keeps messages apart and in order."""

    def __init__(self, tcp: TcpHost, local: Address, remote: Address, hops: int | None) -> None:
        self.local = local
        self.remote = remote
        self.state = State.SYN_SENT
        self.stream: Stream | None = None
        self._tcp = tcp
        self._hops = hops
        self._timer: Timer | None = None
        self._syns = 0
        self._sent = 0
        self._received = 0
        self._early: dict[int, Segment] = {}
        self._waiting: list[bytes] = []

    def send(self, data: bytes) -> None:
        """Send a message, at once or as soon as the connection stands."""
        if self.state is State.ESTABLISHED and not self._waiting:
            # What is sent at one time travels together.
            self._tcp.internet.post(self._tcp.internet.now, self._flush)
        if self.state is not State.CLOSED:
            self._waiting.append(data)

    def close(self) -> None:
        """End the connection; the other end is told after the messages before."""
        if self.state is State.ESTABLISHED:
            self._flush()
            self._sent += 1
            self._repeat(Segment(Flag.FIN, self._sent), 0)
        self._forget()

    def begin(self) -> None:
        """Send the first SYN, and repeat it until something is answered."""
        started = self._tcp.internet.now
        self._emit(Segment(Flag.SYN))
        self._plan_syn(started)

    def restore_hops(self) -> None:
        """Let what is sent from now on, a repeated SYN too, have the ordinary time to live."""
        self._hops = None

    def receive(self, segment: Segment) -> None:
        flag = segment.flag
        if flag is Flag.SYN:
            self._on_syn()
        elif flag in (Flag.SYN_ACK, Flag.ACK):
            self._on_ack(flag)
        elif flag in (Flag.DATA, Flag.FIN):
            self._on_data(segment)
        elif flag is Flag.RST:
            self._end("refused" if self.state is not State.ESTABLISHED else "reset")
        elif self.state is State.SYN_SENT:
            # Hard errors end a connection that is being opened, and no other (RFC 1122 §4.2.3.9).
            self._end("unreachable" if flag is Flag.UNREACHABLE else "time exceeded")

    def accept(self) -> None:
        """Be the end of a listener that got a SYN: `receive` it next, which answers it."""
        self.state = State.SYN_RECEIVED
        self._plan_syn(self._tcp.internet.now)

    def _on_syn(self) -> None:
        """Simultaneous open, or the SYN-ACK was lost: both want it (again)."""
        if self.state is State.SYN_SENT:
            self.state = State.SYN_RECEIVED
        if self.state is State.SYN_RECEIVED:
            self._emit(Segment(Flag.SYN_ACK))
        else:
            self._emit(Segment(Flag.ACK))

    def _on_ack(self, flag: Flag) -> None:
        if flag is Flag.SYN_ACK:
            self._emit(Segment(Flag.ACK))
        if self.state is State.SYN_RECEIVED or (self.state is State.SYN_SENT and flag is Flag.SYN_ACK):
            self._establish()

    def _establish(self) -> None:
        self.state = State.ESTABLISHED
        self._hops = None
        self._stop_timer()
        if self.stream is not None:
            self.stream.on_open()
        self._flush()

    def _flush(self) -> None:
        while self._waiting and self.state is State.ESTABLISHED:
            self._sent += 1
            self._repeat(Segment(Flag.DATA, self._sent, self._take_some()), 0)

    def _take_some(self) -> tuple[bytes, ...]:
        """The messages that one segment holds, at least one."""
        size = count = 0
        for message in self._waiting:
            size += len(message)
            if count and size > SEGMENT_SIZE:
                break
            count += 1
        taken, self._waiting = tuple(self._waiting[:count]), self._waiting[count:]
        return taken

    def _on_data(self, segment: Segment) -> None:
        if self.state is State.SYN_RECEIVED:
            # The ACK was lost; what follows it says the same.
            self._establish()
        if self.state is not State.ESTABLISHED or segment.number <= self._received:
            return
        self._early[segment.number] = segment
        while (ready := self._early.pop(self._received + 1, None)) is not None:
            self._received += 1
            if ready.flag is Flag.FIN:
                self._end("closed")
                return
            for message in ready.messages:
                if self.stream is not None:
                    self.stream.on_message(message)

    def _plan_syn(self, started: float) -> None:
        times = (*SYN_REPEATS, SYN_LIMIT)
        at = started + times[self._syns]
        self._timer = self._tcp.internet.call_at(at, self._repeat_syn, started)

    def _repeat_syn(self, started: float) -> None:
        self._timer = None
        if self._syns == len(SYN_REPEATS):
            self._end("timed out")
            return
        self._syns += 1
        self._emit(Segment(Flag.SYN if self.state is State.SYN_SENT else Flag.SYN_ACK))
        self._plan_syn(started)

    def _repeat(self, segment: Segment, tries: int) -> None:
        """Send a message; when the internet says that it got lost, once more after a while."""
        internet = self._tcp.internet

        def lost() -> None:
            if tries + 1 >= MESSAGE_TRIES:
                self._end("timed out")
                return
            internet.post(internet.now + FIRST_REPEAT * 2**tries, self._repeat, segment, tries + 1)

        self._emit(segment, lost)

    def _emit(self, segment: Segment, on_lost: Callable[[], None] | None = None) -> None:
        packet = Packet(TCP, self.local, self.remote, segment, segment.size, self._hops, on_lost)
        self._tcp.internet.launch(self._tcp.host, packet)

    def _end(self, reason: str) -> None:
        if self.state is not State.CLOSED:
            self._forget()
            if self.stream is not None:
                self.stream.on_closed(reason)

    def _forget(self) -> None:
        self.state = State.CLOSED
        self._stop_timer()
        self._tcp.forget(self)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class TcpHost:
    """The TCP of one host. What is sent to a port where nobody listens is answered with RST."""

    def __init__(self, internet: Internet, host: Host) -> None:
        self.internet = internet
        self.host = host
        self._listeners: dict[Address, Callable[[Connection], None]] = {}
        self._connections: dict[tuple[Address, Address], Connection] = {}
        host.tcp = self._receive

    def listen(self, local: Address, on_connection: Callable[[Connection], None]) -> None:
        """`on_connection` gets each new connection, whose `stream` it sets, before it stands."""
        if local.host not in self.host.networks or local in self._listeners:
            raise UsageError(f"{self.host.name} cannot listen there")
        self._listeners[local] = on_connection

    def unlisten(self, local: Address) -> None:
        """What comes there from now on is refused; connections stay."""
        del self._listeners[local]

    def connect(
        self, remote: Address, local: Address, stream: Stream, *, hops: int | None = None
    ) -> Connection:
        """Open a connection. `local` with port 0: any port. `hops` is the time to live until it stands.

        Raises `UsageError` for a pair of addresses that is in use (EADDRNOTAVAIL).
        """
        if local.port == 0:
            low, high = EPHEMERAL
            local = Address(local.host, self.internet.random.randint(low, high))
        if (local, remote) in self._connections or local.host not in self.host.networks:
            raise UsageError(f"{self.host.name} cannot connect from there")
        connection = self._connections[local, remote] = Connection(self, local, remote, hops)
        connection.stream = stream
        connection.begin()
        return connection

    def forget(self, connection: Connection) -> None:
        """The connection is over; its addresses are free."""
        self._connections.pop((connection.local, connection.remote), None)

    def _receive(self, packet: Packet) -> None:
        segment: Segment = packet.data
        connection = self._connections.get((packet.destination, packet.source))
        if connection is None and segment.flag is Flag.SYN:
            connection = self._accept(packet)
        if connection is not None:
            connection.receive(segment)
        elif segment.flag in (Flag.SYN, Flag.SYN_ACK, Flag.DATA):
            refusal = Packet(TCP, packet.destination, packet.source, Segment(Flag.RST), HEADERS)
            self.internet.launch(self.host, refusal)

    def _accept(self, packet: Packet) -> Connection | None:
        on_connection = self._listeners.get(packet.destination)
        if on_connection is None:
            return None
        connection = Connection(self, packet.destination, packet.source, None)
        self._connections[packet.destination, packet.source] = connection
        connection.accept()
        on_connection(connection)
        return connection
