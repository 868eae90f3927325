"""Programs that belong to a site: the daemon that maps ports (miniupnpd), the HTTP proxy."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from crowline.base.errors import LocalProblem
from crowline.lab import linux_nat
from crowline.lab.access import PROXY_PORT
from crowline.lab.kernel import find_program
from crowline.lab.leftovers import RECORDS
from crowline.lab.namespace import inside
from crowline.lab.profile import PortMapping

UPNP_PORT = 5000  # of the device description; any port would do
PORT_MAPPING_PORT = 5351  # RFC 6886 §3, RFC 6887 §19
SSDP_PORT = 1900

_PATIENCE = 10.0  # seconds until a service must be there
_POLL = 0.01  # seconds between looks at it


class Ground(Protocol):
    """Where the programs run; whoever owns it ends them."""

    def spawn_in(self, namespace: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]: ...


def start_port_mapper(ground: Ground, gateway: str, inside_address: str, service: PortMapping) -> None:
    """Run miniupnpd in that gateway's namespace and wait until it answers.

    It knows PCP and NAT-PMP as one: whoever wants the one gets the other too. Raises `LocalProblem` where it
    is not installed or does not start.
    """
    configuration = RECORDS / f"{gateway}.conf"
    configuration.write_text(_configuration(inside_address, service))
    log = RECORDS / f"{gateway}.log"
    with log.open("wb") as output:
        process = ground.spawn_in(
            gateway,
            [
                find_program("miniupnpd"),
                "-d",
                "-f",
                str(configuration),
                "-P",
                str(RECORDS / f"{gateway}.pid"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    port = SSDP_PORT if service is PortMapping.UPNP else PORT_MAPPING_PORT
    _await(process, lambda: inside(gateway, lambda: _is_bound(port)), "miniupnpd", log)


def start_proxy(ground: Ground, namespace: str, address: str) -> str:
    """Run the site's HTTP proxy in that namespace and wait until it listens; gives its URL."""
    process = ground.spawn_in(
        namespace,
        [sys.executable, "-m", "crowline.lab.connect_proxy", address, str(PROXY_PORT)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _await(process, lambda: inside(namespace, lambda: _listens(address, PROXY_PORT)), "The proxy", None)
    return f"http://{address}:{PROXY_PORT}"


def _configuration(inside_address: str, service: PortMapping) -> str:
    is_upnp = service is PortMapping.UPNP
    lines = [
        "ext_ifname=wan",
        f"listening_ip={inside_address}/24",
        f"http_port={UPNP_PORT}",
        f"enable_upnp={'yes' if is_upnp else 'no'}",
        f"enable_natpmp={'no' if is_upnp else 'yes'}",
        "ipv6_disable=yes",
        "secure_mode=yes",
        "system_uptime=no",
        f"uuid={uuid.uuid5(uuid.NAMESPACE_OID, inside_address)}",
        f"upnp_table_name={linux_nat.TABLE}",
        f"upnp_nat_table_name={linux_nat.TABLE}",
        f"upnp_forward_chain={linux_nat.FORWARD_CHAIN}",
        f"upnp_nat_chain={linux_nat.PREROUTING_CHAIN}",
        f"upnp_nat_postrouting_chain={linux_nat.POSTROUTING_CHAIN}",
        f"allow 1024-65535 {inside_address}/24 1024-65535",
        "deny 0-65535 0.0.0.0/0 0-65535",
    ]
    return "\n".join(lines) + "\n"


def _await(process: subprocess.Popen[Any], is_there: Callable[[], bool], name: str, log: Path | None) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not is_there():
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace").strip().splitlines()[-1:] if log else []
            raise LocalProblem(f"{name} did not start{': ' + said[0] if said else '.'}")
        time.sleep(_POLL)


def _is_bound(port: int) -> bool:
    """Whether a UDP socket of this namespace has that port."""
    wanted = f"{port:04X}"
    lines = Path("/proc/thread-self/net/udp").read_text().splitlines()[1:]
    return any(line.split()[1].rpartition(":")[2] == wanted for line in lines)


def _listens(address: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False
