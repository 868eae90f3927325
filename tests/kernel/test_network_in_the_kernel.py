"""What a host learns of its network from a real kernel: addresses, their changes, the NAT64 prefix."""

from __future__ import annotations

import ipaddress
import json
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from crowline.lab import nat64
from crowline.lab.kernel import await_running, ip, set_kernel_parameters
from crowline.lab.namespace import inside
from crowline.lab.namespaces import Internet
from crowline.net.interfaces import InterfaceKind, interface_addresses, local_addresses
from dns64 import dns64_answer

Factory = Callable[..., Internet]

UDP = socket.SOCK_DGRAM
PATIENCE = 30.0
ECHO_PORT, NAME_PORT = 4000, 53

WATCH = """
import asyncio, json
from crowline.net.network_watch import NetworkWatch

def say(**what):
    print(json.dumps(what), flush=True)

async def main():
    watch = NetworkWatch(
        lambda change: say(came=change.came, went=change.went, rerouted=len(change.rerouted)),
        on_prefix=lambda said, interface: say(prefix=str(said.prefix), lifetime=said.lifetime),
    )
    say(hosts=[each.host for each in watch.network.addresses], polling=watch.is_polling)
    await asyncio.Event().wait()

asyncio.run(main())
"""

DISCOVER = """
import asyncio, json, socket, sys
from crowline.net import nat64

async def main():
    nat64.LOOKUP_LIMIT = 30.0
    discovery = nat64.Nat64Discovery()
    (prefix,) = await discovery.prefixes()
    discovery.close()
    return prefix

prefix = asyncio.run(main())
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
    sock.settimeout(30.0)
    sock.sendto(b"over the border", (prefix.synthesize(sys.argv[1]), int(sys.argv[2])))
    print(json.dumps([str(prefix), sock.recv(100).decode()]))
"""


class Watched:
    """A watch in a namespace, and what it says."""

    def __init__(self, net: Internet, namespace: str) -> None:
        argv = [sys.executable, "-c", WATCH]
        self._process = net.spawn_in(namespace, argv, stdout=subprocess.PIPE, bufsize=0)
        self.first = self.read()

    def says(self, seconds: float) -> bool:
        """Whether there is something to read within that time."""
        return bool(select.select([self._process.stdout], [], [], seconds)[0])

    def read(self) -> dict[str, Any]:
        assert self.says(PATIENCE), "the watch says nothing"
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the watch has ended"
        return dict(json.loads(line))

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> None:
        while not holds(self.read()):
            pass


def cable(net: Internet, *ends: tuple[str, str]) -> list[str]:
    """Namespaces joined by one cable: a name and a command for the device `eth0` of each."""
    names = [net.namespace(name) for name, _ in ends]
    ip(names[0], f"link add eth0 type veth peer name eth0 netns {names[1]}")
    for name, (_, command) in zip(names, ends, strict=True):
        ip(name, "link set eth0 up", *([command] if command else []))
    for name in names:
        await_running(name, ["eth0"])
    return names


def test_changes_are_told(internet: Factory) -> None:
    """An address comes, a route turns, an address goes: each by the kernel's own notice."""
    net = internet("user")
    host = net.server(addresses=1)
    watch = Watched(net, host.namespace)
    assert watch.first["polling"] is False
    assert set(watch.first["hosts"]) == set(host.addresses)
    ip(host.namespace, "addr add 44.9.9.9/32 dev eth0")
    watch.until(lambda said: said["came"] == ["44.9.9.9"])
    ip(host.namespace, "route replace 0.0.0.0/0 dev eth0 src 44.9.9.9")
    watch.until(lambda said: said == {"came": [], "went": [], "rerouted": 1})
    ip(host.namespace, "addr del 44.9.9.9/32 dev eth0")
    watch.until(lambda said: said["went"] == ["44.9.9.9"])
    ip(host.namespace, "link set eth0 down")
    watch.until(lambda said: host.addresses[0] in said["went"])


