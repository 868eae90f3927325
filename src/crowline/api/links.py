"""The QUIC links of one meeting: the TLS client opens them on valid pairs, the TLS server accepts them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.ice.pair import ValidPair
from crowline.link.choice import MAX_LINKS, category_of, rank_of
from crowline.link.events import LinkData, LinkDatagram, LinkEvent, LinkUp
from crowline.link.identity import Identity
from crowline.link.plan import LinkPlan
from crowline.link.quic import LINK_ID_LENGTH, QuicLink, is_initial
from crowline.net.pump import Pump

# Runs of datagrams kept for a pair that is about to be proven: an Initial flight is one or two.
MAX_EARLY = 4


@dataclass(frozen=True, slots=True)
class LinkSecrets:
    """What both ends need to authenticate each other."""

    identity: Identity
    peer_fingerprint: bytes
    client_key: Secret


class PairLink:
    """One QUIC link with the pair below it; the session's carrier."""

    def __init__(self, table: LinkTable, number: int, pair: ValidPair, quic: QuicLink) -> None:
        self.number = number
        self.pair = pair
        self.quic = quic
        self._table = table
        self.pump = Pump[Transmit, LinkEvent](quic, table.send, lambda event: table.on_event(self, event))

    @property
    def key(self) -> tuple[Address, Address]:
        return (self.quic.local, self.quic.destination)

    @property
    def category(self) -> str:
        """``relay`` or ``direct``: one link of each is kept."""
        return category_of(self.pair)

    @property
    def is_up(self) -> bool:
        return self.quic.is_up

    @property
    def unanswered_since(self) -> float | None:
        return self.quic.unanswered_since

    def room(self) -> int:
        return self.quic.room()

    def send(self, data: Buffer, now: float) -> None:
        self.quic.send(data, now)
        self._table.dirty.add(self)

    @property
    def max_datagram_size(self) -> int:
        return self.quic.max_datagram_size

    def send_datagram(self, data: Buffer, now: float) -> bool:
        self._table.dirty.add(self)
        return self.quic.send_datagram(data, now)


