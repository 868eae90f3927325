"""What the kernel laboratory asks of the system: programs, addresses, kernel parameters, nftables rules."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from crowline.base.errors import LocalProblem
from crowline.lab import linux_nat
from crowline.lab.namespace import inside
from crowline.lab.presets import SYMMETRIC

# No address of the kernel's own making, no waiting for one, and no filter between bridged hosts.
PARAMETERS = {
    "ipv6/conf/all/accept_ra": "0",
    "ipv6/conf/default/accept_ra": "0",
    "ipv6/conf/default/accept_dad": "0",
    "ipv6/conf/default/router_solicitations": "0",
    "bridge/bridge-nf-call-iptables": "0",
    "bridge/bridge-nf-call-ip6tables": "0",
}
FORWARDING = {"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"}

_PACKAGES = {"ip": "iproute2", "tc": "iproute2", "nft": "nftables", "miniupnpd": "miniupnpd"}
_SIOCGIFFLAGS = 0x8913  # linux/sockios.h
_IFF_RUNNING = 0x40  # linux/if.h
_INTERFACE_REQUEST = struct.Struct("16sH22x")
_LINK_PATIENCE = 5.0  # seconds that a link gets to come up
_POLL = 0.002  # seconds between looks at it
TUNNEL_QUEUE = 4096  # packets that the kernel keeps for the wire: a burst of runs, cut up

_SYSTEM_FOLDERS = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"  # a user's PATH often lacks the first ones


def find_program(name: str) -> str:
    """Where `ip`, `nft` or `miniupnpd` is. Raises `LocalProblem` where it is not installed."""
    path = shutil.which(name) or shutil.which(name, path=_SYSTEM_FOLDERS)
    if path is None:
        package = _PACKAGES[name]
        raise LocalProblem(f"The laboratory needs {package}.", hint=f"Install it: apt-get install {package}")
    return path


def ip(namespace: str | None, *commands: str) -> None:
    """Run `ip` commands, in that namespace or in this one, up to the first that fails: `LocalProblem`."""
    where = ["-n", namespace] if namespace else []
    _run([find_program("ip"), *where, "-batch", "-"], "\n".join(commands) + "\n")


def configure(
    namespace: str,
    device: str,
    addresses: Sequence[str],
    *,
    v4_bits: int = 32,
    v4_via: str = "",
    v6_via: str = "",
) -> None:
    """Bring a device up with these addresses; all else goes there too, through a gateway where given."""
    families = {":" in address: v6_via if ":" in address else v4_via for address in addresses}
    commands = [f"link set {device} up"]
    for address in addresses:
        if ":" in address:
            commands.append(f"addr add {address}/{64 if v6_via else 128} dev {device} nodad")
        else:
            commands.append(f"addr add {address}/{v4_bits} dev {device}")
    for is_v6, via in families.items():
        target = "::/0" if is_v6 else "0.0.0.0/0"
        commands.append(f"route add {target} {f'via {via} ' if via else ''}dev {device}")
    ip(namespace, *commands)


def set_kernel_parameters(namespace: str, parameters: Mapping[str, str]) -> None:
    """Write those below `/proc/sys/net`; one that this kernel does not have is left out."""

    def write() -> None:
        for name, value in parameters.items():
            with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6 or without bridge filters
                Path("/proc/sys/net", name).write_text(value)

    inside(namespace, write)


def await_running(namespace: str, devices: Sequence[str]) -> None:
    """Wait until these devices carry packets: the kernel lets bridges and cables begin in its own time, and
    loses what is sent before. Raises `LocalProblem` after some seconds."""

    def wait() -> bool:
        deadline = time.monotonic() + _LINK_PATIENCE
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            while not all(_is_running(asker, device) for device in devices):
                if time.monotonic() > deadline:
                    return False
                time.sleep(_POLL)
        return True

    if not inside(namespace, wait):
        raise LocalProblem("The kernel does not bring the laboratory's links up.")


def load_rules(namespace: str, rules: str) -> None:
    """Give nftables a rule set. Raises `LocalProblem`."""
    _run([find_program("nft"), "-f", "-"], rules, namespace)


def shape(namespace: str, device: str, rate: float, burst: int, queue: int) -> None:
    """Let a device send `rate` bytes a second, `burst` at once; `queue` bytes wait, the rest is dropped."""
    bucket = f"root tbf rate {round(rate * 8)}bit burst {burst} limit {queue}"
    _run([find_program("tc"), "-batch", "-"], f"qdisc replace dev {device} {bucket}\n", namespace)


def has_kernel_translator(namespace: str) -> bool:
    """Whether nftables, bridges and virtual cables work here; tried in that namespace."""
    try:
        load_rules(namespace, linux_nat.rules(SYMMETRIC, "44.0.0.2", firewalled=True))
        ip(namespace, "link add try0 type bridge", "link add try1 type veth peer name try2")
    except LocalProblem:
        return False
    return True


def _is_running(asker: socket.socket, device: str) -> bool:
    request = _INTERFACE_REQUEST.pack(device.encode(), 0)
    _, flags = _INTERFACE_REQUEST.unpack(fcntl.ioctl(asker, _SIOCGIFFLAGS, request))
    return bool(flags & _IFF_RUNNING)


def _run(argv: Sequence[str], text: str, namespace: str | None = None) -> None:
    """Feed `text` to a program. Raises `LocalProblem` with what it complained about."""

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv, input=text, capture_output=True, text=True, check=False)

    result = inside(namespace, run) if namespace else run()
    if result.returncode != 0:
        complaint = result.stderr.strip().splitlines()
        raise LocalProblem(f"{Path(argv[0]).name} failed: {complaint[0] if complaint else result.returncode}")
