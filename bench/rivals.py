"""The programs that figures are compared with: in an environment of their own, and without a way out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".venv-rivals"
PACKAGES = [
    "aioquic==1.7.2",
    "aiortc==1.16.0",
    "iroh==1.2.0",
    "magic-wormhole==0.24.0",
    "magic-wormhole-mailbox-server==0.8.0",
    "qh3==2.1.0",
]
# One device with an address beside loopback: aiortc takes no candidate from the latter.
_NETWORK = """
ip link set lo up
ip link add v0 type veth peer name v1
ip address add 192.0.2.1/24 dev v0
ip link set v0 up
ip link set v1 up
exec "$@"
"""
_INSIDE = "CROWLINE_BENCH_INSIDE"


def python() -> str:
    """The interpreter that has them; they are installed where they are not there yet."""
    program = PLACE / "bin" / "python"
    ready = PLACE / ".ready"
    if not ready.exists() or ready.read_text() != "\n".join(PACKAGES):
        print("installing the rivals …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", PLACE], check=True)
        install = [program, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *PACKAGES], check=True)
        ready.write_text("\n".join(PACKAGES))
    return str(program)


def go_inside() -> None:
    """Go on in a network namespace without a way out, where that is allowed: no rival can call its home."""
    if os.environ.get(_INSIDE) or os.geteuid() != 0:
        return
    python()
    os.environ[_INSIDE] = "1"
    again = [sys.executable, *sys.argv]
    os.execvp("unshare", ["unshare", "--net", "sh", "-c", _NETWORK, "sh", *again])
