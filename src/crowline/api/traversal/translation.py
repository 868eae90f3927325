"""IPv4 hosts as a machine without IPv4 reaches them: behind its network's NAT64 (RFC 6146, RFC 6052)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from crowline.base.addresses import Address
from crowline.ice.candidate import Candidate

if TYPE_CHECKING:
    from crowline.base.nat64 import Nat64Prefix, Pref64
    from crowline.net.nat64 import Nat64Discovery, Resolve

# Seconds after which `seek` asks again, each more than a silence is remembered for.
RETRY_DELAYS = (6.0, 12.0)


class Translation:
    """Finds the prefix where this machine has IPv6 and no IPv4, and does nothing elsewhere.

    A machine that translates by itself (RFC 6877) has an IPv4 address and needs none of this.
    """

    def __init__(self, hosts: Iterable[str], resolve: Resolve | None = None) -> None:
        self._hosts = frozenset(hosts)
        self._resolve = resolve
        self._discovery: Nat64Discovery | None = None
        self._prefix: Nat64Prefix | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether IPv4 hosts can be reached in no other way."""
        return bool(self._hosts) and all(":" in host for host in self._hosts)

    def follow(self, hosts: Iterable[str], left: Iterable[int] = ()) -> None:
        """This machine has these addresses now, and the interfaces `left` are on other networks: `find` the
        prefix again.
        """
        self._hosts = frozenset(hosts)
        self._prefix = None
        if self._discovery is not None:
            for interface in left:
                self._discovery.leave(interface)

    def learn(self, said: Pref64, interface: int) -> None:
        """A router has said so."""
        self._open().learn(said, interface)

    async def find(self) -> bool:
        """Whether a prefix is known; asks the network's resolver, for a second at most."""
        if self.is_wanted:
            hosts = self._hosts
            found = await self._open().prefixes(hosts)
            if found and hosts == self._hosts:
                self._prefix = found[0]
        return self._prefix is not None

    async def seek(self) -> bool:
        """`find`, and again after a while: a network's resolver may be ready later than its addresses."""
        hosts = self._hosts
        for delay in RETRY_DELAYS:
            if await self.find() or not self.is_wanted:
                return self._prefix is not None
            await asyncio.sleep(delay)
            if hosts != self._hosts:
                return False
        return await self.find()

    def towards(self, address: Address) -> Address:
        """Where to send what is meant for `address`."""
        if self._prefix is None or address.is_ipv6:
            return address
        return Address(self._prefix.synthesize(address.host), address.port)

    def meant(self, address: Address) -> Address:
        """What `address` stands for: the one that is to be judged."""
        host = self._prefix.extract(address.host) if self._prefix is not None else None
        return address if host is None else Address(host, address.port)

    def checkable(self, remotes: Iterable[Candidate]) -> list[Candidate]:
        """The IPv4 ones among the other side's candidates as they can be checked from here."""
        if self._prefix is None:
            return []
        found = [each for each in remotes if not each.address.is_ipv6]
        return [replace(each, address=self.towards(each.address)) for each in found]

    def close(self) -> None:
        """Nobody is asked any more."""
        self._hosts = frozenset()
        if self._discovery is not None:
            self._discovery.close()

    def _open(self) -> Nat64Discovery:
        if self._discovery is None:
            # Most networks have IPv4, and need none of it.
            from crowline.net.nat64 import Nat64Discovery

            self._discovery = Nat64Discovery(self._resolve)
        return self._discovery
