"""Transport addresses, and the one policy that says which of them may be talked to."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """An IP address in its canonical text form and a port, 0 to 65535.

    Build it with `Address.parse` from text of unknown form; the constructor trusts its caller.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, host: str, port: int) -> Address:
        """Canonicalise `host`. Raises `ValueError` for a name, a zone id or a port out of range."""
        if "%" in host:
            raise ValueError("an address with a zone id is not a transport address")
        if not 0 <= port <= 65535:
            raise ValueError(f"port {port} is out of range")
        return cls(str(ipaddress.ip_address(host)), port)

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host

    @property
    def packed(self) -> bytes:
        """The IP address in network byte order: 4 or 16 bytes."""
        return ipaddress.ip_address(self.host).packed

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"
