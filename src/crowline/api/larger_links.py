"""Links with larger packets beside those with the least: when one is opened, and when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from crowline.api.pair_link import PairLink
from crowline.ice.pair import ValidPair
from crowline.link.growth import EARLY, Growth


class Table(Protocol):
    """Of links; those of one pair are beside each other."""

    def beside(self, link: PairLink) -> list[PairLink]:
        """The link and the others of its pair."""

    def open(self, pair: ValidPair, size: int) -> None: ...

    def remove(self, link: PairLink, reason: str) -> None: ...


class LargerLinks:
    """Of one side. The TLS client, which is the one that `opens`, decides; the server only knows the sizes.

    `largest` says of a pair how large a datagram this machine lets out there, `is_ailing` of a link's number
    whether it carries nothing.
    """

    def __init__(
        self,
        table: Table,
        *,
        opens: bool,
        largest: Callable[[ValidPair], int],
        is_ailing: Callable[[int], bool],
    ) -> None:
        self._table = table
        self._opens = opens
        self._largest = largest
        self._is_ailing = is_ailing
        self._growth = Growth()
        self._loop = asyncio.get_running_loop()

    def start_over(self) -> None:
        """The network is another one."""
        self._growth.start_over()

    def next_size(self, pair: ValidPair) -> int | None:
        """Bytes of the packets that are worth a try on it."""
        return self._growth.next_size(pair.key, self._largest(pair))

    def came_up(self, link: PairLink) -> None:
        if self._opens and not link.is_large:
            self._watch_rate(link)

    def chosen(self, link: PairLink) -> None:
        """The streams flow by this link now."""
        self._shrink(link)
        self._grow_early(link)

    def carried(self, link: PairLink, *, is_chosen: bool) -> None:
        """So much that larger packets may be worth while though they come late."""
        if not self._may_grow(link):
            return
        seconds = self._loop.time() - link.marked_at
        if not is_chosen or not self._growth.is_worth(link.key, seconds, link.quic.least_rtt):
            self._watch_rate(link)
        elif size := self.next_size(link.pair):
            self._table.open(link.pair, size)

    def failed(self, link: PairLink, chosen: PairLink | None) -> None:
        """A link with larger packets never came up, or did so on this side only."""
        self._growth.failed(link.key, link.quic.asked_size, is_too_large=link.quic.is_too_large)
        for other in self._table.beside(link):
            self.came_up(other)
        if chosen is not None:
            self._grow_early(chosen)

    def _grow_early(self, link: PairLink) -> None:
        """A direct link may have to carry bulk soon."""
        if link.category != "direct" or link.carried >= EARLY or not self._may_grow(link):
            return
        if size := self._growth.early_size(link.key, self._largest(link.pair)):
            self._table.open(link.pair, size)

    def _may_grow(self, link: PairLink) -> bool:
        is_alone = not any(other.is_large for other in self._table.beside(link))
        return self._opens and link.is_up and is_alone

    def _watch_rate(self, link: PairLink) -> None:
        """See how long it takes to carry what makes larger packets worth while."""
        link.grow_at, link.marked_at = link.carried + self._growth.worth(link.key), self._loop.time()

    def _shrink(self, chosen: PairLink) -> None:
        """Where the least packets still come through and large ones do not, the path has become narrower."""
        if chosen.is_large or not self._opens:
            return
        for other in list(self._table.beside(chosen)):
            if other.is_large and other.has_been_up and self._is_ailing(other.number):
                self._growth.fell(other.key, other.quic.asked_size)
                self._watch_rate(chosen)
                self._table.remove(other, "its packets are too large for the path by now")
