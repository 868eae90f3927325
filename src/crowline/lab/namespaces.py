"""A small internet on this machine: network namespaces as hosts and translators, one process as the wire.

    with Internet() as internet:
        server = internet.server()
        home = internet.site("home")
        process = internet.spawn(home.hosts[0], ["ping", "-c1", server.addresses[0]])

Its addresses count as global unicast, so that address policy runs unmodified, and they exist only in there:
no device leads out of the namespaces. Everything is removed at the end, by this process or, when it is
killed, by the wire's; what both left behind, by the next run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket as sockets
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from crowline.base.errors import LocalProblem, UsageError
from crowline.lab import conntrack, leftovers
from crowline.lab.address_plan import MOST_HOSTS, MOST_SITES, AddressPlan, server_addresses
from crowline.lab.behaviour import NatBehaviour
from crowline.lab.impairment import Impairment
from crowline.lab.kernel import (
    PARAMETERS,
    TUNNEL_QUEUE,
    configure,
    find_program,
    has_kernel_translator,
    ip,
    set_kernel_parameters,
)
from crowline.lab.namespace import inside
from crowline.lab.places import Host, Site
from crowline.lab.presets import preset
from crowline.lab.profile import Firewall, Ipv6, PortMapping, Profile
from crowline.lab.site_services import start_port_mapper, start_proxy
from crowline.lab.sites import build_site
from crowline.lab.wire_commands import (
    AddGateway,
    AddPort,
    Advance,
    GetCounters,
    SetCore,
    SetFirewall,
    SetImpairment,
    Settle,
)
from crowline.lab.wire_control import WireControl

T = TypeVar("T")

TranslatorChoice: TypeAlias = Literal["auto", "kernel", "user"]

HOST_DELAY = 0.010  # seconds one way between a host and a server; two hosts are twice that apart
STILL_PATIENCE = 5.0  # seconds after which the wire counts as settled, whatever is still on its way
_PATIENCE = 3.0  # seconds that a spawned process gets to end by itself


class Internet:
    """Builds and removes it all; needs root.

    `translator` says who does NAT: nftables where it can ("kernel"), the wire alone ("user"), or the first
    if it is installed ("auto").
    """

    def __init__(self, *, translator: TranslatorChoice = "auto") -> None:
        self._wanted = translator
        self._prefix = ""
        self._wire: WireControl | None = None
        self._processes: list[subprocess.Popen[Any]] = []
        self._borders: dict[str, tuple[str, ...]] = {}  # of a site or server, its places on the wire
        self._gateways: list[str] = []  # namespaces whose kernel translates
        self._sites = 0
        self._servers = 0

    def __enter__(self) -> Internet:
        if os.geteuid() != 0:
            raise LocalProblem(
                "Network namespaces need root.", hint="The laboratory's virtual world needs nothing."
            )
        try:
            leftovers.sweep()
            self._prefix = leftovers.new_prefix()
            self._wire = WireControl(self._prefix)
            if self._wanted == "auto":
                self._wanted = "kernel" if has_kernel_translator(self.namespace("probe")) else "user"
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def prefix(self) -> str:
        """What the names of all its namespaces begin with."""
        return self._prefix

    @property
    def wire(self) -> WireControl:
        """The process that carries the packets. Raises `UsageError` when the laboratory is not open."""
        if self._wire is None:
            raise UsageError("the laboratory is not open")
        return self._wire

    def folder(self) -> Path:
        """A new folder for temporary files; it is removed at the end, too."""
        return leftovers.new_folder(self._prefix)

    def server(self, name: str = "server", *, addresses: int = 2, delay: float = 0.0) -> Host:
        """A public host with that many IPv4 and as many IPv6 addresses."""
        self._servers += 1
        return self._public_host(name, server_addresses(self._servers, addresses), delay)

    def site(
        self,
        profile: Profile | str,
        *,
        name: str = "",
        hosts: int = 1,
        delay: float = HOST_DELAY,
        impairment: Impairment | None = None,
    ) -> Site:
        """Hosts in such a place in the world; a text names a preset.

        `delay`: seconds one way to the router in the middle. `impairment` says more about both directions of
        that way, delay included. Raises `LocalProblem` for a service that this machine lacks a program for.
        """
        if self._sites >= MOST_SITES or not 0 < hosts <= MOST_HOSTS:
            raise UsageError(f"at most {MOST_SITES} sites with 1 to {MOST_HOSTS} hosts each")
        if isinstance(profile, str):
            profile = preset(profile)
        self._sites += 1
        name = name or f"site{self._sites}"
        plan = AddressPlan(self._sites, hosts, with_ipv6=profile.ipv6 is not Ipv6.NONE)
        built = build_site(self, name, profile, plan, with_kernel=self._wanted == "kernel")
        self._borders[name] = built.borders
        self._gateways += built.gateways
        site = built.site
        self.impair(site, impairment or Impairment(delay=delay))
        if profile.port_mapping is not PortMapping.NONE and built.gateways:
            start_port_mapper(self, built.gateways[0], plan.gateway, profile.port_mapping)
        if profile.firewall is not Firewall.NONE:
            site = self._close_off(site, plan)
        return site

    def impair(self, place: Site | Host, how: Impairment) -> None:
        """Treat packets between that site or server and the router like this from now on, each way."""
        for border in self._borders[place.name]:
            self.wire.command(SetImpairment(border, how))

    def set_delay(self, place: Site | Host, delay: float) -> None:
        """Change the one-way delay to the router, in seconds; no other impairment stays."""
        self.impair(place, Impairment(delay=delay))

    def set_firewall(self, place: Site | Host, firewall: Firewall) -> None:
        """Change what may pass between that site or server and the rest of the world."""
        if firewall is Firewall.PROXY_ONLY:
            raise UsageError("a site has a proxy from the beginning or never")
        for border in self._borders[place.name]:
            self.wire.command(SetFirewall(border, firewall))

    def set_core(self, hops: int) -> None:
        """Have it so many hops through the router in the middle, as if it were as many; at first, one.

        Across the internet it is ten or so: what is sent to die on the way does.
        """
        self.wire.command(SetCore(hops))

    def counters(self) -> dict[str, int]:
        """What became of the packets so far: "delivered", "blocked", "filtered", "no route"…"""
        return self.wire.command(GetCounters()).counters

    def settle(self, patience: float = STILL_PATIENCE) -> None:
        """Wait until the wire has nothing to carry, or those seconds."""
        self.wire.command(Settle(patience))

    def advance(self, seconds: int) -> None:
        """Let all translators believe that so much time has passed; nothing else gets older."""
        self.wire.command(Advance(seconds))
        for gateway in self._gateways:
            inside(gateway, partial(conntrack.age, seconds))

    def spawn(self, host: Host, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program on that host, by default in a session of its own; `options` are those of Popen."""
        return self.spawn_in(host.namespace, argv, **options)

    def inside(self, host: Host, work: Callable[[], T]) -> T:
        """Run `work` on that host, in a thread of this process; sockets that it opens stay there."""
        return inside(host.namespace, work)

    def socket(
        self, host: Host, kind: sockets.SocketKind, address: str = "", port: int = 0
    ) -> sockets.socket:
        """A socket on that host, bound to that address (its first where none is given) and port."""
        address = address or host.addresses[0]

        def opened() -> sockets.socket:
            made = sockets.socket(sockets.AF_INET6 if ":" in address else sockets.AF_INET, kind)
            try:
                made.bind((address, port))
            except BaseException:
                made.close()
                raise
            return made

        return inside(host.namespace, opened)

    def close(self) -> None:
        """End every process in there and remove every trace. May be called again."""
        if not self._prefix:
            return
        for process in self._processes:
            _ask_to_end(process)
        leftovers.remove(self._prefix)
        for process in self._processes:
            _reap(process)
        self._processes.clear()
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
        self._prefix = ""

    # What sites are built with (`lab/sites.py`): names in here begin with this internet's prefix.

    def namespace(self, name: str) -> str:
        """A new namespace with its loopback up."""
        namespace = f"{self._prefix}{name}"
        ip(None, f"netns add {namespace}")
        set_kernel_parameters(namespace, PARAMETERS)
        ip(namespace, "link set lo up")
        return namespace

    def add_port(
        self,
        namespace: str,
        device: str,
        hosts: Sequence[str],
        *,
        outer: str = "",
        firewalled: bool = False,
    ) -> None:
        """A tunnel device in that namespace, on the wire by its name."""
        self.wire.command(AddPort(namespace, namespace, device, list(hosts), outer, firewalled))
        ip(namespace, f"link set {device} txqueuelen {TUNNEL_QUEUE}")

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
        whole = f"{self._prefix}{name}"
        self.wire.command(AddGateway(whole, external, behaviour, outer, nat64, own, port_mapping))
        return whole

    def spawn_in(self, namespace: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program in a namespace; `close` ends it."""
        command = [find_program("ip"), "netns", "exec", namespace, *argv]
        options.setdefault("start_new_session", True)
        process = subprocess.Popen(command, **options)
        self._processes.append(process)
        return process

    def _public_host(self, name: str, addresses: Sequence[str], delay: float) -> Host:
        namespace = self.namespace(name)
        self.add_port(namespace, "eth0", addresses)
        self._borders[name] = (namespace,)
        configure(namespace, "eth0", addresses)
        host = Host(name, namespace, tuple(addresses))
        self.set_delay(host, delay)
        return host

    def _close_off(self, site: Site, plan: AddressPlan) -> Site:
        firewall, proxy = site.profile.firewall, ""
        if firewall is Firewall.PROXY_ONLY:
            host = self._public_host(f"{site.name}-proxy", [plan.proxy], 0.0)
            proxy = plan.proxy
            site = replace(site, proxy=start_proxy(self, host.namespace, proxy))
        for border in self._borders[site.name]:
            self.wire.command(SetFirewall(border, firewall, proxy))
        return site


def _ask_to_end(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)


def _reap(process: subprocess.Popen[Any]) -> None:
    """Wait for a process that was told to end, and end it where it does not."""
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
