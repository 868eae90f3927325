"""The QUIC links of one meeting: the TLS client opens them on valid pairs, the TLS server accepts them.

A pair may have several, told apart by their connection ids: one with the least packets, which every path
carries, and one with the largest that this path was found to carry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from crowline.api.larger_links import LargerLinks
from crowline.api.pair_link import PairLink
from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.ice.pair import ValidPair
from crowline.link.choice import MAX_LINKS, rank_of
from crowline.link.events import LinkData, LinkDatagram, LinkEvent, LinkUp
from crowline.link.identity import Identity
from crowline.link.plan import LinkPlan
from crowline.link.quic import DATAGRAM_SIZE, LINK_ID_LENGTH, QuicLink, is_initial
from crowline.link.quic_packets import by_connection, has_long_header

# Runs of datagrams kept for a pair that is about to be proven: an Initial flight is one or two.
MAX_EARLY = 4
# Links of one pair that may be opening or up at once.
MAX_LINKS_OF_A_PAIR = 6
# Seconds between two looks at whether a link has stalled.
TEND_INTERVAL = 2.0
# Seconds after it came up within which a link with larger packets that ends by itself counts as one that
# never did: the other side may still have refused it. More than a round trip of any usual path.
PROBATION = 1.0

_Key: TypeAlias = tuple[Address, Address]


@dataclass(frozen=True, slots=True)
class LinkSecrets:
    """What both ends need to authenticate each other."""

    identity: Identity
    peer_fingerprint: bytes
    client_key: Secret


class LinkTable:
    """All links, by the pair they use. `client` is the session role that plays the TLS client.

    `on_open` hears of each pair on which a link is opened or accepted, `on_down` of each that is not used any
    more, whether its link was up or not. `is_ailing` says of a link's number whether it carries nothing.
    `largest` says of a pair how large a datagram this machine lets out there. `numbers` gives the links'
    numbers for the session.
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
        largest: Callable[[ValidPair], int],
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
        self._links: dict[_Key, list[PairLink]] = {}
        self._early: dict[_Key, list[tuple[bytes, int]]] = {}
        self._plan = LinkPlan()
        self._larger = LargerLinks(self, opens=client, largest=largest, is_ailing=is_ailing)
        self._chosen: int | None = None
        self._numbers = numbers
        self._timer: asyncio.TimerHandle | None = None
        self._tending: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def peer_fingerprint(self) -> bytes:
        """What every link's certificate has."""
        return self._secrets.peer_fingerprint

    def links(self) -> list[PairLink]:
        """Those that are up, and those that are about to be."""
        return [link for links in self._links.values() for link in links]

    def uses(self, pair: ValidPair) -> bool:
        """Whether there is a link on it."""
        return pair.key in self._links

    def network_changed(self) -> None:
        """Of either side: what failed may work now, and new pairs go before those of today's links."""
        self._larger.start_over()
        self._plan.start_over(self._pairs())
        self._look()

    def chosen(self, number: int | None) -> None:
        """The streams flow by the link of that number, where it is one of these."""
        self._chosen = number
        if (link := self._chosen_link) is not None:
            self._larger.chosen(link)
        self._settle()
        self._look()

    def fade(self, end: Address) -> list[int]:
        """What begins or ends there will not last: open others beside those links. Their numbers."""
        self._plan.fade(end)
        self._look()
        return [link.number for link in self.links() if self._plan.is_fading(link.pair)]

    def is_fading(self, pair: ValidPair) -> bool:
        """Whether a link on it is to be left for any other of its rank."""
        return self._plan.is_fading(pair)

    def pair_reclassified(self, pair: ValidPair, rerank: Callable[[int, int, int, float], None]) -> None:
        """`pair` is of another kind than was thought, and so is a link on it: as `Session.rerank`."""
        for link in self._links.get(pair.key, ()):
            if link.pair is pair:
                rerank(link.number, rank_of(pair), link.merit, self._loop.time())
        self._settle()
        self._look()

    def pair_valid(self, pair: ValidPair) -> None:
        """Open a link where this pair is better than those that links use or are about to use."""
        if not self._client:
            for run, size in self._early.pop(pair.key, []):
                self.packet(memoryview(run), size, pair.remote.address, pair.base)
            self.flush()
            return
        ailing = [
            key for key, links in self._links.items() if all(self._is_ailing(each.number) for each in links)
        ]
        now = self._loop.time()
        if not self._plan.wants(pair, self._pairs(), ailing, now):
            return
        if self._plan.must_answer(pair, now):
            self._on_open(pair)
            self._arm()
        else:
            self.open(pair)

    def packet(self, data: memoryview, segment_size: int, source: Address, local: Address) -> None:
        """A run of datagrams that are not STUN. A connection begins only on a pair that ICE has proven."""
        links = self._links.get((local, source))
        if links is not None and len(links) == 1 and not has_long_header(data):
            self._deliver(links[0], data, segment_size)
            return
        for connection, run in by_connection(data, segment_size):
            if link := self._owner(connection, run, segment_size, source, local):
                self._deliver(link, run, segment_size)

    def flush(self) -> None:
        """Send and hand on what the last calls made."""
        while self.dirty:
            self.dirty.pop().pump.flush()

    def pair_lost(self, key: _Key, reason: str) -> None:
        """The agent gave the pair up: the other side does not want packets there, or is not there."""
        for link in list(self._links.get(key, ())):
            self.remove(link, reason)

    def close(self) -> None:
        for timer in (self._timer, self._tending):
            if timer is not None:
                timer.cancel()
        now = self._loop.time()
        for link in self.links():  # what the pump still hands on may remove some
            link.quic.close(now)
            link.pump.flush()
            link.pump.close()
        self._links.clear()
        self.dirty.clear()

    def on_event(self, link: PairLink, event: LinkEvent) -> None:
        if isinstance(event, LinkData):
            link.count(len(event.data))
            self._on_data(link, event.data)
        elif isinstance(event, LinkDatagram):
            self._on_datagram(link, event.data)
        elif isinstance(event, LinkUp):
            link.up_at = self._loop.time()
            self._plan.up(link.pair, link.up_at)
            self._larger.came_up(link)
            self._on_up(link)
            self._succeed(link)
            self._settle()
        else:
            self.remove(link, event.reason, is_failure=self._loop.time() < link.up_at + PROBATION)

    def grow_soon(self, link: PairLink) -> None:
        """It has carried as much as it was to carry before larger packets are thought of."""
        self._loop.call_soon(lambda: self._larger.carried(link, is_chosen=link.number == self._chosen))

    def beside(self, link: PairLink) -> list[PairLink]:
        """All links of its pair."""
        return self._links.get(link.key, [])

    def open(self, pair: ValidPair, size: int = DATAGRAM_SIZE) -> None:
        """Begin a link as the TLS client, with packets of at most `size` bytes."""
        now = self._loop.time()
        quic = QuicLink.connect(
            destination=pair.remote.address,
            local=pair.base,
            peer_fingerprint=self._secrets.peer_fingerprint,
            client_key=self._secrets.client_key,
            link_id=self._entropy(LINK_ID_LENGTH),
            now=now,
            rtt=pair.rtt,
            size=size,
        )
        self._add(pair, quic).pump.flush()

    def remove(self, link: PairLink, reason: str, *, is_failure: bool = False) -> None:
        """End a link, if it is still there. `is_failure`: though it came up, it was of no use."""
        beside = self._links.get(link.key, [])
        if link not in beside:
            return
        if len(beside) == 1:
            self._plan.ended(link.pair, self._loop.time())
        self._drop(link, reason)
        if link.is_large and (is_failure or not link.has_been_up):
            self._larger.failed(link, self._chosen_link)

    @property
    def _chosen_link(self) -> PairLink | None:
        return next((link for link in self.links() if link.number == self._chosen), None)

    def _pairs(self) -> list[ValidPair]:
        """Those that links use or are about to use."""
        return [links[0].pair for links in self._links.values()]

    def _deliver(self, link: PairLink, run: memoryview, segment_size: int) -> None:
        link.quic.receive_run(run, segment_size, self._loop.time())
        self.dirty.add(link)

    def _owner(
        self, connection: bytes, run: memoryview, segment_size: int, source: Address, local: Address
    ) -> PairLink | None:
        """The link that a run is for; a new one where it begins one."""
        links = self._links.get((local, source), [])
        if found := next((link for link in links if link.quic.owns(connection)), None):
            return found
        if not is_initial(run[:segment_size]):
            return None
        if ailing := next((link for link in links if self._is_ailing(link.number)), None):
            self.remove(ailing, "the other side began anew")
        return self._accept(run, segment_size, source, local)

    def _accept(
        self, data: memoryview, segment_size: int, source: Address, local: Address
    ) -> PairLink | None:
        first, key = data[:segment_size], (local, source)
        beside = len(self._links.get(key, ()))
        is_full = beside >= MAX_LINKS_OF_A_PAIR if beside else len(self._links) >= MAX_LINKS
        if self._client or is_full:
            return None
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
            size=self._larger.next_size(pair) or DATAGRAM_SIZE,
        )
        return self._add(pair, quic)

    def _keep_early(self, key: _Key, data: memoryview, segment_size: int) -> None:
        """The client may be a packet ahead of the reply that proves the pair to this side."""
        if key not in self._early and len(self._early) >= MAX_LINKS:
            return
        runs = self._early.setdefault(key, [])
        if len(runs) < MAX_EARLY:
            runs.append((bytes(data), segment_size))

    def _add(self, pair: ValidPair, quic: QuicLink) -> PairLink:
        link = PairLink(self, next(self._numbers), pair, quic)
        beside = self._links.setdefault(link.key, [])
        if beside:
            link.path = beside[0].path
        beside.append(link)
        if len(beside) == 1:
            self._on_open(pair)
        if self._client and self._tending is None:
            self._tending = self._loop.call_later(TEND_INTERVAL, self._tend)
        return link

    def _drop(self, link: PairLink, reason: str) -> None:
        beside = self._links[link.key]
        beside.remove(link)
        if not beside:
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
        up = [link for link in self.links() if link.is_up]
        chosen = next((link.pair for link in up if link.number == self._chosen), None)
        self._plan.chosen(chosen, [link.pair for link in up], self._loop.time())
        self._arm()

    def _look(self) -> None:
        """Open what is missed now: a pair that failed, and those that were not needed beside it."""
        if self._client:
            for pair in self._plan.in_turn(self._valid_pairs()):
                self.pair_valid(pair)

    def _tend(self) -> None:
        """Have links that are silent on pairs that answer ask at once, and open others beside them."""
        self._tending = self._loop.call_later(TEND_INTERVAL, self._tend) if self._links else None
        for link in self.links():
            if link.is_large or not link.is_stalled or not self._is_ailing(link.number):
                continue
            link.stalls += 1
            link.quic.nudge(self._loop.time())
            self.dirty.add(link)
            # The second time, and then less and less often.
            is_turn = link.stalls > 1 and link.stalls.bit_count() == 1
            if is_turn and all(other.is_up for other in self._links[link.key]):
                self.open(link.pair)
        self.flush()

    def _succeed(self, link: PairLink) -> None:
        """A link came up: what has stalled on its pair is over."""
        for other in list(self._links.get(link.key, ())):
            if self._client and other is not link and not other.is_large and other.is_stalled:
                self._drop(other, "a new link took its place")

    def _wake(self) -> None:
        self._timer = None
        now = self._loop.time()
        due = self._plan.due(now)
        better = None if self._chosen_link is None else self._chosen_link.pair
        for key in due.ending:
            for link in list(self._links.get(key, ())):
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
