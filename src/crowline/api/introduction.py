"""What follows from the other side's description of itself: checks that seek pairs, and links on those."""

from __future__ import annotations

from collections.abc import Callable

from crowline.api.carriers import Carriers
from crowline.api.links import LinkSecrets
from crowline.api.pair_links import Link, transport_of, trust_in
from crowline.api.traversal.traversal import Traversal
from crowline.base.machine import Buffer
from crowline.base.secrets import Secret
from crowline.link.identity import Identity
from crowline.rendezvous.keys import derive
from crowline.rendezvous.signals import Description


class Introduction:
    """`identity` is this side's; `on_data` is called with what comes by each link, and the link's number."""

    def __init__(
        self,
        carriers: Carriers,
        traversal: Traversal,
        identity: Identity,
        *,
        is_client: bool,
        on_data: Callable[[int, Buffer], None],
    ) -> None:
        self._carriers = carriers
        self._traversal = traversal
        self._identity = identity
        self._is_client = is_client
        self._on_data = on_data

    def hear(self, description: Description, key: Secret) -> bool:
        """Take it, the first one or a later one; False where it makes no sense. `key`: the meeting's."""
        fingerprint = bytes.fromhex(description.fingerprint)
        if (pairs := self._carriers.pairs) is not None:
            if fingerprint == pairs.peer_fingerprint:
                self._traversal.set_remote(description)
            return True
        trust = trust_in(description, self._identity, is_client=self._is_client)
        self._carriers.open_pairs(
            LinkSecrets(self._identity, fingerprint, derive(key, "client-auth")),
            trust,
            self._traversal,
            client=self._is_client,
            on_up=self._on_link_up,
            on_data=self._on_data,
        )
        self._traversal.open_tcp(usable=trust is not None)
        if not self._traversal.set_remote(description):
            return False
        # Where the other side was known to the traversal before it was here, there may be some already.
        for pair in self._traversal.valid_pairs():
            self._carriers.on_pair_valid(pair)
        return True

    def _on_link_up(self, link: Link) -> None:
        self._carriers.link_up(link, transport_of(link, self._traversal.transport_of))
