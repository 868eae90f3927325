"""Which firewalls run on this machine, as far as it tells a program with this user's rights."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from crowline.diagnosis import firewalls
from crowline.diagnosis.facts import FirewallFacts
from crowline.diagnosis.remedies import IPTABLES, NFTABLES

PATIENCE = 2.0
"""Seconds for one tool."""

MAX_OUTPUT = 4 << 20
"""Bytes of what a tool prints: rule sets of busy container hosts have some hundred kilobytes."""

_MAX_FILE = 64 * 1024
_SYSTEM_FOLDERS = "/usr/sbin:/sbin:/usr/local/sbin"  # not in every user's PATH
_UFW_FILES = (Path("/etc/ufw/ufw.conf"), Path("/etc/default/ufw"))
_SOCKETFILTER = "/usr/libexec/ApplicationFirewall/socketfilterfw"


async def local_firewalls() -> tuple[FirewallFacts, ...]:
    """Those that are on, and those of which nothing could be read, with a note."""
    readers = _READERS.get(sys.platform, _READERS["linux"])
    for reader in readers:
        found = await reader()
        if found is not None:
            return (found,)
    return ()


async def _ufw() -> FirewallFacts | None:
    configuration, defaults = _UFW_FILES
    return firewalls.read_ufw(_text(configuration), _text(defaults))


async def _firewalld() -> FirewallFacts | None:
    state = await _said("firewall-cmd", "--state")
    return firewalls.read_firewalld(state or "", await _said("firewall-cmd", "--get-default-zone") or "")


async def _nftables() -> FirewallFacts | None:
    """Where nft may not tell, the older tool may not either: then its name stands for both."""
    if not _path_of("nft"):
        return None
    said = await _said("nft", "-j", "list", "ruleset")
    if said is None:
        return FirewallFacts(NFTABLES, note="only root may read its rules")
    return firewalls.read_nftables(said)


async def _iptables() -> FirewallFacts | None:
    if not _path_of("iptables"):
        return None
    said = await _said("iptables", "-S")
    if said is None:
        return FirewallFacts(IPTABLES, note="only root may read its rules")
    return firewalls.read_iptables(said)


async def _windows() -> FirewallFacts | None:
    return firewalls.read_netsh(await _said("netsh", "advfirewall", "show", "currentprofile") or "")


async def _macos() -> FirewallFacts | None:
    state = await _said(_SOCKETFILTER, "--getglobalstate")
    return firewalls.read_socketfilterfw(state or "", await _said(_SOCKETFILTER, "--getblockall") or "")


_READERS: dict[str, tuple[Callable[[], Awaitable[FirewallFacts | None]], ...]] = {
    "linux": (_ufw, _firewalld, _nftables, _iptables),
    "win32": (_windows,),
    "darwin": (_macos,),
}


def _path_of(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path=_SYSTEM_FOLDERS)


async def _said(program: str, *arguments: str) -> str | None:
    """What it prints; ``None`` where it is missing, fails, or takes too long."""
    path = _path_of(program)
    if path is None:
        return None
    nowhere = asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            path, *arguments, stdin=nowhere, stdout=asyncio.subprocess.PIPE, stderr=nowhere
        )
    except (OSError, NotImplementedError):  # Windows: the loop that has UDP sockets starts no programs
        return await asyncio.to_thread(_said_plainly, path, arguments)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            said = await _all_of(process.stdout)
            return said.decode(errors="replace") if await process.wait() == 0 else None
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _all_of(stream: asyncio.StreamReader) -> bytes:
    """Everything until its end; raises `TimeoutError` beyond `MAX_OUTPUT`, as for a tool that never ends."""
    said = b""
    while more := await stream.read(65536):
        said += more
        if len(said) > MAX_OUTPUT:
            raise TimeoutError
    return said


def _said_plainly(path: str, arguments: tuple[str, ...]) -> str | None:
    import subprocess

    try:
        done = subprocess.run(
            [path, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout[:MAX_OUTPUT].decode(errors="replace")


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE).decode(errors="replace")
    except OSError:
        return ""
