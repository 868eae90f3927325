"""A small internet on this machine: network namespaces as hosts and translators, one process as the wire.

    with Internet() as internet:
        server = internet.server()
        home = internet.site("preserving")
        process = internet.spawn(home.hosts[0], ["ping", "-c1", server.addresses[0]])

Its addresses count as global unicast, so that address policy runs unmodified, and they exist only in there:
no device leads out of the namespaces. Everything is removed at the end, by this process or, when it is
killed, by the wire's; what both left behind, by the next run.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket as sockets
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from crowline.base.errors import LocalProblem, UsageError
from crowline.lab import leftovers
from crowline.lab.address_plan import MOST_HOSTS, MOST_SITES, AddressPlan, server_addresses
from crowline.lab.kernel import (
    configure,
    find_program,
    has_kernel_translator,
    ip,
    load_rules,
    set_kernel_parameters,
)
from crowline.lab.namespace import inside
from crowline.lab.packet import UDP

T = TypeVar("T")

Nat: TypeAlias = Literal["none", "preserving", "random"]
Ipv6: TypeAlias = Literal["none", "open", "firewalled"]
Translator: TypeAlias = Literal["auto", "kernel", "user"]

HOST_DELAY = 0.010  # seconds one way between a host and a server; two hosts are twice that apart
_PATIENCE = 3.0  # seconds that the wire and a spawned process get to end by themselves

# The behaviour of `lab.nat` that stands in for each kind of kernel translator.
_USER_SPACE = {"preserving": "home", "random": "symmetric"}


@dataclass(frozen=True, slots=True)
class Host:
    """A machine of the lab. `addresses` are its own, IPv4 first: behind a translator the inside one."""

    name: str
    namespace: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Site:
    """Hosts behind one translator, or public ones. `outside` is the IPv4 host that others see, one for each
    host where there is no translator."""

    name: str
    nat: Nat
    translator: Literal["none", "kernel", "user"]
    outside: tuple[str, ...]
    hosts: tuple[Host, ...]


class Internet:
    """Builds and removes it all; needs root. `translator` says who does NAT: nftables or the wire."""

    def __init__(self, *, translator: Translator = "auto") -> None:
        self._wanted = translator
        self._prefix = ""
        self._wire: subprocess.Popen[bytes] | None = None
        self._processes: list[subprocess.Popen[Any]] = []
        self._ports: dict[str, list[str]] = {}  # a site's or server's name to its places on the wire
        self._sites = 0
        self._servers = 0

    def __enter__(self) -> Internet:
        if os.geteuid() != 0:
            raise LocalProblem("Network namespaces need root.")
        try:
            leftovers.sweep()
            self._prefix = leftovers.new_prefix()
            self._start_wire()
            if self._wanted == "auto":
                self._wanted = "kernel" if has_kernel_translator(self._namespace("probe")) else "user"
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

    def server(self, name: str = "server", *, addresses: int = 2, delay: float = 0.0) -> Host:
        """A public host with that many IPv4 and as many IPv6 addresses."""
        self._servers += 1
        return self._public_host(name, name, server_addresses(self._servers, addresses), delay)

    def site(
        self,
        nat: Nat,
        *,
        name: str = "",
        hosts: int = 1,
        delay: float = HOST_DELAY,
        ipv6: Ipv6 = "none",
        udp_blocked: bool = False,
    ) -> Site:
        """Hosts behind a translator of that kind: "preserving" keeps source ports and so maps the same to
        every destination, "random" (symmetric) takes a new port for each one, "none" is no translator.

        `delay`: seconds one way to the router in the middle. `ipv6`: global addresses without translation.
        """
        if self._sites >= MOST_SITES or not 0 < hosts <= MOST_HOSTS:
            raise UsageError(f"at most {MOST_SITES} sites with 1 to {MOST_HOSTS} hosts each")
        if nat == "none" and ipv6 == "firewalled":
            raise UsageError("a firewall needs a gateway: choose another translator than none")
        self._sites += 1
        name = name or f"site{self._sites}"
        self._ports[name] = []
        plan = AddressPlan(self._sites, hosts, with_ipv6=ipv6 != "none")
        if nat == "none":
            site = self._public_site(name, plan, delay)
        elif self._wanted == "kernel":
            site = self._kernel_site(name, nat, plan, delay, firewalled=ipv6 == "firewalled")
        else:
            site = self._user_space_site(name, nat, plan, delay, firewalled=ipv6 == "firewalled")
        if udp_blocked:
            self.block_udp(site)
        return site

    def block_udp(self, place: Site | Host, blocked: bool = True) -> None:
        """Drop UDP between that site or server and the rest of the world, from now on, or no longer."""
        for port in self._ports[place.name]:
            self._command("set", name=port, blocked=[UDP] if blocked else [])

    def set_delay(self, place: Site | Host, delay: float) -> None:
        """Change the one-way delay to the router, in seconds."""
        for port in self._ports[place.name]:
            self._command("set", name=port, delay=delay)

    def counters(self) -> dict[str, int]:
        """What became of the packets so far: "delivered", "blocked", "filtered", "no route"…"""
        counters: dict[str, int] = self._command("counters")["counters"]
        return counters

    def spawn(self, host: Host, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program on that host, in a session of its own. `options` go to `subprocess.Popen`."""
        command = [find_program("ip"), "netns", "exec", host.namespace, *argv]
        process = subprocess.Popen(command, start_new_session=True, **options)
        self._processes.append(process)
        return process

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
        self._stop_wire()
        self._prefix = ""

    def _start_wire(self) -> None:
        self._wire = subprocess.Popen(
            [sys.executable, "-m", "crowline.lab.wire_process", self._prefix],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C on the terminal is for this process alone
        )

    def _stop_wire(self) -> None:
        wire, self._wire = self._wire, None
        if wire is None or wire.stdin is None or wire.stdout is None:
            return
        with contextlib.suppress(OSError):
            wire.stdin.write(b'{"do": "bye"}\n')
            wire.stdin.flush()
        _reap(wire)

    def _command(self, do: str, **arguments: Any) -> dict[str, Any]:
        assert self._wire is not None and self._wire.stdin is not None and self._wire.stdout is not None
        try:
            self._wire.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._wire.stdin.flush()
            line = self._wire.stdout.readline()
        except OSError:
            line = b""
        if not line:
            raise LocalProblem("The process that carries the laboratory's packets has died.")
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            raise LocalProblem(f"The laboratory's wire refused: {answer['error']}")
        return answer

    def _namespace(self, name: str) -> str:
        """A new namespace, named after this internet, with its loopback up."""
        namespace = f"{self._prefix}{name}"
        ip(None, f"netns add {namespace}")
        set_kernel_parameters(namespace)
        ip(namespace, "link set lo up")
        return namespace

    def _port(
        self, owner: str, namespace: str, device: str, hosts: Sequence[str], delay: float, **more: Any
    ) -> None:
        self._command(
            "port", name=namespace, delay=delay, namespace=namespace, device=device, hosts=list(hosts), **more
        )
        if not more.get("gateway"):
            self._ports.setdefault(owner, []).append(namespace)

    def _public_host(self, owner: str, name: str, addresses: Sequence[str], delay: float) -> Host:
        namespace = self._namespace(name)
        self._port(owner, namespace, "eth0", addresses, delay)
        configure(namespace, "eth0", addresses)
        return Host(name, namespace, tuple(addresses))

    def _public_site(self, name: str, plan: AddressPlan, delay: float) -> Site:
        hosts = tuple(
            self._public_host(name, f"{name}-{n}", addresses, delay)
            for n, addresses in enumerate(plan.public)
        )
        return Site(name, "none", "none", tuple(host.addresses[0] for host in hosts), hosts)

    def _user_space_site(
        self, name: str, nat: Nat, plan: AddressPlan, delay: float, *, firewalled: bool
    ) -> Site:
        gateway = f"{self._prefix}{name}"
        self._command("gateway", name=gateway, delay=delay, external=plan.outside, behaviour=_USER_SPACE[nat])
        self._ports[name].append(gateway)
        hosts = []
        for n, addresses in enumerate(plan.inside):
            namespace = self._namespace(f"{name}-{n}")
            self._port(name, namespace, "eth0", addresses, 0.0, gateway=gateway, firewalled=firewalled)
            configure(namespace, "eth0", addresses, v4_bits=plan.inside_bits)
            hosts.append(Host(f"{name}-{n}", namespace, tuple(addresses)))
        return Site(name, nat, "user", (plan.outside,), tuple(hosts))

    def _kernel_site(self, name: str, nat: Nat, plan: AddressPlan, delay: float, *, firewalled: bool) -> Site:
        gateway = self._namespace(name)
        self._port(name, gateway, "wan", [plan.outside, *plan.ipv6], delay)
        configure(gateway, "wan", [plan.outside])
        set_kernel_parameters(gateway, forwarding=True)
        ip(gateway, "link add lan type bridge", f"addr add {plan.gateway}/{plan.inside_bits} dev lan")
        if plan.ipv6:
            ip(gateway, f"addr add {plan.gateway_ipv6}/64 dev lan nodad", "route add ::/0 dev wan")
        ip(gateway, "link set lan up")
        load_rules(gateway, randomly=nat == "random", firewalled=firewalled)
        hosts = []
        for n, addresses in enumerate(plan.inside):
            namespace = self._namespace(f"{name}-{n}")
            ip(
                gateway,
                f"link add host{n} type veth peer name eth0 netns {namespace}",
                f"link set host{n} master lan up",
            )
            configure(
                namespace,
                "eth0",
                addresses,
                v4_bits=plan.inside_bits,
                v4_via=plan.gateway,
                v6_via=plan.gateway_ipv6,
            )
            hosts.append(Host(f"{name}-{n}", namespace, tuple(addresses)))
        return Site(name, nat, "kernel", (plan.outside,), tuple(hosts))


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
