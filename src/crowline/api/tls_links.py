"""The TCP connections of one meeting: ICE checks them, and the nominated ones become TLS links.

A connection is the link's from its nomination on: ICE sends nothing on it any more, asks for no consent there
and may lose its pair or restart, while the link goes on by proofs of its own (`link/tls.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from crowline.api.checked_stream import CheckedStream, StreamKey
from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.ice.pair import ValidPair
from crowline.link.choice import category_of
from crowline.link.client_auth import LINK_ID_LENGTH
from crowline.link.events import LinkData, LinkEvent, LinkUp
from crowline.link.tls import TlsLink
from crowline.link.tls_trust import TlsTrust
from crowline.net.pump import Pump
from crowline.net.tcp_stream import TcpStream

# Connections at once. ICE keeps few: one a pair of addresses, and most pairs are not TCP.
MAX_CONNECTIONS = 64


class TlsPairLink:
    """One TLS link with the pair below it; the session's carrier."""

    def __init__(
        self, table: TlsLinkTable, number: int, pair: ValidPair, tls: TlsLink, stream: CheckedStream
    ) -> None:
        self.number = number
        self.pair = pair
        self.tls = tls
        self._stream = stream
        self._table = table
        self.pump = Pump[Transmit, LinkEvent](tls, self._transmit, lambda event: table.on_event(self, event))

    @property
    def key(self) -> StreamKey:
        return self._stream.key

    @property
    def category(self) -> str:
        """``relay`` or ``direct``."""
        return category_of(self.pair)

    @property
    def unanswered_since(self) -> float | None:
        return self.tls.unanswered_since

    @property
    def is_up(self) -> bool:
        return self.tls.is_up

    def room(self) -> int:
        self._count()
        return self.tls.room()

    def send(self, data: Buffer, now: float) -> None:
        self._count()
        self.tls.send(data, now)
        self._table.dirty.add(self)

    def receive(self, data: memoryview, now: float) -> None:
        """What the connection brought."""
        self._count()
        self.tls.receive(data, self.tls.destination, now)
        self._table.dirty.add(self)

    def release(self, now: float) -> None:
        """Say what there still is to say; the link is over."""
        self.tls.close(now)
        while (transmit := self.tls.next_transmit()) is not None:
            self._transmit(transmit)
        self.pump.close()

    def _transmit(self, transmit: Transmit) -> None:
        self._stream.write(transmit.data)
        self._count()

    def _count(self) -> None:
        self.tls.queued = self._stream.waiting


