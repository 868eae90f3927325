"""Builds a site of the kernel laboratory from its profile, from the outermost translator inwards.

Linux is a translator where it can be and everything inside of it is Linux too; the wire is the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from crowline.base.errors import LocalProblem
from crowline.lab import linux_nat
from crowline.lab.address_plan import AddressPlan
from crowline.lab.behaviour import NatBehaviour
from crowline.lab.kernel import FORWARDING, await_running, configure, ip, load_rules, set_kernel_parameters
from crowline.lab.places import Host, Site, Translator
from crowline.lab.profile import Ipv6, PortMapping, Profile


class Ground(Protocol):
    """What a site is built on. Names of places on the wire are those of namespaces, or begin like them."""

    def namespace(self, name: str) -> str:
        """A new namespace; gives its whole name."""

    def add_port(
        self,
        namespace: str,
        device: str,
        hosts: Sequence[str],
        *,
        outer: str = "",
        firewalled: bool = False,
    ) -> None:
        """A tunnel device there, on the wire by the namespace's name."""

    def add_gateway(
        self,
        name: str,
        external: str = "",
        behaviour: NatBehaviour | None = None,
        *,
        outer: str = "",
        nat64: bool = False,
        own: str = "",
        port_mapping: PortMapping = PortMapping.NONE,
    ) -> str:
        """A gateway on the wire; gives its whole name."""


@dataclass(frozen=True, slots=True)
class BuiltSite:
    """A site, and what its owner must know to work on it.

    `borders` are its places on the wire that reach the router. `gateways` are the namespaces whose kernel
    translates, the innermost first.
    """

    site: Site
    borders: tuple[str, ...]
    gateways: tuple[str, ...]


def choose_translators(profile: Profile, *, with_kernel: bool) -> tuple[Translator, ...]:
    """Who can be each translator, the innermost first."""
    chosen: list[Translator] = []
    for behaviour in profile.nats:
        is_kernel = with_kernel and "user" not in chosen and linux_nat.is_linux(behaviour)
        chosen.append("kernel" if is_kernel and profile.ipv6 is not Ipv6.NAT64 else "user")
    return tuple(chosen)


def build_site(
    ground: Ground, name: str, profile: Profile, plan: AddressPlan, *, with_kernel: bool
) -> BuiltSite:
    """Raises `LocalProblem` where the system refuses."""
    return _Builder(ground, name, profile, plan, choose_translators(profile, with_kernel=with_kernel)).build()


