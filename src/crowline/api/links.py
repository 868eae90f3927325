"""The QUIC links of one meeting: the TLS client opens them on valid pairs, the TLS server accepts them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.ice.pair import ValidPair
from crowline.link.choice import MAX_LINKS, category_of, deserves_link
from crowline.link.events import LinkData, LinkEvent, LinkUp
from crowline.link.identity import Identity
from crowline.link.quic import LINK_ID_LENGTH, QuicLink, is_initial
from crowline.net.pump import Pump

# Runs of datagrams kept for a pair that is about to be proven: an Initial flight is one or two.
MAX_EARLY = 4
# Seconds that a direct link stays after a better one has taken over, for what is still on its way.
LINGER = 3.0
# Seconds until a link that failed on a pair that is still valid is tried again; doubled each time.
RETRY_AFTER = 1.0
MAX_TRIES = 4


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
    def unanswered_since(self) -> float | None:
        return self.quic.unanswered_since

    def room(self) -> int:
        return self.quic.room()

    def send(self, data: Buffer, now: float) -> None:
        self.quic.send(data, now)
        self._table.dirty.add(self)


class LinkTable:
    """All links, by the pair they use. `client` is the session role that plays the TLS client."""

    def __init__(
        self,
        *,
        client: bool,
        secrets: LinkSecrets,
        entropy: Callable[[int], bytes],
        send: Callable[[Transmit], None],
        valid_pairs: Callable[[], Iterable[ValidPair]],
        on_up: Callable[[PairLink], None],
        on_data: Callable[[PairLink, Buffer], None],
        on_down: Callable[[PairLink, str], None],
    ) -> None:
        self.send = send
        self.dirty: set[PairLink] = set()
        self._client = client
        self._secrets = secrets
        self._entropy = entropy
        self._valid_pairs = valid_pairs
        self._on_up, self._on_data, self._on_down = on_up, on_data, on_down
        self._links: dict[tuple[Address, Address], PairLink] = {}
        self._early: dict[tuple[Address, Address], list[tuple[bytes, int]]] = {}
        self._tries: dict[tuple[Address, Address], int] = {}
        self._numbers = 0
        self._timers: set[asyncio.TimerHandle] = set()
        self._loop = asyncio.get_running_loop()

    @property
    def peer_fingerprint(self) -> bytes:
        """What every link's certificate has."""
        return self._secrets.peer_fingerprint

    def network_changed(self) -> None:
        """Of either side: what failed may work now."""
        self._tries.clear()

    def pair_valid(self, pair: ValidPair) -> None:
        """Open a link where this pair is better than those that links use or are about to use."""
        if not self._client:
            for run, size in self._early.pop(pair.key, []):
                self.packet(memoryview(run), size, pair.remote.address, pair.base)
            self.flush()
            return
        used = [link.pair for link in self._links.values()]
        if deserves_link(pair, used) and self._tries.get(pair.key, 0) < MAX_TRIES:
            self._open(pair)

    def packet(self, data: memoryview, segment_size: int, source: Address, local: Address) -> None:
        """A run of datagrams that are not STUN. A connection begins only on a pair that ICE has proven."""
        link = self._links.get((local, source)) or self._accept(data, segment_size, source, local)
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
        for timer in self._timers:
            timer.cancel()
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
        elif isinstance(event, LinkUp):
            self._tries.pop(link.key, None)
            self._on_up(link)
            self._retire_worse(link)
        else:
            self._remove(link, event.reason)

    def _open(self, pair: ValidPair) -> None:
        now = self._loop.time()
        self._tries[pair.key] = self._tries.get(pair.key, 0) + 1
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
        self._numbers += 1
        link = PairLink(self, self._numbers, pair, quic)
        self._links[link.key] = link
        return link

    def _remove(self, link: PairLink, reason: str) -> None:
        if self._links.get(link.key) is not link:
            return
        del self._links[link.key]
        self._on_down(link, reason)
        link.quic.close(self._loop.time())
        # The pump may be in the middle of this event; what QUIC still has to say goes out afterwards.
        self._loop.call_soon(self._bury, link)
        if self._client:
            tries = self._tries.get(link.key, 0)
            self._later(RETRY_AFTER * 2**tries, self._retry)

    @staticmethod
    def _bury(link: PairLink) -> None:
        link.pump.flush()
        link.pump.close()

    def _retry(self) -> None:
        """Open what is missed now: the pair that failed, and those that were not needed beside it."""
        for pair in sorted(self._valid_pairs(), key=lambda pair: self._tries.get(pair.key, 0)):
            self.pair_valid(pair)

    def _retire_worse(self, better: PairLink) -> None:
        """The TLS client ends direct links that `better` replaces; a relayed link stays warm."""
        if not self._client or better.category == "relay":
            return
        for link in self._links.values():
            if link.category == "direct" and link.pair.priority < better.pair.priority:
                self._later(LINGER, self._retire, link)

    def _retire(self, link: PairLink) -> None:
        if self._links.get(link.key) is link:
            del self._links[link.key]
            self._on_down(link, "a better path took over")
            link.quic.close(self._loop.time())
            self._bury(link)

    def _later(self, delay: float, call: Callable[..., None], *arguments: object) -> None:
        self._timers = {
            timer for timer in self._timers if not timer.cancelled() and timer.when() > self._loop.time()
        }
        self._timers.add(self._loop.call_later(delay, call, *arguments))