def test_a_router_says_its_nat64_prefix(internet: Factory) -> None:
    """A router advertisement with PREF64 (RFC 8781) reaches a watch through the kernel."""
    net = internet("kernel")
    router, host = cable(net, ("router", ""), ("host", ""))
    set_kernel_parameters(host, {"ipv6/conf/eth0/accept_ra": "1", "ipv6/conf/eth0/router_solicitations": "0"})
    ip(router, "addr add fe80::1/64 dev eth0 nodad")
    ip(host, "addr add fe80::2/64 dev eth0 nodad")
    watch = Watched(net, host)
    option = struct.pack("!BBH", 38, 2, 600) + ipaddress.ip_address("2001:db8:64::").packed[:12]
    advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 0, 0, 0) + option

    def raw() -> socket.socket:
        made = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        made.bind(("fe80::1", 0, 0, socket.if_nametoindex("eth0")))
        return made

    with closing(inside(router, raw)) as sender:
        said: dict[str, Any] = {}
        deadline = time.monotonic() + PATIENCE
        while "prefix" not in said and time.monotonic() < deadline:
            sender.sendto(advertisement, ("ff02::1", 0, 0, sender.getsockname()[3]))
            said = watch.read() if watch.says(1.0) else {}
    assert said == {"prefix": "2001:db8:64::/96", "lifetime": 600}


def test_the_kernel_says_what_each_address_is(internet: Factory) -> None:
    """Temporary, deprecated, and on which kind of interface."""
    net = internet("kernel")
    name, _ = cable(net, ("host", ""), ("other", ""))
    set_kernel_parameters(name, {"ipv6/conf/eth0/use_tempaddr": "2"})
    ip(
        name,
        "addr add 192.0.2.1/24 dev eth0",
        "addr add 2001:db8:1:2:211:22ff:fe33:4455/64 dev eth0 nodad mngtmpaddr",
        "addr add 2001:db8:1:3::1/64 dev eth0 nodad preferred_lft 0",
    )
    deadline = time.monotonic() + PATIENCE
    while True:
        known = {each.host: each for each in inside(name, interface_addresses)}
        usable = [each for each in known.values() if each.is_temporary and each.is_usable]
        if usable or time.monotonic() > deadline:
            break
        time.sleep(0.01)  # the kernel makes it ready in its own time
    (temporary,) = usable
    assert temporary.network == ipaddress.ip_network("2001:db8:1:2::/64")
    assert [each.host for each in known.values() if each.is_deprecated] == ["2001:db8:1:3::1"]
    assert known["192.0.2.1"].kind is InterfaceKind.VIRTUAL
    assert known["192.0.2.1"].interface == "eth0"
    assert known["127.0.0.1"].kind is InterfaceKind.LOOPBACK
    found = inside(name, partial(local_addresses, loopback=True))
    assert found == ["192.0.2.1", "127.0.0.1", temporary.host, "2001:db8:1:3::1", "::1"]


def test_a_host_without_ipv4_finds_its_prefix_and_reaches_ipv4(internet: Factory, tmp_path: Path) -> None:
    """The system's resolver asks a name server over IPv6 alone; what it says leads to an IPv4 host."""
    net = internet("user")
    server, site = net.server(), net.site("nat64")
    ipv4, ipv6 = (
        next(each for each in server.addresses if (":" in each) is wanted) for wanted in (False, True)
    )
    resolver = tmp_path / "resolv.conf"
    resolver.write_text(f"nameserver {ipv6}\n")
    command = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'
    program = [sys.executable, "-c", DISCOVER, ipv4, str(ECHO_PORT)]
    with (
        closing(net.socket(server, UDP, ipv6, NAME_PORT)) as names,
        closing(net.socket(server, UDP, ipv4, ECHO_PORT)) as echo,
    ):
        process = net.spawn(
            site.hosts[0],
            ["sh", "-c", command, "sh", str(resolver), *program],
            stdout=subprocess.PIPE,
            text=True,
        )
        serve(process, names, echo)
        said = process.communicate(timeout=PATIENCE)[0]
    assert json.loads(said) == [str(nat64.PREFIX), "over the border"]


def serve(process: subprocess.Popen[str], names: socket.socket, echo: socket.socket) -> None:
    """Answer both ports until the echo has been asked, or the process has ended."""
    assert process.stdout is not None
    while True:
        readable, _, _ = select.select([names, echo, process.stdout], [], [], PATIENCE)
        if not readable or process.stdout in readable:
            return
        for sock in readable:
            data, source = sock.recvfrom(1500)
            sock.sendto(data if sock is echo else dns64_answer(data), source)
