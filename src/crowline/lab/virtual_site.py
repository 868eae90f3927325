"""One host behind everything that a `Profile` describes, built in a virtual internet."""

from __future__ import annotations

from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.lab.address_plan import AddressPlan
from crowline.lab.boundary import Boundary, Gate, Nat64, Passage, StatefulFirewall, Translation
from crowline.lab.nat import Nat
from crowline.lab.network import Host, Network, Place
from crowline.lab.port_mapping_service import PORT
from crowline.lab.profile import Firewall, Ipv6, PortMapping, Profile
from crowline.lab.router_temper import PLAIN, Temper
from crowline.lab.virtual import Internet
from crowline.lab.virtual_gateway import VirtualGateway

PROXY_PORT = 3128


@dataclass(frozen=True, slots=True)
class VirtualSite:
    """A host with its addresses, where it enters the internet, and the host of the site's HTTP proxy.

    `router` is the gateway that opens ports, in the profiles that have one.
    """

    profile: Profile
    host: Host
    addresses: tuple[str, ...]
    place: Place
    proxy: Host | None = None
    router: VirtualGateway | None = None

    @property
    def gateway(self) -> Address | None:
        """Where NAT-PMP and PCP are spoken, if they are."""
        return Address(self.router.host, PORT) if self.router and self.router.service else None

    def address_like(self, other: str) -> str | None:
        """The host's own address of the family of `other`."""
        return next((each for each in self.addresses if (":" in each) == (":" in other)), None)


def build_site(internet: Internet, profile: Profile, number: int, *, temper: Temper = PLAIN) -> VirtualSite:
    """The site with that number of the address plan, the same addresses as in the kernel laboratory.

    `temper` is that of its gateway, where it opens ports.
    """
    with_ipv6 = profile.ipv6 is not Ipv6.NONE
    plan = AddressPlan(number, hosts=2, with_ipv6=with_ipv6)
    own, proxy = (plan.inside if profile.nats else plan.public)[:2]
    if profile.ipv6 is Ipv6.NAT64:
        return _build_nat64(internet, profile, plan)
    network = _build_ipv4(internet, profile, plan, proxy[0])
    host = internet.host(own[0], network)
    router = _add_port_mapping(internet, profile, network, plan.gateway, temper)
    if with_ipv6:
        _add_ipv6(internet, profile, host, own[1], proxy[1])
    place = _outermost(network, host)
    if with_ipv6:
        internet.join_places(_outermost(host.networks[own[1]], host), place)
    through = None
    if profile.firewall is Firewall.PROXY_ONLY:
        through = internet.host(proxy[0], network)
    return VirtualSite(profile, host, tuple(own), place, through, router)


def _build_ipv4(internet: Internet, profile: Profile, plan: AddressPlan, proxy: str) -> Network:
    """The layers from the outside in; the innermost has the firewall."""
    network = internet.root
    for layer in range(len(profile.nats) - 1, -1, -1):
        is_outermost = layer == len(profile.nats) - 1
        # Between two translators addresses are those that carriers share (RFC 6598).
        outside = plan.outside if is_outermost else f"100.64.{plan.number}.{layer + 1}"
        boundary: Boundary = Translation(Nat(profile.nats[layer], outside, internet.random.randbytes))
        if layer == 0:
            boundary = _guarded(boundary, profile.firewall, proxy)
        network = internet.network(boundary, [outside], network)
    if not profile.nats and profile.firewall is not Firewall.NONE:
        addresses = [each[0] for each in plan.public]
        network = internet.network(_guarded(Passage(), profile.firewall, proxy), addresses)
    return network


def _add_port_mapping(
    internet: Internet, profile: Profile, network: Network, host: str, temper: Temper
) -> VirtualGateway | None:
    """A gateway that opens ports, at the translator's own inside address."""
    if profile.port_mapping is PortMapping.NONE or network.boundary is None:
        return None
    boundary = network.boundary.boundary if isinstance(network.boundary, Gate) else network.boundary
    if not isinstance(boundary, Translation):
        return None
    return VirtualGateway(internet, network, boundary.nat, host, profile.port_mapping, temper)


def _add_ipv6(internet: Internet, profile: Profile, host: Host, address: str, proxy: str) -> None:
    boundary: Boundary | None = StatefulFirewall() if profile.ipv6 is Ipv6.FIREWALLED else None
    if profile.firewall is not Firewall.NONE:
        boundary = _guarded(boundary or Passage(), profile.firewall, proxy)
    network = None if boundary is None else internet.network(boundary, [address])
    internet.add_address(host, address, network)


def _build_nat64(internet: Internet, profile: Profile, plan: AddressPlan) -> VirtualSite:
    nat = Nat(profile.nats[0], plan.outside, internet.random.randbytes, nat64=True)
    own, proxy = plan.ipv6[:2]
    boundary = _guarded(Nat64(nat), profile.firewall, proxy)
    network = internet.network(boundary, [plan.outside, own, proxy])
    host = internet.host(own, network)
    through = internet.host(proxy, network) if profile.firewall is Firewall.PROXY_ONLY else None
    return VirtualSite(profile, host, (own,), network, through)


def _guarded(boundary: Boundary, firewall: Firewall, proxy: str) -> Boundary:
    return boundary if firewall is Firewall.NONE else Gate(boundary, firewall, proxy)


def _outermost(network: Network, host: Host) -> Place:
    """Where the host enters the internet."""
    place: Place = host
    while network.parent is not None:
        place, network = network, network.parent
    return place
