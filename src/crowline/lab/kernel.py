"""What the kernel laboratory asks of the system: namespaces, addresses, kernel parameters, nftables rules."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from crowline.base.errors import LocalProblem
from crowline.lab.namespace import inside

_PACKAGES = {"ip": "iproute2", "nft": "nftables"}
_SYSTEM_FOLDERS = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"  # a user's PATH often lacks the first ones


def find_program(name: str) -> str:
    """Where `ip` or `nft` is. Raises `LocalProblem` where it is not installed."""
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


def set_kernel_parameters(namespace: str, *, forwarding: bool = False) -> None:
    """No address of its own making, and no translation of bridged packets; optionally a router."""
    parameters = {
        "ipv6/conf/all/accept_ra": "0",
        "ipv6/conf/default/accept_ra": "0",
        "ipv6/conf/default/accept_dad": "0",  # an address is usable at once
        "ipv6/conf/default/router_solicitations": "0",
        "bridge/bridge-nf-call-iptables": "0",
        "bridge/bridge-nf-call-ip6tables": "0",
    }
    if forwarding:
        parameters |= {"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"}

    def write() -> None:
        for name, value in parameters.items():
            with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6 or without bridge filters
                Path("/proc/sys/net", name).write_text(value)

    inside(namespace, write)


def load_rules(namespace: str, *, randomly: bool, firewalled: bool) -> None:
    """Make the namespace a translator: device `wan` is outside.

    What comes from outside unasked is dropped before connection tracking keeps it: an entry of a stray packet
    would take the port away from the host inside that is about to use it.
    """
    _run([find_program("nft"), "-f", "-"], _rules(randomly=randomly, firewalled=firewalled), namespace)


def has_kernel_translator(namespace: str) -> bool:
    """Whether nftables, bridges and virtual cables work here; tried in that namespace."""
    try:
        load_rules(namespace, randomly=True, firewalled=True)
        ip(namespace, "link add try0 type bridge", "link add try1 type veth peer name try2")
    except LocalProblem:
        return False
    return True


def _rules(*, randomly: bool, firewalled: bool) -> str:
    unasked = 'iifname "wan" ct state { new, invalid } drop'
    guard = f"chain unasked {{ type filter hook prerouting priority mangle; {unasked}; }}"
    flags = " random,fully-random" if randomly else ""
    translate = f'oifname "wan" masquerade{flags}'
    lines = [
        "table ip crowline {",
        guard,
        f"chain translate {{ type nat hook postrouting priority srcnat; {translate}; }}",
        "}",
    ]
    if firewalled:
        # Neighbour discovery stays inside each link: the tunnel has none, and the guard looks at `wan` alone.
        lines += ["table ip6 crowline {", guard, "}"]
    return "\n".join(lines) + "\n"


def _run(argv: Sequence[str], text: str, namespace: str | None = None) -> None:
    """Feed `text` to a program. Raises `LocalProblem` with what it complained about."""

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv, input=text, capture_output=True, text=True, check=False)

    result = inside(namespace, run) if namespace else run()
    if result.returncode != 0:
        complaint = result.stderr.strip().splitlines()
        raise LocalProblem(f"{Path(argv[0]).name} failed: {complaint[0] if complaint else result.returncode}")
