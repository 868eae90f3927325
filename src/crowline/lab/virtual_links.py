"""The stand-in links of a virtual peer: `api/links.py` without an event loop, and without QUIC."""

from __future__ import annotations

from collections.abc import Callable

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.ice.pair import ValidPair
from crowline.lab.stand_in_link import LINK_ID_LENGTH, StandInLink, is_hello
from crowline.lab.virtual import Internet
from crowline.lab.virtual_pump import VirtualPump
from crowline.link.choice import MAX_LINKS, category_of, deserves_link
from crowline.link.events import LinkData, LinkEvent, LinkUp


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
        find_pair: Callable[[Address, Address], ValidPair | None],
        on_up: Callable[[VirtualLink], None],
        on_data: Callable[[VirtualLink, Buffer], None],
        on_down: Callable[[VirtualLink, str], None],
    ) -> None:
        self.send = send
        self._internet = internet
        self._is_client = is_client
        self._key = key
        self._find_pair = find_pair
        self._on_up, self._on_data, self._on_down = on_up, on_data, on_down
        self._links: dict[tuple[Address, Address], VirtualLink] = {}
        self._early: dict[tuple[Address, Address], Buffer] = {}
        self._numbers = 0

    def pair_valid(self, pair: ValidPair) -> None:
        """Open a link where this pair is better than those that links of its kind use."""
        if not self._is_client:
            early = self._early.pop(pair.key, None)
            if early is not None:
                self.packet(early, pair.remote.address, pair.base)
            return
        if deserves_link(pair, [link.pair for link in self._links.values()]):
            end = StandInLink.connect(
                destination=pair.remote.address,
                local=pair.base,
                key=self._key,
                link_id=self._internet.random.randbytes(LINK_ID_LENGTH),
                now=self._internet.now,
                rtt=pair.rtt,
            )
            self._add(pair, end).pump.flush()

    def packet(self, data: Buffer, source: Address, local: Address) -> None:
        """A datagram that is not STUN."""
        link = self._links.get((local, source)) or self._accept(data, source, local)
        if link is not None:
            link.end.receive(data, source, self._internet.now, local)
            link.pump.flush()

    def pair_lost(self, key: tuple[Address, Address], reason: str) -> None:
        """The agent gave the pair up."""
        link = self._links.pop(key, None)
        if link is not None:
            link.pump.close()
            self._on_down(link, reason)

    def on_event(self, link: VirtualLink, event: LinkEvent) -> None:
        if isinstance(event, LinkData):
            self._on_data(link, event.data)
        elif isinstance(event, LinkUp):
            self._on_up(link)
        elif self._links.get(link.pair.key) is link:
            del self._links[link.pair.key]
            self._on_down(link, event.reason)

    def _accept(self, data: Buffer, source: Address, local: Address) -> VirtualLink | None:
        if self._is_client or len(self._links) >= MAX_LINKS or not is_hello(data):
            return None
        pair = self._find_pair(local, source)
        if pair is None:
            # The client may be a packet ahead of the reply that proves the pair to this side.
            self._early[local, source] = data
            return None
        end = StandInLink.accept(data, destination=source, local=local, key=self._key, now=self._internet.now)
        return self._add(pair, end)

    def _add(self, pair: ValidPair, end: StandInLink) -> VirtualLink:
        self._numbers += 1
        link = self._links[pair.key] = VirtualLink(self, self._internet, self._numbers, pair, end)
        return link
