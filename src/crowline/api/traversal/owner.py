"""Whom a traversal tells what it finds."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from crowline.api.path_reasons import PathReasons
from crowline.base.addresses import Address
from crowline.ice.pair import ValidPair


class TraversalOwner(Protocol):
    """What a traversal tells whoever began it."""

    def on_network_changed(self, gone: Collection[str]) -> None:
        """This machine's network is another one: streams that end at the addresses `gone` lead nowhere.

        Call `restart` as soon as the other side can be told.
        """

    def vouch(self, host: str) -> None:
        """Ask the hub whether it saw the other side at that IP address; `vouched` is called if so."""

    def on_drained(self) -> None:
        """A burst of datagrams is over."""

    def on_warning(self, sentence: str) -> None:
        """Something that a person should know."""


class PairOwner(Protocol):
    """Whoever has links on pairs."""

    reasons: PathReasons
    """Is told what makes or hinders a direct path."""

    def on_pair_valid(self, pair: ValidPair) -> None: ...

    def on_pair_nominated(self, pair: ValidPair) -> None:
        """Both sides agree on the pair, before anything else happens on it."""

    def on_pair_reclassified(self, pair: ValidPair) -> None: ...

    def on_pair_lost(self, pair: ValidPair, reason: str) -> None: ...

    def on_packets(self, data: memoryview, segment_size: int, source: Address, local: Address) -> None:
        """A run of datagrams that are not STUN."""

    def bases_in_use(self) -> Collection[Address]:
        """Those of the path that carries the streams."""

    def on_fading(self, end: Address) -> None:
        """What begins or ends at that address will be gone soon, and there is something in its place."""

    def on_restarted(self) -> None:
        """Either side's network changed: all pairs are looked for anew."""
