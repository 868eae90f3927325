"""Who has which address in the kernel laboratory: global unicast outside, private ranges inside.

servers   44.S.0.N          2a01:100:0:S::N
sites     44.100.I.1        2a01:100:I::/64     (a translator's outside address; the hosts' own prefix)
proxies   44.100.I.2        -
public    44.100.I.10 …     2a01:100:I::10 …    (hosts of a site without translator)
carriers  100.64.I.0/24     2a01:100:I:1::/64   (between two translators; 100.65 between the next two)
inside    192.168.I.10 …, or 10.I.7.10 … at every second site
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_SITES = 90  # the first four decimal digits of an IPv6 group, and one byte of IPv4
MOST_HOSTS = 80  # numbers 10 to 89, written the same in both families
_FIRST_HOST = 10


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """The addresses of the site with that number, 1 to `MOST_SITES`."""

    number: int
    hosts: int
    with_ipv6: bool

    @property
    def outside(self) -> str:
        return f"44.100.{self.number}.1"

    @property
    def proxy(self) -> str:
        return f"44.100.{self.number}.2"

    def between(self, layer: int) -> tuple[str, str]:
        """The inner and the outer translator's IPv4 addresses where they meet; the innermost two at 0."""
        return f"100.{64 + layer}.{self.number}.2", f"100.{64 + layer}.{self.number}.1"

    def between_ipv6(self, layer: int) -> tuple[str, str]:
        """The same in IPv6."""
        return f"2a01:100:{self.number}:{layer + 1}::2", f"2a01:100:{self.number}:{layer + 1}::1"

    @property
    def gateway(self) -> str:
        """The gateway's inside IPv4 address."""
        return self._inside(1)

    @property
    def gateway_ipv6(self) -> str:
        """The gateway's IPv6 address on the hosts' link; empty without IPv6."""
        return f"2a01:100:{self.number}::1" if self.with_ipv6 else ""

    @property
    def prefix_ipv6(self) -> str:
        """The prefix of the hosts' link."""
        return f"2a01:100:{self.number}::/64"

    @property
    def inside_bits(self) -> int:
        """The length of the inside IPv4 prefix."""
        return 24

    @property
    def ipv6(self) -> list[str]:
        """One address for each host; empty without IPv6."""
        return [f"2a01:100:{self.number}::{n}" for n in self._numbers] if self.with_ipv6 else []

    @property
    def inside(self) -> list[list[str]]:
        """The addresses of each host behind the translator."""
        return [[self._inside(n), *self.ipv6[i : i + 1]] for i, n in enumerate(self._numbers)]

    @property
    def public(self) -> list[list[str]]:
        """The addresses of each host where there is no translator."""
        return [[f"44.100.{self.number}.{n}", *self.ipv6[i : i + 1]] for i, n in enumerate(self._numbers)]

    @property
    def _numbers(self) -> range:
        return range(_FIRST_HOST, _FIRST_HOST + self.hosts)

    def _inside(self, host: int) -> str:
        return f"192.168.{self.number}.{host}" if self.number % 2 else f"10.{self.number}.7.{host}"


def server_addresses(number: int, count: int) -> list[str]:
    """`count` IPv4 and `count` IPv6 addresses for the server with that number, from 1."""
    return [f"44.{number}.0.{n}" for n in range(1, count + 1)] + [
        f"2a01:100:0:{number}::{n}" for n in range(1, count + 1)
    ]