@dataclass(slots=True)
class _Builder:
    ground: Ground
    name: str
    profile: Profile
    plan: AddressPlan
    translators: tuple[Translator, ...]
    borders: list[str] = field(default_factory=list)
    gateways: list[str] = field(default_factory=list)
    on_wire: str = ""  # the innermost gateway of the wire so far

    def build(self) -> BuiltSite:
        for layer in reversed(range(len(self.translators))):
            if self.translators[layer] == "kernel":
                self._add_kernel_gateway(layer)
            else:
                self._add_wire_gateway(layer)
        if not self.translators and self.profile.ipv6 is Ipv6.FIREWALLED:
            self._enter_wire_gateway(self.ground.add_gateway(f"{self.name}-firewall"))
        hosts = tuple(self._add_host(number) for number in range(self.plan.hosts))
        for gateway in self.gateways:
            await_running(gateway, ["wan", "lan"])
        for host in hosts if self.gateways else ():
            await_running(host.namespace, ["eth0"])
        outside = (self.plan.outside,) if self.translators else tuple(host.addresses[0] for host in hosts)
        site = Site(self.name, self.profile, self.translators, outside, hosts)
        return BuiltSite(site, tuple(self.borders), tuple(reversed(self.gateways)))

    @property
    def _firewalled(self) -> bool:
        return self.profile.ipv6 is Ipv6.FIREWALLED

    def _external(self, layer: int) -> str:
        outermost = layer == len(self.translators) - 1
        return self.plan.outside if outermost else self.plan.between(layer)[0]

    def _add_wire_gateway(self, layer: int) -> None:
        service = self.profile.port_mapping if layer == 0 else PortMapping.NONE
        if service is PortMapping.UPNP:
            raise LocalProblem(
                "Only a gateway that Linux can be has UPnP.",
                hint="Install what is missing, apt-get install nftables miniupnpd, or use NAT-PMP or PCP.",
            )
        self._enter_wire_gateway(
            self.ground.add_gateway(
                f"{self.name}-nat{layer}",
                self._external(layer),
                self.profile.nats[layer],
                outer=self.on_wire,
                nat64=self.profile.ipv6 is Ipv6.NAT64,
                own=self.plan.gateway if service is not PortMapping.NONE else "",
                port_mapping=service,
            )
        )

    def _enter_wire_gateway(self, name: str) -> None:
        if not self.on_wire:
            self.borders.append(name)
        self.on_wire = name

    def _add_kernel_gateway(self, layer: int) -> None:
        namespace = self.ground.namespace(self.name if layer == 0 else f"{self.name}-carrier{layer}")
        external = self._external(layer)
        set_kernel_parameters(namespace, FORWARDING)
        if self.gateways:
            self._join_carrier(namespace, layer)
        else:
            self.ground.add_port(namespace, "wan", [external, *self.plan.ipv6], outer=self.on_wire)
            configure(namespace, "wan", [external])
            if self.plan.ipv6:
                ip(namespace, "route add ::/0 dev wan")
            if not self.on_wire:
                self.borders.append(namespace)
        self._add_bridge(namespace, layer)
        behaviour = self.profile.nats[layer]
        maps_ports = layer == 0 and self.profile.port_mapping is not PortMapping.NONE
        firewalled = layer == 0 and self._firewalled
        load_rules(
            namespace, linux_nat.rules(behaviour, external, firewalled=firewalled, maps_ports=maps_ports)
        )
        set_kernel_parameters(namespace, linux_nat.parameters(behaviour))
        self.gateways.append(namespace)

    def _add_bridge(self, namespace: str, layer: int) -> None:
        """The link inside, for the hosts or for the next translator."""
        inside = self.plan.gateway if layer == 0 else self.plan.between(layer - 1)[1]
        ip(namespace, "link add lan type bridge", f"addr add {inside}/24 dev lan", "link set lan up")
        if not self.plan.ipv6:
            return
        if layer == 0:
            ip(namespace, f"addr add {self.plan.gateway_ipv6}/64 dev lan nodad")
        else:
            inner, outer = self.plan.between_ipv6(layer - 1)
            ip(
                namespace,
                f"addr add {outer}/64 dev lan nodad",
                f"route add {self.plan.prefix_ipv6} via {inner} dev lan",
            )

    def _join_carrier(self, namespace: str, layer: int) -> None:
        """`wan` of an inner translator, on the link inside the outer one."""
        carrier = self.gateways[-1]
        inner, outer = self.plan.between(layer)
        _add_cable(carrier, f"site{layer}", namespace, "wan")
        configure(namespace, "wan", [inner], v4_bits=24, v4_via=outer)
        if self.plan.ipv6:
            inner, outer = self.plan.between_ipv6(layer)
            ip(namespace, f"addr add {inner}/64 dev wan nodad", f"route add ::/0 via {outer} dev wan")

    def _add_host(self, number: int) -> Host:
        name = f"{self.name}-{number}"
        namespace = self.ground.namespace(name)
        addresses = self._addresses(number)
        if self.gateways:
            _add_cable(self.gateways[-1], f"host{number}", namespace, "eth0")
            bits, via, via_ipv6 = self.plan.inside_bits, self.plan.gateway, self.plan.gateway_ipv6
            configure(namespace, "eth0", addresses, v4_bits=bits, v4_via=via, v6_via=via_ipv6)
            return Host(name, namespace, addresses)
        self.ground.add_port(namespace, "eth0", addresses, outer=self.on_wire, firewalled=self._firewalled)
        if not self.on_wire:
            self.borders.append(namespace)
        if self.translators:
            bits, via = self.plan.inside_bits, self.plan.gateway
            configure(namespace, "eth0", addresses, v4_bits=bits, v4_via=via)
        else:
            configure(namespace, "eth0", addresses)
        return Host(name, namespace, addresses)

    def _addresses(self, number: int) -> tuple[str, ...]:
        if self.profile.ipv6 is Ipv6.NAT64:
            return (self.plan.ipv6[number],)
        return tuple((self.plan.inside if self.translators else self.plan.public)[number])


def _add_cable(bridged: str, port: str, namespace: str, device: str) -> None:
    """Between the link `lan` of one namespace and a device of another."""
    ip(
        bridged,
        f"link add {port} type veth peer name {device} netns {namespace}",
        f"link set {port} master lan up",
    )
