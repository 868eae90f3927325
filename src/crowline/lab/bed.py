"""A test bed in the kernel: two hosts in places of one's choice, and a public server between them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crowline.base.errors import LocalProblem
from crowline.lab.access import HTTPS_PORT
from crowline.lab.impairment import Impairment
from crowline.lab.namespaces import HOST_DELAY, Internet, TranslatorChoice
from crowline.lab.peer_script import Role
from crowline.lab.places import Host, Site
from crowline.lab.profile import Profile

STUN_PORT = 3478
SERVER_PATIENCE = 20.0  # seconds until the server must listen
_POLL = 0.02  # seconds between looks at it
_PROXY_NAMES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@dataclass(frozen=True, slots=True)
class Bed:
    """One laboratory with one pair of hosts. `sites` has `a` and `b`; `folder` is for what all may see."""

    internet: Internet
    folder: Path
    server: Host
    sites: Mapping[Role, Site]
    servers: dict[str, subprocess.Popen[Any]] = field(default_factory=dict)

    def host(self, role: Role) -> Host:
        return self.server if role == "server" else self.sites[role].hosts[0]

    def describe(self) -> list[str]:
        """A line for each of the three: its name, its own addresses, what it is behind."""
        lines = [f"server  {' '.join(self.server.addresses)}"]
        for role, site in self.sites.items():
            behind = f"behind {site.outside[0]}, " if site.is_translated else ""
            lines.append(f"{role}       {' '.join(site.hosts[0].addresses)}  ({behind}{site.profile.name})")
        return lines

    def proxy(self, role: Role) -> str:
        """The URL of the HTTP proxy that this host must use; "" without one."""
        return "" if role == "server" else self.sites[role].proxy

    def server_address(self, role: Role) -> str:
        """The server's first address of a family that this host has, in brackets where that is IPv6."""
        has_ipv4 = any(":" not in address for address in self.host(role).addresses)
        address = next(each for each in self.server.addresses if (":" not in each) == has_ipv4)
        return address if has_ipv4 else f"[{address}]"

    def facts(self, role: Role) -> dict[str, str]:
        """What a program on that host is told by environment variables."""
        where = self.server_address(role)
        url, stun = f"ws://{where}:{HTTPS_PORT}", f"{where}:{STUN_PORT}"
        facts = {
            "CROWLINE_LAB_ROLE": role,
            "CROWLINE_LAB_ADDRESSES": " ".join(self.host(role).addresses),
            "CROWLINE_LAB_SERVERS": " ".join(self.server.addresses),
            "CROWLINE_LAB_FOLDER": str(self.folder),
        }
        if self.servers:
            facts |= {"CROWLINE_LAB_URL": url, "CROWLINE_LAB_STUN": stun, "CROWLINE_SERVER": url}
        proxy = self.proxy(role)
        return facts | (dict.fromkeys(_PROXY_NAMES, proxy) if proxy else {})

    def environment(self, role: Role) -> dict[str, str]:
        """This process's environment without its proxies and settings of Crowline, and the facts."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.lower().endswith("_proxy") and not name.startswith("CROWLINE_")
        }
        return kept | self.facts(role)

    def spawn(self, role: Role, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program there; the facts are added to the environment in `options`."""
        environment = options.pop("env", None)
        environment = self.environment(role) if environment is None else {**environment, **self.facts(role)}
        return self.internet.spawn(self.host(role), argv, env=environment, **options)

    def serve(self) -> None:
        """Run `crowline serve` on the server and wait until it listens, on port 443 that firewalls let pass.

        Raises `LocalProblem` where it does not.
        """
        argv = [sys.executable, "-m", "crowline", "serve", "--listen", f"[::]:{HTTPS_PORT}"]
        argv += ["--stun-listen", f"[::]:{STUN_PORT}"]
        if len(self.server.addresses) > 2:
            argv += ["--alternate-address", self.server.addresses[1]]
        complaints = self.internet.folder() / "server.err"
        with complaints.open("wb") as errors:
            nowhere = subprocess.DEVNULL
            process = self.spawn("server", argv, stdin=nowhere, stdout=nowhere, stderr=errors)
        deadline = time.monotonic() + SERVER_PATIENCE
        while not self.internet.inside(self.server, _is_listening):
            if process.poll() is not None or time.monotonic() > deadline:
                said = complaints.read_text(errors="replace").strip().splitlines()[-1:]
                raise LocalProblem(f"The laboratory's server does not listen: {' '.join(said)}")
            time.sleep(_POLL)
        self.servers["crowline"] = process


@contextmanager
def build_bed(
    a: Profile,
    b: Profile,
    *,
    rtt: float = 4 * HOST_DELAY,
    line: Impairment | None = None,
    translator: TranslatorChoice = "auto",
) -> Iterator[Bed]:
    """Build it, and remove it at the end.

    `rtt`: seconds between the two hosts and back; each is a quarter of that away from the router, where the
    server is. `line` says what else happens on each host's line, in each direction; its delay is not used.
    """
    line = replace(line or Impairment(), delay=rtt / 4)
    with Internet(translator=translator) as internet:
        server = internet.server()
        sites: dict[Role, Site] = {
            "a": internet.site(a, name="a", impairment=line),
            "b": internet.site(b, name="b", impairment=line),
        }
        yield Bed(internet, internet.folder(), server, sites)


def _is_listening() -> bool:
    """Whether a TCP socket of this namespace listens on port 443, whatever the family."""
    wanted, listening = f":{HTTPS_PORT:04X}", "0A"
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for entry in Path(f"/proc/thread-self/net/{name}").read_text().splitlines()[1:]:
                fields = entry.split()
                if fields[1].endswith(wanted) and fields[3] == listening:
                    return True
    return False
