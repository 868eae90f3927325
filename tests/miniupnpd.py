"""A real miniupnpd on the gateway of a kernel-made site, with all that it can do, that can be restarted."""

from __future__ import annotations

import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from ipaddress import IPv6Address
from pathlib import Path

from crowline.lab import linux_nat
from crowline.lab.kernel import load_rules
from crowline.lab.namespace import inside
from crowline.lab.namespaces import Internet
from crowline.lab.places import Site
from crowline.lab.profile import Ipv6
from needs import needs_program

HTTP_PORT, PORT_MAPPING_PORT, SSDP_PORT = 5000, 5351, 1900
SHORTEST_LEASE = 120  # seconds, the least that this daemon's documentation allows for PCP
PATIENCE = 30.0  # seconds until it must be there, or gone
_OLD, _OLD_FOR_UPNP = 4.0, 1.1  # seconds
_POLL = 0.02  # seconds between looks at it

# How nft writes the daemon's rules, which look at bytes of the headers instead of naming their fields.
_FORWARD = re.compile(r"@nh,72,8 0x(\w+) th dport (\d+) dnat ip to ([\d.]+):(\d+)")
_PINHOLE = re.compile(r"th dport (\d+) @nh,192,128 0x(\w{32}) @nh,48,8 0x(\w+) accept")
# In front of the daemon: requests that it shall not hear, all of them or those of PCP's version.
_DEAF = """table inet {table} {{
chain deaf {{ type filter hook input priority raw;
udp dport {port} {which} drop
}}
}}
"""
_PROTOCOLS = {"6": "tcp", "11": "udp"}


class Miniupnpd:
    """Runs from the first `start` on, until `stop`, or the end of `net`.

    `version` 1 makes its description one of the first UPnP IGD. It has no switch for PCP alone, and none at
    all for PCP over IPv6: without `pcp` or `natpmp`, the gateway drops such requests before it hears them.
    `outside` is the outside address that it is told to have, where that is not its device's. `shortest` and
    `longest` bound leases, in seconds.
    """

    def __init__(
        self,
        net: Internet,
        site: Site,
        *,
        version: int = 2,
        upnp: bool = True,
        natpmp: bool = True,
        pcp: bool = True,
        outside: str = "",
        shortest: int = SHORTEST_LEASE,
        longest: int = 86400,
    ) -> None:
        self._program = needs_program("miniupnpd")
        self._net = net
        self.namespace = f"{net.prefix}{site.name}"
        self.gateway = site.hosts[0].addresses[0].rpartition(".")[0] + ".1"
        folder = net.folder()
        self._leases = folder / "leases"
        self._log = folder / "log"
        self._pid = folder / "pid"
        self._configuration = folder / "configuration"
        self._is_upnp, self._is_natpmp = upnp, natpmp
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        lines = [
            "ext_ifname=wan",
            *([f"ext_ip={outside}"] if outside else []),
            "listening_ip=lan",
            f"http_port={HTTP_PORT}",
            f"enable_upnp={'yes' if upnp else 'no'}",
            f"enable_natpmp={'yes' if natpmp else 'no'}",
            f"force_igd_desc_v1={'yes' if version == 1 else 'no'}",
            "secure_mode=yes",
            "system_uptime=no",
            f"min_lifetime={shortest}",
            f"max_lifetime={longest}",
            f"lease_file={self._leases}",
            f"uuid={uuid.uuid5(uuid.NAMESPACE_OID, self.gateway)}",
            f"upnp_table_name={linux_nat.TABLE}",
            f"upnp_nat_table_name={linux_nat.TABLE}",
            f"upnp_forward_chain={linux_nat.FORWARD_CHAIN}",
            f"upnp_nat_chain={linux_nat.PREROUTING_CHAIN}",
            f"upnp_nat_postrouting_chain={linux_nat.POSTROUTING_CHAIN}",
            f"allow 1024-65535 {self.gateway}/24 1024-65535",
            "deny 0-65535 0.0.0.0/0 0-65535",
        ]
        self._configuration.write_text("\n".join(lines) + "\n")
        self._rules = linux_nat.rules(
            site.profile.nats[0],
            site.outside[0],
            firewalled=site.profile.ipv6 is Ipv6.FIREWALLED,
            maps_ports=True,
        )
        if not (pcp and natpmp):
            which = "@th,64,8 2" if natpmp else ""
            self._rules += _DEAF.format(table=linux_nat.TABLE, port=PORT_MAPPING_PORT, which=which)
        self._set_rules()

    def start(self) -> None:
        """Run it, and wait until it answers."""
        command = [self._program, "-d", "-f", str(self._configuration), "-P", str(self._pid)]
        with self._log.open("ab") as log:
            self._process = self._net.spawn_in(
                self.namespace, command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        ports = [SSDP_PORT] * self._is_upnp + [PORT_MAPPING_PORT] * self._is_natpmp
        self._started = time.monotonic()
        self._await(lambda: all(inside(self.namespace, lambda port=port: _is_bound(port)) for port in ports))

    def grow_old(self) -> None:
        """Wait until one that is new can be told from it.

        That takes two seconds and some by its epoch (RFC 6887 §8.5), and another second by UPnP's number of
        its start, which is the time of day.
        """
        age = _OLD if self._is_natpmp else _OLD_FOR_UPNP
        time.sleep(max(0.0, self._started + age - time.monotonic()))

    def stop(self) -> None:
        """End it as the owner does who switches it off: it takes no rules along."""
        process, self._process = self._process, None
        assert process is not None
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)

    def restart(self) -> None:
        """As a router does that lost its power: no leases, no rules, and a clock that begins anew."""
        self.stop()
        self._leases.unlink(missing_ok=True)
        self._set_rules()
        self.start()

    def rules(self) -> str:
        """Its three chains, as nft lists them."""
        names = (linux_nat.FORWARD_CHAIN, linux_nat.PREROUTING_CHAIN, linux_nat.POSTROUTING_CHAIN)
        return "".join(self._nft("-n", "list", "chain", "inet", linux_nat.TABLE, name) for name in names)

    def forwards(self) -> set[tuple[str, int, str, int]]:
        """What it forwards: the protocol, the outside port, the inside host and its port."""
        return {
            (_PROTOCOLS[protocol], int(outside), host, int(port))
            for protocol, outside, host, port in _FORWARD.findall(self.rules())
        }

    def pinholes(self) -> set[tuple[str, str, int]]:
        """What it lets in by IPv6: the protocol, the host and its port."""
        return {
            (_PROTOCOLS[protocol], str(IPv6Address(int(host, 16))), int(port))
            for port, host, protocol in _PINHOLE.findall(self.rules())
        }

    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    def _set_rules(self) -> None:
        """The gateway's rules with empty chains for the daemon, in place of what is there."""
        load_rules(self.namespace, f"delete table inet {linux_nat.TABLE}\n{self._rules}")

    def _nft(self, *arguments: str) -> str:
        command = ["ip", "netns", "exec", self.namespace, "nft", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout

    def _await(self, is_there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_there():
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"miniupnpd did not start: {self.log()}")
            time.sleep(_POLL)


def _is_bound(port: int) -> bool:
    """Whether a UDP socket of this namespace has that port."""
    wanted = f"{port:04X}"
    for name in ("udp", "udp6"):
        lines = Path(f"/proc/thread-self/net/{name}").read_text().splitlines()[1:]
        if any(line.split()[1].rpartition(":")[2] == wanted for line in lines):
            return True
    return False
