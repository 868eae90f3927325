"""What carries a meeting's session: link zero and the links on pairs, as paths that people see."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from crowline.api.links import LinkSecrets
from crowline.api.pair_links import Link, PairLinks, Pairs
from crowline.api.path import Path
from crowline.api.path_reasons import PathReasons
from crowline.api.paths import PathBook
from crowline.base.addresses import Address
from crowline.base.machine import Buffer
from crowline.base.transport import Transport
from crowline.ice.pair import ValidPair
from crowline.link.choice import HUB_LINK, HUB_RANK, rank_of
from crowline.link.tls_trust import TlsTrust
from crowline.session.events import LinkChosen
from crowline.session.links import Carrier, Hints, LinkTransmit
from crowline.session.session import Session


class Carriers:
    """Attaches links to the session and detaches them. `pairs` are there once the other side is known.

    `on_first` is called when the first is up, `on_change` after each change: flush then. `on_reason`: why a
    path is as it is may have to be told anew.
    """

    def __init__(
        self,
        session: Session,
        hub_url: str,
        *,
        on_first: Callable[[], None],
        on_change: Callable[[], None],
        on_reason: Callable[[], None] = lambda: None,
    ) -> None:
        self.reasons = PathReasons(on_change=on_reason)
        self.paths = PathBook(session, hub_url, self.reasons)
        self.pairs: PairLinks | None = None
        self._session = session
        self._hub: Carrier | None = None
        self._has_any = False
        self._on_first = on_first
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()

    def hub_up(self, link: Carrier) -> None:
        """Link zero may be used, while there is nothing better."""
        self._hub = link
        self.paths.add_hub()
        self._attach(HUB_LINK, link, HUB_RANK, Hints(makeshift=True))

    def hub_down(self, reason: str) -> None:
        self._hub = None
        self.paths.remove_hub()
        self._detach(HUB_LINK, reason)

    def open_pairs(
        self,
        secrets: LinkSecrets,
        trust: TlsTrust | None,
        pairs: Pairs,
        *,
        client: bool,
        on_up: Callable[[Link], None],
        on_data: Callable[[int, Buffer], None],
    ) -> None:
        """The other side is known: from now on valid pairs become links, as `PairLinks` says."""
        self.pairs = PairLinks(
            client=client,
            secrets=secrets,
            trust=trust,
            entropy=os.urandom,
            pairs=pairs,
            is_ailing=self._session.links.is_ailing,
            carried=lambda number: sum(self._session.links.carried(number)),
            on_up=on_up,
            on_data=on_data,
            on_datagram=self._receive_datagram,
            on_down=self.link_down,
            on_drained=self._on_change,
        )

    def link_up(self, link: Link, transport: Transport) -> None:
        """`transport`: how its packets leave this machine."""
        self.paths.add(link, transport)
        is_fading = self.pairs is not None and self.pairs.is_fading(link.pair)
        is_stream = link.pair.transport.is_stream
        hints = Hints(link.merit, link.pair.rtt, is_fading=is_fading, is_for_bulk=is_stream, path=link.path)
        self._attach(link.number, link, rank_of(link.pair), hints)

    def link_down(self, number: int, reason: str) -> None:
        if self.paths.remove(number):
            self._detach(number, reason)

    # What the traversal says ------------------------------------------------------------------------

    def on_pair_valid(self, pair: ValidPair) -> None:
        if self.pairs is not None:
            self.pairs.pair_valid(pair)

    def on_pair_nominated(self, pair: ValidPair) -> None:
        if self.pairs is not None:
            self.pairs.pair_nominated(pair)

    def on_pair_reclassified(self, pair: ValidPair) -> None:
        """What looked direct is relayed, or the other way round."""
        if self.pairs is not None:
            self.pairs.pair_reclassified(pair, self._session.rerank)
            self._on_change()

    def on_pair_lost(self, pair: ValidPair, reason: str) -> None:
        if self.pairs is not None:
            self.pairs.pair_lost(pair, reason)

    def on_packets(self, data: memoryview, segment_size: int, source: Address, local: Address) -> None:
        if self.pairs is not None:
            self.pairs.packet(data, segment_size, source, local)

    def on_restarted(self) -> None:
        """A network is another one: what fell silent may work now, and what works may not last."""
        self._session.links.start_over(self._loop.time())
        if self.pairs is not None:
            self.pairs.network_changed()
        self._on_change()

    def bases_in_use(self) -> list[Address]:
        """The base of the path that carries the streams."""
        chosen = self._session.chosen
        link = self.paths.up.get(chosen) if chosen is not None else None
        return [] if link is None else [link.pair.base]

    def on_fading(self, end: Address) -> None:
        """What begins or ends there will not last: other links of its rank go before it."""
        for number in self.pairs.fade(end) if self.pairs is not None else ():
            self._session.links.fade(number)
        self._on_change()

    # What the session says --------------------------------------------------------------------------

    def choose(self, event: LinkChosen) -> tuple[Path | None, Path | None]:
        """The session has chosen: the path that carries the streams from now on, and the one before."""
        if self.pairs is not None:
            self.pairs.chosen(self.paths.up.get(event.link) if event.link is not None else None)
        return self.paths.choose(event)

    def on_link_sought(self) -> None:
        """Either side would try another link for its bulk."""
        if self.pairs is not None:
            self.pairs.wish_for_stream()

    def send(self, transmit: LinkTransmit) -> None:
        """Hand a link what the session has for it."""
        carrier = self._hub if transmit.link == HUB_LINK else self.paths.up.get(transmit.link)
        if carrier is not None:
            for part in transmit.data:
                carrier.send(part, self._loop.time())

    def receive(self, number: int, data: Buffer) -> None:
        """Hand the session what a link brought."""
        self._session.receive(data, number, self._loop.time())

    def _receive_datagram(self, number: int, data: Buffer) -> None:
        self._session.receive_datagram(data, number, self._loop.time())

    def silent_pair(self, event: LinkChosen) -> ValidPair | None:
        """The pair of the link that was left, where that was direct, over UDP, and carries nothing."""
        link = self.paths.up.get(event.was) if event.was is not None else None
        if link is None or link.category != "direct" or link.pair.transport.is_stream:
            return None
        return link.pair if self._session.links.is_ailing(link.number) else None

    def flush(self) -> None:
        """Send what the links have."""
        if self.pairs is not None:
            self.pairs.flush()

    def close(self) -> None:
        if self.pairs is not None:
            self.pairs.close()

    def _attach(self, number: int, carrier: Carrier, rank: int, hints: Hints) -> None:
        self._session.attach(number, carrier, rank, self._loop.time(), hints)
        if not self._has_any:
            self._has_any = True
            self._on_first()
        self._on_change()

    def _detach(self, number: int, reason: str) -> None:
        self._session.detach(number, self._loop.time(), reason)
        self._on_change()
