"""Default routes on systems without netlink, from what their own programs list."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import lru_cache

# Seconds for a program that reads one table.
_PATIENCE = 3.0
# Seconds in which a listing is not made again.
_SAME = 1.0


@dataclass(frozen=True, slots=True)
class DefaultRoute:
    """A way out: the router and its interface, by number or, where that is 0, by name."""

    gateway: str
    index: int = 0
    interface: str = ""


def listed_default_routes() -> list[DefaultRoute]:
    """What `netstat` or, on Windows, `route` lists; nothing where there is neither."""
    # One program for all the addresses of a machine that are asked about at a time.
    return list(_listed_at(int(time.monotonic() / _SAME)))


@lru_cache(maxsize=1)
def _listed_at(moment: int) -> tuple[DefaultRoute, ...]:
    if sys.platform == "win32":
        return tuple(read_windows_routes(_output("route", "print")))
    return tuple(read_bsd_routes(_output("netstat", "-rn")))


def read_bsd_routes(text: str) -> list[DefaultRoute]:
    """The listing of macOS and the BSDs: destination, gateway, flags, interface."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 4 and words[0] in ("default", "0.0.0.0", "::/0"):
            host, name = _host(words[1]), words[3]
            if host:
                found.append(DefaultRoute(host, interface=name))
    return found


def read_windows_routes(text: str) -> list[DefaultRoute]:
    """The listing of Windows, whose headings are in its user's language.

    IPv4 names the interface by its address, which stands in `interface`; IPv6 by its number.
    """
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 4 and words[:2] == ["0.0.0.0", "0.0.0.0"] and _host(words[2]):
            found.append(DefaultRoute(_host(words[2]), interface=words[3]))
        elif len(words) >= 4 and words[2] == "::/0" and words[0].isdigit() and _host(words[3]):
            found.append(DefaultRoute(_host(words[3]), index=int(words[0])))
    return found


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _host(text: str) -> str:
    """The address without its zone, in canonical form; empty for anything else, such as `link#4`."""
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return ""
