"""This machine's addresses, and what follows from them, now and when the network is another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from crowline.api.allowed import Allowed
from crowline.api.options import Options
from crowline.api.traversal.candidate_names import CandidateNames
from crowline.api.traversal.translation import Translation
from crowline.net.interfaces import local_addresses, usable_hosts

if TYPE_CHECKING:
    from crowline.net.network import NetworkChange
    from crowline.net.network_watch import NetworkWatch


class Surroundings:
    """`translation` is the way from IPv6 to IPv4, `allowed` judges addresses, `names` stand for hidden ones.

    `loopback`: the other side may be on this machine.
    """

    def __init__(self, options: Options, *, loopback: bool) -> None:
        self.addresses = local_addresses(loopback=loopback)
        self.translation = Translation(self.addresses)
        self.allowed = Allowed(options, self.addresses, loopback=loopback, meant=self.translation.meant)
        self.names = CandidateNames(self.addresses, hides=options.hide_addresses)
        self._loopback = loopback
        self._watch: NetworkWatch | None = None

    def watch(self, on_change: Callable[[NetworkChange], None]) -> None:
        """Hear of changes from now on; call `follow` for each."""
        # Not needed until a server has answered.
        from crowline.net.network_watch import NetworkWatch

        self._watch = NetworkWatch(on_change, on_prefix=self.translation.learn)

    def follow(self, change: NetworkChange) -> set[str]:
        """Look at the addresses anew; all that packets can be sent from now."""
        usable = usable_hosts()
        self.addresses = [each for each in local_addresses(loopback=self._loopback) if each in usable]
        self.allowed.addresses = self.addresses
        self.names.follow(self.addresses)
        self.translation.follow(self.addresses, change.left)
        return usable

    def close(self) -> None:
        """Follow the network no more."""
        self.names.close()
        self.translation.close()
        if self._watch is not None:
            self._watch.close()
