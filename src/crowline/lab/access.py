"""How a place is joined to the laboratory's router: delay, impairments in each direction, a firewall."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from crowline.base.addresses import Address
from crowline.lab.behaviour import TCP, UDP
from crowline.lab.impairment import Impairment, Line
from crowline.lab.packet import Header
from crowline.lab.profile import Firewall

HTTPS_PORT = 443
PROXY_PORT = 3128  # where HTTP proxies commonly listen


@dataclass(slots=True, eq=False)
class Access:
    """`delay` is one way, in seconds. `proxy` is the one host that `Firewall.PROXY_ONLY` lets out to.

    `up` and `down` are None where the way does nothing but take time: that is the fast path.
    """

    delay: float = 0.0
    firewall: Firewall = Firewall.NONE
    proxy: str = ""
    up: Line | None = field(default=None, init=False)
    down: Line | None = field(default=None, init=False)

    def impair(self, how: Impairment, chance: random.Random, counters: Counter[str]) -> None:
        """Treat packets in both directions like this from now on, delay included."""
        self.delay = how.delay
        if how == Impairment(delay=how.delay):
            self.up = self.down = None
            return
        self.up, self.down = Line(how, chance, counters), Line(how, chance, counters)

    def lets_out(self, header: Header) -> bool:
        """Whether the firewall lets this packet leave."""
        return self._passes(header.protocol, header.destination)

    def lets_in(self, header: Header) -> bool:
        """Whether this could answer a packet that was let out; what was asked for, translators know."""
        return self._passes(header.protocol, header.source)

    def _passes(self, protocol: int, remote: Address) -> bool:
        if self.firewall is Firewall.NONE:
            return True
        if self.firewall is Firewall.UDP_BLOCKED:
            return protocol != UDP
        if protocol != TCP:
            return False
        if self.firewall is Firewall.HTTPS_ONLY:
            return remote.port == HTTPS_PORT
        return remote.host == self.proxy and remote.port == PROXY_PORT
