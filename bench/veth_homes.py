"""Two hosts behind a NAT each and a server between them, of network namespaces and veth devices alone.

The kernel does all of it, so that a figure is that of the programs and of nothing in between. Nothing leads
out.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SERVER = "44.1.0.1"
# What comes unasked is dropped, as routers do: else it would take the port that the answer to it needs.
_NAT = """
table ip nat {
  chain out { type nat hook postrouting priority 100; oifname "out" masquerade; }
  chain in { type filter hook input priority 0; iifname "out" drop; }
}
"""


@dataclass(frozen=True)
class Homes:
    """The names of the namespaces."""

    server: str
    left: str
    right: str


@contextmanager
def homes() -> Iterator[Homes]:
    """Made when entered, needs root; removed with every process in them that has ended."""
    prefix = f"bench{os.getpid()}-"
    core, server = f"{prefix}core", f"{prefix}server"
    spaces = [core, server, *(f"{prefix}{kind}{side}" for side in (1, 2) for kind in ("nat", "host"))]
    try:
        for space in spaces:
            ip(f"netns add {space}")
            ip(f"-n {space} link set lo up")
        ip(f"-n {core} link add bridge type bridge")
        ip(f"-n {core} link set bridge up")
        _plug(core, "to-server", server, "out", f"{SERVER}/8")
        for side in (1, 2):
            nat, host = f"{prefix}nat{side}", f"{prefix}host{side}"
            _plug(core, f"to-nat{side}", nat, "out", f"44.100.{side}.1/8")
            _join(nat, "in", f"10.0.{side}.1/24", host, "out", f"10.0.{side}.2/24")
            ip(f"-n {host} route add default via 10.0.{side}.1")
            command = ["ip", "netns", "exec", nat]
            subprocess.run([*command, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1"], check=True)
            subprocess.run([*command, "nft", "-f", "-"], input=_NAT, text=True, check=True)
        yield Homes(server, f"{prefix}host1", f"{prefix}host2")
    finally:
        for space in spaces:
            subprocess.run(["ip", "netns", "delete", space], stderr=subprocess.DEVNULL)


def ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)


def _plug(core: str, port: str, space: str, device: str, address: str) -> None:
    """A cable from `device` to the bridge."""
    _join(core, port, "", space, device, address)
    ip(f"-n {core} link set {port} master bridge")


def _join(one: str, device: str, address: str, other: str, there: str, address_there: str) -> None:
    """A cable between two namespaces."""
    ip(f"-n {one} link add {device} type veth peer name {there} netns {other}")
    for space, end, own in ((one, device, address), (other, there, address_there)):
        if own:
            ip(f"-n {space} address add {own} dev {end}")
        ip(f"-n {space} link set {end} up")
