"""Others behind the same translator: what they send takes ports between two of ours."""

from __future__ import annotations

from crowline.base.addresses import Address
from crowline.lab.behaviour import UDP
from crowline.lab.virtual import Internet
from crowline.lab.virtual_site import VirtualSite

_SOMEBODY = Address("192.0.2.77", 443)  # whom they talk to
_PORTS = (1024, 65535)


class VirtualStrangers:
    """New mappings at random times, `rate` a second on average, in the site's outermost translator."""

    def __init__(self, internet: Internet, site: VirtualSite, rate: float) -> None:
        self._internet = internet
        self._rate = rate
        ipv4 = next((each for each in site.addresses if ":" not in each), None)
        network = None if ipv4 is None else site.host.networks[ipv4]
        while network is not None and network.parent is not None and network.parent is not internet.root:
            network = network.parent
        self._boundary = None if network is None else network.boundary
        self._host = ipv4 or ""
        if self._boundary is not None and rate > 0:
            self._wait()

    def _wait(self) -> None:
        pause = self._internet.random.expovariate(self._rate)
        self._internet.call_at(self._internet.now + pause, self._send)

    def _send(self) -> None:
        assert self._boundary is not None
        # The translator never asks whether there is such a host.
        host = f"{self._host.rsplit('.', 1)[0]}.200"
        source = Address(host, self._internet.random.randint(*_PORTS))
        self._boundary.outbound(UDP, source, _SOMEBODY, self._internet.now)
        self._wait()
