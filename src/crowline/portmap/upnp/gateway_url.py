"""A URL of which it is known that it leads to the gateway and nowhere else."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from crowline.base.addresses import Address
from crowline.portmap.upnp.element import MalformedUpnp

MAX_URL = 1024
"""Characters of a URL; real ones have less than 100."""


@dataclass(frozen=True, slots=True)
class GatewayUrl:
    """Where to connect, and what to ask for there: an absolute path with its query."""

    address: Address
    target: str

    def __str__(self) -> str:
        return f"http://{self.address}{self.target}"

    @classmethod
    def parse(cls, text: str, gateway: str) -> GatewayUrl:
        """`gateway` is an IP address in canonical form.

        Raises `MalformedUpnp` for anything but plain HTTP to that address by number: a name could lead
        elsewhere the next time it is looked up.
        """
        _check_characters(text)
        try:
            parts = urlsplit(text)
            host, port = parts.hostname or "", parts.port or 80
            # A zone id says which of our own interfaces leads to a link-local address.
            address = Address(str(ipaddress.ip_address(host.partition("%")[0])), port)
        except ValueError:
            raise MalformedUpnp("The router's URL names no IP address.") from None
        if parts.scheme != "http" or "@" in parts.netloc:
            raise MalformedUpnp("The router's URL is not one of plain HTTP.")
        if address.host != gateway:
            raise MalformedUpnp("The router's URL leads to another host.")
        query = f"?{parts.query}" if parts.query else ""
        return cls(address, f"{parts.path or '/'}{query}")

    def resolve(self, reference: str) -> GatewayUrl:
        """What `reference`, absolute or relative to this URL, leads to. Raises `MalformedUpnp`."""
        _check_characters(reference)
        try:
            joined = urljoin(str(self), reference)
        except ValueError:
            raise MalformedUpnp("The router's URL cannot be resolved.") from None
        return GatewayUrl.parse(joined, self.address.host)


def _check_characters(text: str) -> None:
    """Blanks and control characters would end the request line in which the URL is sent."""
    if len(text) > MAX_URL or not all("!" <= character <= "~" for character in text):
        raise MalformedUpnp("The router's URL is too long, or has characters that no URL has.")
