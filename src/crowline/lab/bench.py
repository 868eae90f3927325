"""What the self-test asks of a world: two hosts at one site, two servers outside, packets, and time.

`lab/virtual_bench.py` has it in virtual time; the kernel has it too. The self-test (`lab/selftest.py`) sees
nothing but this, so the same probes judge every world.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, Protocol

from crowline.base.addresses import Address


class Arrival(NamedTuple):
    """A datagram as its receiver saw it."""

    data: bytes
    source: Address


class Answer(Enum):
    """What a TCP SYN from outside met."""

    SILENCE = "silence"
    ACCEPTED = "accepted"
    RST = "rst"
    ICMP = "icmp"


class Endpoint(Protocol):
    """A UDP socket that stays open as long as its bench."""

    @property
    def local(self) -> Address: ...

    def send(self, data: bytes, to: Address) -> None:
        """Send now. What the local system refuses (no route, no family) is lost like anything else."""

    def take(self) -> list[Arrival]:
        """What has arrived since the last call, in order."""


class Bench(Protocol):
    """A site under test. Hosts and servers are numbered 0 and 1; every server has IPv4 and IPv6."""

    @property
    def external_host(self) -> str:
        """The site's outermost outside IPv4 address; without translation, that of host 0."""

    @property
    def now(self) -> float:
        """Seconds of the translators' time: not always those of the caller's."""

    def inside(self, host: int, port: int, *, ipv6: bool = False) -> Endpoint | None:
        """A socket bound to that port of an inside host, ``None`` where the host lacks the family.

        A host of a NAT64 site has a socket for "IPv4" all the same: it is one of IPv6, for `named` addresses.
        """

    def outside(self, server: int, port: int, *, ipv6: bool = False) -> Endpoint:
        """A socket bound to that port of a server; the same one for the same arguments."""

    def named(self, address: Address) -> Address:
        """How an inside host names an IPv4 address outside: as it is, or synthesized for NAT64 (RFC 6052)."""

    def settle(self) -> None:
        """Wait until everything on its way has arrived or never will."""

    def pass_time(self, seconds: float) -> None:
        """Let that much of the translators' time pass."""

    def connect_out(self, host: int, port: int, server: int, server_port: int) -> Address | None:
        """Open a TCP connection from that inside port (several may share it) to a server that listens there
        from now on: the source that the server saw, ``None`` when no connection came about. It stays open."""

    def connect_in(self, server: int, to: Address) -> Answer:
        """Send a TCP SYN from a fresh port of a server and say what came back within a second or so."""
