"""TCP for an ICE agent, in the shape of a UDP socket: packets by their pair of addresses (RFC 6544)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from msgspec import Struct

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Transmit
from crowline.net.tcp_dialler import DiallerHandlers, TcpDialler
from crowline.net.tcp_framed import FramedStream, StreamKey
from crowline.net.tcp_mapping import MappingEvent
from crowline.net.tcp_stream import TcpStream
from crowline.punch.syn_budget import SynBudget

# Connections at once. ICE keeps few: one a pair of addresses, and most pairs are not TCP.
MAX_CONNECTIONS = 64


class TcpHandlers(Struct, frozen=True):
    """Whom `TcpPairs` tells what; a pair is given by its base and the other side's address.

    - `on_packet(data, source, local)`: what `receive` of an agent takes, with `Transport.TCP`.
    - `on_opened(local, remote)`: packets can be sent on this pair from now on, whoever dialled.
    - `on_lost(local, remote, reason)`: its connection has ended, or none came about. A simultaneous open may
      bring another one a moment later.
    - `on_mapping`: what a STUN server says of a port: `Mapped`, `MappingLost`.
    - `on_drained()`: all that one read brought was handed on, or all that waited has left.
    """

    on_packet: Callable[[bytes, Address, Address], None]
    on_opened: Callable[[Address, Address], None]
    on_lost: Callable[[Address, Address, str], None]
    on_mapping: Callable[[MappingEvent], None]
    on_drained: Callable[[], None]


class TcpPairs:
    """All TCP ports of one agent, and all connections by them, framed.

    Nothing is believed of a connection until the agent has authenticated a check or an answer on it: say
    `authenticated`, or it is reset. `budget` bounds the SYNs to the other side's addresses. `round_trip` is a
    guess in seconds for the way there. A nominated connection is its link's: nothing here ends it. With
    `stays_framed` there are no links: data is framed too, as agents of other makes expect.
    """

    def __init__(
        self,
        handlers: TcpHandlers,
        budget: SynBudget,
        *,
        entropy: Callable[[int], bytes],
        round_trip: float = 0.0,
        stays_framed: bool = False,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._handlers = handlers
        self._budget = budget
        self._entropy = entropy
        self._round_trip = round_trip
        self._stays_framed = stays_framed
        self._diallers: dict[Address, TcpDialler] = {}
        self._streams: dict[StreamKey, FramedStream] = {}
        self._closed = False

    @property
    def bases(self) -> list[Address]:
        return list(self._diallers)

    def bind(self, address: Address) -> Address:
        """Listen at an address of this machine, port 0 for any; gives the base of the candidates there.

        Raises `LocalProblem`.
        """
        if self._closed:
            raise UsageError("these pairs are closed")
        handlers = DiallerHandlers(self._opened, self._given_up, self._handlers.on_mapping)
        dialler = TcpDialler(
            address, handlers, self._budget, entropy=self._entropy, round_trip=self._round_trip
        )
        self._diallers[dialler.local] = dialler
        return dialler.local

    def unbind(self, base: Address) -> None:
        """The address is gone: end what ICE has there, without a word. Links end by themselves."""
        dialler = self._diallers.pop(base, None)
        if dialler is None:
            return
        for stream in [stream for stream in self._streams.values() if stream.local == base]:
            self._forget(stream)
        dialler.close()

    def ask(self, server: Address) -> None:
        """Ask a STUN server about every port of its family, and go on asking."""
        for dialler in self._diallers.values():
            if dialler.local.is_ipv6 == server.is_ipv6:
                dialler.ask(server)

    def stop_asking(self) -> None:
        """Leave the servers alone; `ask` begins again."""
        for dialler in self._diallers.values():
            dialler.stop_asking()

    def want(self, local: Address, remote: Address, *, simultaneous: bool) -> None:
        """Have a connection of that pair: dial the other side, or meet it half-way where it dials too."""
        dialler = self._diallers.get(local)
        if dialler is None or self.stream(local, remote) is not None:
            return
        if simultaneous:
            dialler.punch(remote)
        else:
            dialler.dial(remote)

    def unwant(self, local: Address, remote: Address) -> None:
        """Have none: attempts end, and a connection that is not a link's; nothing is said of it."""
        dialler = self._diallers.get(local)
        if dialler is not None:
            dialler.give_up(remote)
        stream = self._streams.get((local, remote))
        if stream is not None:
            self._forget(stream)

    def send(self, transmit: Transmit) -> bool:
        """Send a packet on the connection of its pair. False where there is none: the packet is lost."""
        stream = self.stream(transmit.local, transmit.destination) if transmit.local is not None else None
        if stream is None:
            self.counters["unsent"] += 1
            return False
        stream.send(transmit.data)
        return True

    def stream(self, local: Address, remote: Address) -> FramedStream | None:
        """The connection of that pair, for whoever begins a link on it."""
        stream = self._streams.get((local, remote))
        return stream if stream is not None and stream.is_open else None

    def authenticated(self, local: Address, remote: Address) -> None:
        """A check or an answer that was authenticated came by this pair: the other side is there."""
        self._budget.prove(remote)
        stream, dialler = self._streams.get((local, remote)), self._diallers.get(local)
        if stream is not None and dialler is not None and not stream.stream.is_trusted:
            dialler.trust(stream.stream)
        self._go_on()

    def seen_at(self, host: str) -> None:
        """The other side is known, by the hub or by UDP, to be at that host: no limit for its ports."""
        self._budget.prove_host(host)
        self._go_on()

    def close(self) -> None:
        """End everything but links; nothing is told any more."""
        self._closed = True
        for base in self.bases:
            self.unbind(base)

    # --- connections ------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        for dialler in self._diallers.values():
            dialler.proven()

    def _opened(self, stream: TcpStream) -> None:
        key = (stream.local, stream.remote)
        former = self._streams.pop(key, None)
        if former is not None:  # the system would not have made this one if that were alive
            former.drop("the connection was made anew")
        if not self._has_room():
            self.counters["too many connections"] += 1
            stream.abort()
            self._diallers[stream.local].ended(stream)
            return
        self._streams[key] = FramedStream(
            stream,
            on_packet=self._packet,
            on_ended=self._ended,
            on_drained=self._handlers.on_drained,
            stays_framed=self._stays_framed,
        )
        self._handlers.on_opened(*key)

    def _has_room(self) -> bool:
        """Whether there may be one connection more; the oldest stranger makes room."""
        if len(self._streams) < MAX_CONNECTIONS:
            return True
        strangers = (each for each in self._streams.values() if each.stream.is_stranger)
        oldest = next(strangers, None)
        if oldest is not None:
            oldest.drop("others came who have not proven themselves either")
        return oldest is not None

    def _given_up(self, local: Address, remote: Address, reason: str) -> None:
        """Attempts were in vain, which is no news where the other side has come meanwhile."""
        if self.stream(local, remote) is None:
            self._handlers.on_lost(local, remote, reason)

    def _packet(self, stream: FramedStream, packet: bytes) -> None:
        self._handlers.on_packet(packet, stream.remote, stream.local)

    def _ended(self, stream: FramedStream, reason: str) -> None:
        if self._streams.get(stream.key) is stream:
            del self._streams[stream.key]
        dialler = self._diallers.get(stream.local)
        if dialler is not None:
            self._handlers.on_lost(*stream.key, reason)
            dialler.ended(stream.stream)

    def _forget(self, stream: FramedStream) -> None:
        """ICE has no use for the connection any more; one that is a link's stays findable until its end."""
        if stream.is_nominated:
            return
        del self._streams[stream.key]
        stream.stream.abort()  # by FIN, TIME_WAIT would keep the next connection of the pair away
        dialler = self._diallers.get(stream.local)
        if dialler is not None:
            dialler.ended(stream.stream)
