"""The TLS links of one meeting: each begins when a TCP pair is nominated, on the connection of that pair.

From then on the connection is the link's: ICE asks for no consent there, and may lose its pair or restart,
while the link goes on by proofs of its own (`link/tls.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.ice.pair import ValidPair
from crowline.link.choice import MAX_LINKS, category_of
from crowline.link.client_auth import LINK_ID_LENGTH
from crowline.link.events import LinkData, LinkDown, LinkEvent, LinkUp
from crowline.link.tls import TlsLink
from crowline.link.tls_trust import TlsTrust
from crowline.net.pump import Pump
from crowline.net.tcp_framed import FramedStream, StreamKey


class TlsPairLink:
    """One TLS link with the pair below it; the session's carrier, and the tenant of a connection."""

    def __init__(
        self, table: TlsLinkTable, number: int, pair: ValidPair, tls: TlsLink, stream: FramedStream
    ) -> None:
        self.number = number
        self.pair = pair
        self.tls = tls
        self.stream = stream
        self._table = table
        self.pump = Pump[Transmit, LinkEvent](tls, self._transmit, lambda event: table.on_event(self, event))

    @property
    def key(self) -> StreamKey:
        return self.stream.key

    @property
    def category(self) -> str:
        """``relay`` or ``direct``."""
        return category_of(self.pair)

    @property
    def path(self) -> int:
        """None that it shares with another link."""
        return 0

    @property
    def merit(self) -> int:
        """As a QUIC link's with the least packets."""
        return 2 * self.pair.priority

    @property
    def is_up(self) -> bool:
        return self.tls.is_up

    # For the session --------------------------------------------------------------------------------

    @property
    def unanswered_since(self) -> float | None:
        return self.tls.unanswered_since

    def room(self) -> int:
        self._count()
        return self.tls.room()

    def send(self, data: Buffer, now: float) -> None:
        self._count()
        self.tls.send(data, now)
        self._table.dirty.add(self)

    @property
    def max_datagram_size(self) -> int:
        """None: a stream has no packets of its own to lose."""
        return 0

    def send_datagram(self, data: Buffer, now: float) -> bool:
        return False

    # For the connection -----------------------------------------------------------------------------

    def receive(self, data: memoryview) -> None:
        self._count()
        self.tls.receive(data, self.tls.destination, self.pump.now)
        self._table.dirty.add(self)

    def drained(self) -> None:
        self._table.on_drained()

    def disconnected(self) -> None:
        self.tls.disconnected()
        self.pump.flush()
        self._table.on_drained()

    # ------------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Say what there still is to say; the link is over."""
        self.tls.close(self.pump.now)
        while (transmit := self.tls.next_transmit()) is not None:
            self._transmit(transmit)
        self.pump.close()

    def _transmit(self, transmit: Transmit) -> None:
        self.stream.write(transmit.data)
        self._count()

    def _count(self) -> None:
        self.tls.queued = self.stream.waiting


class TlsLinkTable:
    """All TLS links.

    `on_up`, `on_data` and `on_down` are those of `LinkTable`; `on_drained` comes after all that one read
    brought, and when there is room again: let the session send, and `flush`. What a read brings is dealt with
    before the next, so nothing piles up here; what holds the other side back is the session's credit.
    `numbers` gives the links' numbers for the session.
    """

    def __init__(
        self,
        *,
        trust: TlsTrust,
        client_key: Secret,
        entropy: Callable[[int], bytes],
        numbers: Iterator[int],
        on_up: Callable[[TlsPairLink], None],
        on_data: Callable[[TlsPairLink, Buffer], None],
        on_down: Callable[[TlsPairLink, str], None],
        on_drained: Callable[[], None],
    ) -> None:
        self.dirty: set[TlsPairLink] = set()
        self.on_drained = on_drained
        self._trust = trust
        self._client_key = client_key
        self._entropy = entropy
        self._numbers = numbers
        self._on_up, self._on_data, self._on_down = on_up, on_data, on_down
        self._links: set[TlsPairLink] = set()
        # Connections on which last words were said.
        self._finishing: set[FramedStream] = set()
        self._loop = asyncio.get_running_loop()

    def nominate(self, pair: ValidPair, stream: FramedStream, *, is_controlling: bool) -> None:
        """Both sides agree on `pair`, whose connection is `stream`: begin its link, unless there are enough.

        `is_controlling`: this side's role in ICE now. A second nomination means nothing.
        """
        if stream.is_nominated or not stream.is_open or len(self._links) >= MAX_LINKS:
            return
        link = TlsPairLink(self, next(self._numbers), pair, self._begin(stream), stream)
        stream.nominate(link, is_controlling=is_controlling)
        self._links.add(link)
        link.pump.flush()

    def links(self) -> list[TlsPairLink]:
        """Those that are up, and those that are about to be."""
        return list(self._links)

    def flush(self) -> None:
        """Send and hand on what the last calls made."""
        while self.dirty:
            self.dirty.pop().pump.flush()

    def end(self, link: TlsPairLink, reason: str) -> None:
        """End a link and its connection, after all that was sent; the other side is told."""
        if link not in self._links:
            return
        self._links.remove(link)
        self.dirty.discard(link)
        is_ours_to_end = link.is_up
        link.release()
        if is_ours_to_end:
            self._finishing.add(link.stream)
            link.stream.finish(reason, self._finishing.discard)
        else:
            link.stream.end(reason)
        self._on_down(link, reason)

    def close(self) -> None:
        """End everything; nobody is told but the other side."""
        links, streams = list(self._links), [*(link.stream for link in self._links), *self._finishing]
        for each in (self._links, self._finishing, self.dirty):
            each.clear()
        for link in links:
            link.release()
        for stream in streams:
            stream.close()

    def on_event(self, link: TlsPairLink, event: LinkEvent) -> None:
        if isinstance(event, LinkData):
            self._on_data(link, event.data)
        elif isinstance(event, LinkUp):
            self._on_up(link)
        elif isinstance(event, LinkDown):
            self.end(link, event.reason)

    def _begin(self, stream: FramedStream) -> TlsLink:
        trust, key, now = self._trust, self._client_key, self._loop.time()
        destination, local = stream.remote, stream.local
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
