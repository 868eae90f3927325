"""A gateway's description: which of the services that map ports it has, and where they are asked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from crowline.portmap.upnp.element import Element, MalformedUpnp, parse
from crowline.portmap.upnp.gateway_url import GatewayUrl

MAX_SERVICES = 8
"""Services that are believed; a router with several lines has one for each."""


class ServiceType(Enum):
    """The services that open ports, the better ones first."""

    WAN_IP_2 = "urn:schemas-upnp-org:service:WANIPConnection:2"
    WAN_IP_1 = "urn:schemas-upnp-org:service:WANIPConnection:1"
    WAN_PPP_1 = "urn:schemas-upnp-org:service:WANPPPConnection:1"
    IPV6_FIREWALL_1 = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1"

    @property
    def maps_ports(self) -> bool:
        """Whether it maps ports; the other opens pinholes."""
        return self is not ServiceType.IPV6_FIREWALL_1

    @property
    def chooses_ports(self) -> bool:
        """Whether it has AddAnyPortMapping."""
        return self is ServiceType.WAN_IP_2


@dataclass(frozen=True, slots=True)
class Service:
    """A service, and the URL to which its actions are posted."""

    type: ServiceType
    control: GatewayUrl


def parse_description(document: bytes, location: GatewayUrl) -> tuple[Service, ...]:
    """The services of the description found at `location`, the better ones first; maybe none.

    A control URL that does not lead to the gateway is left out. Raises `MalformedUpnp` for what is no
    description.
    """
    root = parse(document)
    if root.name != "root":
        raise MalformedUpnp("That document is no description of a device.")
    base = _base(root, location)
    found: list[Service] = []
    for element in root.walk():
        service = _service(element, base) if element.name == "service" else None
        if service is not None and service not in found:
            found.append(service)
    order = list(ServiceType)
    return tuple(sorted(found, key=lambda each: order.index(each.type))[:MAX_SERVICES])


def _base(root: Element, location: GatewayUrl) -> GatewayUrl:
    """UPnP 1.0's URLBase; routers that give one of another host mean where they were found."""
    text = root.child_text("urlbase")
    try:
        return GatewayUrl.parse(text, location.address.host)
    except MalformedUpnp:
        return location


def _service(element: Element, base: GatewayUrl) -> Service | None:
    kind = _TYPES.get(element.child_text("servicetype").lower())
    control = element.child_text("controlurl")
    if kind is None or not control:
        return None
    try:
        return Service(kind, base.resolve(control))
    except MalformedUpnp:
        return None


_TYPES = {kind.value.lower(): kind for kind in ServiceType}