class LinkTable:
    """All links, by the pair they use. `client` is the session role that plays the TLS client.

    `on_open` hears of each pair on which a link is opened or accepted, `on_down` of each that is not used any
    more, whether its link was up or not. `is_ailing` says of a link's number whether it carries nothing.
    `numbers` gives the links' numbers for the session.
    """

    def __init__(
        self,
        *,
        client: bool,
        secrets: LinkSecrets,
        entropy: Callable[[int], bytes],
        numbers: Iterator[int],
        send: Callable[[Transmit], None],
        valid_pairs: Callable[[], Iterable[ValidPair]],
        on_open: Callable[[ValidPair], None],
        is_ailing: Callable[[int], bool],
        on_up: Callable[[PairLink], None],
        on_data: Callable[[PairLink, Buffer], None],
        on_datagram: Callable[[PairLink, Buffer], None],
        on_down: Callable[[PairLink, str], None],
    ) -> None:
        self.send = send
        self.dirty: set[PairLink] = set()
        self._client = client
        self._secrets = secrets
        self._entropy = entropy
        self._valid_pairs = valid_pairs
        self._on_open, self._is_ailing = on_open, is_ailing
        self._on_up, self._on_data, self._on_down = on_up, on_data, on_down
        self._on_datagram = on_datagram
        self._links: dict[tuple[Address, Address], PairLink] = {}
        self._early: dict[tuple[Address, Address], list[tuple[bytes, int]]] = {}
        self._plan = LinkPlan()
        self._chosen: int | None = None
        self._numbers = numbers
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def peer_fingerprint(self) -> bytes:
        """What every link's certificate has."""
        return self._secrets.peer_fingerprint

    def network_changed(self) -> None:
        """Of either side: what failed may work now, and new pairs go before those of today's links."""
        self._plan.start_over(link.pair for link in self._links.values())
        self._look()

    def chosen(self, number: int | None) -> None:
        """The streams flow by the link of that number, where it is one of these."""
        self._chosen = number
        self._settle()
        self._look()

    def fade(self, end: Address) -> list[int]:
        """What begins or ends there will not last: open others beside those links. Their numbers."""
        self._plan.fade(end)
        self._look()
        return [link.number for link in self._links.values() if self._plan.is_fading(link.pair)]

    def is_fading(self, pair: ValidPair) -> bool:
        """Whether a link on it is to be left for any other of its rank."""
        return self._plan.is_fading(pair)

    def pair_reclassified(self, pair: ValidPair, rerank: Callable[[int, int, int, float], None]) -> None:
        """`pair` is of another kind than was thought, and so is a link on it: as `Session.rerank`."""
        link = self._links.get(pair.key)
        if link is not None and link.pair is pair:
            rerank(link.number, rank_of(pair), pair.priority, self._loop.time())
        self._settle()
        self._look()

    def pair_valid(self, pair: ValidPair) -> None:
        """Open a link where this pair is better than those that links use or are about to use."""
        if not self._client:
            for run, size in self._early.pop(pair.key, []):
                self.packet(memoryview(run), size, pair.remote.address, pair.base)
            self.flush()
            return
        used = [link.pair for link in self._links.values()]
        ailing = [link.key for link in self._links.values() if self._is_ailing(link.number)]
        now = self._loop.time()
        if not self._plan.wants(pair, used, ailing, now):
            return
        if self._plan.must_answer(pair, now):
            self._on_open(pair)
            self._arm()
        else:
            self._open(pair)

    def packet(self, data: memoryview, segment_size: int, source: Address, local: Address) -> None:
        """A run of datagrams that are not STUN. A connection begins only on a pair that ICE has proven."""
        link = self._links.get((local, source))
        if link is not None and self._is_ailing(link.number) and is_initial(data[:segment_size]):
            self._remove(link, "the other side began anew")
            link = None
        link = link or self._accept(data, segment_size, source, local)
        if link is None:
            return
        link.quic.receive_run(data, segment_size, self._loop.time())
        self.dirty.add(link)

    def flush(self) -> None:
        """Send and hand on what the last calls made."""
        while self.dirty:
            self.dirty.pop().pump.flush()

    def pair_lost(self, key: tuple[Address, Address], reason: str) -> None:
        """The agent gave the pair up: the other side does not want packets there, or is not there."""
        if link := self._links.get(key):
            self._remove(link, reason)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        now = self._loop.time()
        for link in list(self._links.values()):  # what the pump still hands on may remove some
            link.quic.close(now)
            link.pump.flush()
            link.pump.close()
        self._links.clear()
        self.dirty.clear()

    def on_event(self, link: PairLink, event: LinkEvent) -> None:
        if isinstance(event, LinkData):
            self._on_data(link, event.data)
        elif isinstance(event, LinkDatagram):
            self._on_datagram(link, event.data)
        elif isinstance(event, LinkUp):
            self._plan.up(link.pair, self._loop.time())
            self._on_up(link)
            self._settle()
        else:
            self._remove(link, event.reason)

    def _open(self, pair: ValidPair) -> None:
        now = self._loop.time()
        quic = QuicLink.connect(
            destination=pair.remote.address,
            local=pair.base,
            peer_fingerprint=self._secrets.peer_fingerprint,
            client_key=self._secrets.client_key,
            link_id=self._entropy(LINK_ID_LENGTH),
            now=now,
            rtt=pair.rtt,
        )
        self._add(pair, quic).pump.flush()

    def _accept(
        self, data: memoryview, segment_size: int, source: Address, local: Address
    ) -> PairLink | None:
        first = data[:segment_size]
        if self._client or len(self._links) >= MAX_LINKS or not is_initial(first):
            return None
        key = (local, source)
        pair = next((pair for pair in self._valid_pairs() if pair.key == key), None)
        if pair is None:
            self._keep_early(key, data, segment_size)
            return None
        quic = QuicLink.accept(
            first,
            destination=source,
            local=local,
            identity=self._secrets.identity,
            client_key=self._secrets.client_key,
            now=self._loop.time(),
        )
        return self._add(pair, quic)

    def _keep_early(self, key: tuple[Address, Address], data: memoryview, segment_size: int) -> None:
        """The client may be a packet ahead of the reply that proves the pair to this side."""
        if key not in self._early and len(self._early) >= MAX_LINKS:
            return
        runs = self._early.setdefault(key, [])
        if len(runs) < MAX_EARLY:
            runs.append((bytes(data), segment_size))

    def _add(self, pair: ValidPair, quic: QuicLink) -> PairLink:
        link = PairLink(self, next(self._numbers), pair, quic)
        self._links[link.key] = link
        self._on_open(pair)
        return link

    def _remove(self, link: PairLink, reason: str) -> None:
        if self._links.get(link.key) is link:
            self._plan.ended(link.pair, self._loop.time())
            self._drop(link, reason)

    def _drop(self, link: PairLink, reason: str) -> None:
        del self._links[link.key]
        self._on_down(link, reason)
        link.quic.close(self._loop.time())
        # The pump may be in the middle of this event; what QUIC still has to say goes out afterwards.
        self._loop.call_soon(self._bury, link)
        self._settle()

    @staticmethod
    def _bury(link: PairLink) -> None:
        link.pump.flush()
        link.pump.close()

    # What the TLS client plans ----------------------------------------------------------------------

    def _settle(self) -> None:
        """Tell the plan what there is now, and be woken when it wants something."""
        if not self._client:
            return
        up = [link for link in self._links.values() if link.is_up]
        chosen = next((link.pair for link in up if link.number == self._chosen), None)
        self._plan.chosen(chosen, [link.pair for link in up], self._loop.time())
        self._arm()

    def _look(self) -> None:
        """Open what is missed now: a pair that failed, and those that were not needed beside it."""
        if self._client:
            for pair in self._plan.in_turn(self._valid_pairs()):
                self.pair_valid(pair)

    def _wake(self) -> None:
        self._timer = None
        now = self._loop.time()
        due = self._plan.due(now)
        better = next((link.pair for link in self._links.values() if link.number == self._chosen), None)
        for key in due.ending:
            if link := self._links.get(key):
                self._plan.let_go(link.pair, better, now)
                self._drop(link, "a better path took over")
        if due.look:
            self._look()
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        at = self._plan.next_timeout()
        self._timer = None if at is None else self._loop.call_at(at, self._wake)
