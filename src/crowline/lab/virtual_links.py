"""The stand-in links of a virtual peer: `api/links.py` without an event loop, and without QUIC."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.ice.pair import ValidPair
from crowline.lab.clock import Timer
from crowline.lab.stand_in_link import LINK_ID_LENGTH, StandInLink, is_hello
from crowline.lab.virtual import Internet
from crowline.lab.virtual_pump import VirtualPump
from crowline.link.choice import MAX_LINKS, category_of, rank_of
from crowline.link.events import LinkData, LinkDown, LinkEvent, LinkUp
from crowline.link.plan import LinkPlan


class VirtualLink:
    """One link with the pair below it; the session's carrier."""

    def __init__(
        self, links: VirtualLinks, internet: Internet, number: int, pair: ValidPair, end: StandInLink
    ) -> None:
        self.number = number
        self.pair = pair
        self.end = end
        self.pump: VirtualPump[Transmit, LinkEvent] = VirtualPump(
            internet, end, links.send, lambda event: links.on_event(self, event)
        )

    @property
    def category(self) -> str:
        return category_of(self.pair)

    @property
    def unanswered_since(self) -> float | None:
        return self.end.unanswered_since

    def room(self) -> int:
        return self.end.room()

    def send(self, data: Buffer, now: float) -> None:
        self.end.send(data, now)
        self.pump.flush()


class VirtualLinks:
    """All links, by the pair they use. The client opens them on valid pairs, the other side accepts."""

    def __init__(
        self,
        internet: Internet,
        *,
        is_client: bool,
        key: Secret,
        send: Callable[[Transmit], None],
        valid_pairs: Callable[[], Iterable[ValidPair]],
        on_open: Callable[[ValidPair], None],
        is_ailing: Callable[[int], bool],
        on_up: Callable[[VirtualLink], None],
        on_data: Callable[[VirtualLink, Buffer], None],
        on_down: Callable[[VirtualLink, str], None],
    ) -> None:
        self.send = send
        self._internet = internet
        self._is_client = is_client
        self._key = key
        self._valid_pairs = valid_pairs
        self._on_open, self._is_ailing = on_open, is_ailing
        self._on_up, self._on_data, self._on_down = on_up, on_data, on_down
        self._links: dict[tuple[Address, Address], VirtualLink] = {}
        self._early: dict[tuple[Address, Address], Buffer] = {}
        self._plan = LinkPlan()
        self._chosen: int | None = None
        self._numbers = 0
        self._timer: Timer | None = None

    def network_changed(self) -> None:
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
        return [link.number for link in self._links.values() if self.is_fading(link.pair)]

    def is_fading(self, pair: ValidPair) -> bool:
        """Whether a link on it is left for any other."""
        return self._plan.is_fading(pair)

    def pair_valid(self, pair: ValidPair) -> None:
        """Open a link where the plan wants one; by TCP, on the pair that both sides agreed on."""
        if not self._is_client:
            early = self._early.pop(pair.key, None)
            if early is not None:
                self.packet(early, pair.remote.address, pair.base)
            return
        if pair.transport.is_stream:
            if pair.nominated and pair.key not in self._links:
                self._connect(pair)
            return
        used = [link.pair for link in self._links.values()]
        ailing = [link.pair.key for link in self._links.values() if self._is_ailing(link.number)]
        if not self._plan.wants(pair, used, ailing, self._internet.now):
            return
        if self._plan.must_answer(pair, self._internet.now):
            self._on_open(pair)
            self._arm()
        else:
            self._connect(pair)

    def pair_reclassified(self, pair: ValidPair, rerank: Callable[[int, int, int, float], None]) -> None:
        """`pair` is of another kind than was thought, and so is a link on it: as `Session.rerank`."""
        link = self._links.get(pair.key)
        if link is not None and link.pair is pair:
            rerank(link.number, rank_of(pair), pair.priority, self._internet.now)
        self._settle()
        self._look()

    def packet(self, data: Buffer, source: Address, local: Address) -> None:
        """A datagram that is not STUN."""
        link = self._links.get((local, source))
        if link is not None and self._is_ailing(link.number) and is_hello(data):
            self._remove(link, "the other side began anew")
            link = None
        link = link or self._accept(data, source, local)
        if link is not None:
            link.end.receive(data, source, self._internet.now, local)
            link.pump.flush()

    def pair_lost(self, key: tuple[Address, Address], reason: str) -> None:
        """The agent gave the pair up."""
        if link := self._links.get(key):
            self._remove(link, reason)

    def on_event(self, link: VirtualLink, event: LinkEvent) -> None:
        if isinstance(event, LinkData):
            self._on_data(link, event.data)
        elif isinstance(event, LinkUp):
            self._plan.up(link.pair, self._internet.now)
            self._on_up(link)
            self._settle()
        elif isinstance(event, LinkDown):
            self._remove(link, event.reason)

    def _connect(self, pair: ValidPair) -> None:
        end = StandInLink.connect(
            destination=pair.remote.address,
            local=pair.base,
            key=self._key,
            link_id=self._internet.random.randbytes(LINK_ID_LENGTH),
            now=self._internet.now,
            rtt=pair.rtt,
        )
        self._add(pair, end).pump.flush()

    def _accept(self, data: Buffer, source: Address, local: Address) -> VirtualLink | None:
        if self._is_client or len(self._links) >= MAX_LINKS or not is_hello(data):
            return None
        pair = next((pair for pair in self._valid_pairs() if pair.key == (local, source)), None)
        if pair is None:
            # The client may be a packet ahead of the reply that proves the pair to this side.
            self._early[local, source] = data
            return None
        end = StandInLink.accept(data, destination=source, local=local, key=self._key, now=self._internet.now)
        return self._add(pair, end)

    def _add(self, pair: ValidPair, end: StandInLink) -> VirtualLink:
        self._numbers += 1
        link = self._links[pair.key] = VirtualLink(self, self._internet, self._numbers, pair, end)
        self._on_open(pair)
        return link

    def _remove(self, link: VirtualLink, reason: str) -> None:
        if self._links.get(link.pair.key) is link:
            self._plan.ended(link.pair, self._internet.now)
            self._drop(link, reason)

    def _drop(self, link: VirtualLink, reason: str) -> None:
        del self._links[link.pair.key]
        self._on_down(link, reason)
        link.end.close(self._internet.now)
        link.pump.flush()
        link.pump.close()
        self._settle()

    # --- what the client plans --------------------------------------------------------------------------

    def _settle(self) -> None:
        if not self._is_client:
            return
        up = [link for link in self._links.values() if link.end.is_up]
        chosen = next((link.pair for link in up if link.number == self._chosen), None)
        self._plan.chosen(chosen, [link.pair for link in up], self._internet.now)
        self._arm()

    def _look(self) -> None:
        if self._is_client:
            for pair in self._plan.in_turn(self._valid_pairs()):
                self.pair_valid(pair)

    def _wake(self) -> None:
        now = self._internet.now
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
        self._timer = None if at is None else self._internet.call_at(at, self._wake)