class TlsLinkTable:
    """All connections, by their addresses, and the links on them.

    `on_stun` gets what ICE has to see, with its source and the base it came to. `on_up`, `on_data` and
    `on_down` are about links, as those of `LinkTable`; `on_ended` says of every connection that it is over
    and why, but for those that `close` ends. `on_drained` comes after all that one read brought, and when
    there is room again: let the session send, and `flush`. What a read brings is dealt with before the next,
    so nothing piles up here; what holds the other side back is the session's credit. `numbers` gives the
    links' numbers for the session.
    """

    def __init__(
        self,
        *,
        trust: TlsTrust,
        client_key: Secret,
        entropy: Callable[[int], bytes],
        numbers: Iterator[int],
        on_stun: Callable[[memoryview, Address, Address], None],
        on_up: Callable[[TlsPairLink], None],
        on_data: Callable[[TlsPairLink, Buffer], None],
        on_down: Callable[[TlsPairLink, str], None],
        on_ended: Callable[[StreamKey, str], None],
        on_drained: Callable[[], None],
    ) -> None:
        self.dirty: set[TlsPairLink] = set()
        self._trust = trust
        self._client_key = client_key
        self._entropy = entropy
        self._numbers = numbers
        self._on_stun = on_stun
        self._on_up, self._on_data, self._on_down = on_up, on_data, on_down
        self._on_ended, self._on_drained = on_ended, on_drained
        self._streams: dict[StreamKey, CheckedStream] = {}
        self._links: dict[StreamKey, TlsPairLink] = {}
        # Connections on which last words were said.
        self._finishing: set[CheckedStream] = set()
        self._loop = asyncio.get_running_loop()

    # Connections ------------------------------------------------------------------------------------

    def add(self, stream: TcpStream) -> bool:
        """Take over a connection, whoever dialled; False when there are too many, and it is gone."""
        key = (stream.local, stream.remote)
        if former := self._streams.get(key):  # the system would not have made this one if that were alive
            self._on_stream_ended(former, "the connection was made anew")
        if len(self._streams) >= MAX_CONNECTIONS:
            stream.abort()
            return False
        self._streams[key] = CheckedStream(
            stream,
            on_packet=lambda own, packet: self._on_stun(memoryview(packet), own.key[1], own.key[0]),
            on_drained=self._on_drained,
            on_ended=self._on_stream_ended,
        )
        return True

    def send(self, transmit: Transmit) -> None:
        """Send one packet, framed; where there is no connection or TLS has it, the packet is lost."""
        if transmit.local is None:
            return
        if stream := self._streams.get((transmit.local, transmit.destination)):
            stream.send(transmit.data)

    def pair_valid(self, pair: ValidPair) -> None:
        """A check has proven who is there."""
        if stream := self._streams.get((pair.base, pair.remote.address)):
            stream.trust()

    def nominate(self, pair: ValidPair, *, is_controlling: bool) -> None:
        """Both sides agree on `pair`: begin its link. `is_controlling`: this side's role in ICE now."""
        key = (pair.base, pair.remote.address)
        stream = self._streams.get(key)
        if stream is None or key in self._links:
            return
        link = self._links[key] = TlsPairLink(self, next(self._numbers), pair, self._begin(pair), stream)
        stream.trust()
        stream.nominate(
            is_controlling=is_controlling, on_bytes=lambda data: link.receive(data, self._loop.time())
        )
        link.pump.flush()

    def pair_lost(self, key: StreamKey, reason: str) -> None:
        """ICE has no use for the connection any more. One that has become a link stays, as links do."""
        if key not in self._links:
            self._drop(key, reason)

    def base_lost(self, base: Address, reason: str) -> None:
        """The local address is gone, and with it all connections from there."""
        for key in [key for key in self._streams if key[0] == base]:
            if link := self._links.get(key):
                self.end(link, reason)
            else:
                self._drop(key, reason)

    # Links ------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send and hand on what the last calls made."""
        while self.dirty:
            self.dirty.pop().pump.flush()

    def end(self, link: TlsPairLink, reason: str) -> None:
        """End a link and its connection, after all that was sent; the other side is told."""
        if self._links.get(link.key) is not link:
            return
        del self._links[link.key]
        self.dirty.discard(link)
        stream = self._streams.pop(link.key)
        is_ours_to_end = link.is_up
        link.release(self._loop.time())
        if is_ours_to_end:
            self._finishing.add(stream)
            stream.finish(self._finishing.discard)
        else:
            stream.close()
        self._on_down(link, reason)
        self._on_ended(link.key, reason)

    def close(self) -> None:
        """End everything."""
        now = self._loop.time()
        links, streams = list(self._links.values()), [*self._streams.values(), *self._finishing]
        for each in (self._links, self._streams, self._finishing, self.dirty):
            each.clear()
        for link in links:
            link.release(now)
        for stream in streams:
            stream.close()

    def on_event(self, link: TlsPairLink, event: LinkEvent) -> None:
        if isinstance(event, LinkData):
            self._on_data(link, event.data)
        elif isinstance(event, LinkUp):
            self._on_up(link)
        else:
            self.end(link, event.reason)

    def _begin(self, pair: ValidPair) -> TlsLink:
        trust, key, now = self._trust, self._client_key, self._loop.time()
        destination, local = pair.remote.address, pair.base
        if not trust.is_client:
            return TlsLink.accept(destination=destination, local=local, trust=trust, client_key=key, now=now)
        return TlsLink.connect(
            destination=destination,
            local=local,
            trust=trust,
            client_key=key,
            link_id=self._entropy(LINK_ID_LENGTH),
            now=now,
        )

    def _on_stream_ended(self, stream: CheckedStream, reason: str) -> None:
        """The other side closed the connection, or it broke."""
        if self._streams.get(stream.key) is not stream:
            return
        if link := self._links.get(stream.key):
            link.tls.disconnected()
            link.pump.flush()
            self._on_drained()
        else:
            self._drop(stream.key, reason)

    def _drop(self, key: StreamKey, reason: str) -> None:
        if stream := self._streams.pop(key, None):
            stream.close()
            self._on_ended(key, reason)
