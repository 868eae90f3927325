"""Which plans led through which pair of networks, kept from meeting to meeting in the user's state folder.

The file names no network: its keys are hashed with a secret of this machine, and mean nothing elsewhere. What
cannot be read or written is forgotten without a word: it would only have saved a few seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path

import msgspec

from crowline.net.state_file import SECRET_BYTES, hashed, read_state, replace_state, state_folder
from crowline.punch import plan_memory

FILE = "plans.json"
MAX_BYTES = plan_memory.MAX_BYTES + 1024  # and the secret; a larger file is not ours
# Hosts of one network, as far as plans are concerned: providers give a customer another address of the same
# pool now and then, and an IPv6 site has 48 bits of its own at most (RFC 6177).
_PREFIX_LENGTHS = {4: 24, 6: 48}


class _Kept(msgspec.Struct, frozen=True):
    secret: bytes
    plans: msgspec.Raw = msgspec.Raw(b"null")


class PlanStore:
    """One file. `folder` is where it lies, without one in the user's state folder."""

    def __init__(self, folder: Path | None = None, *, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._folder = folder
        self._entropy = entropy
        self._secret = b""

    def load(self) -> bytes:
        """What was kept last, as JSON; empty where there is nothing."""
        kept = self._read()
        self._secret = kept.secret if kept is not None else self._entropy(SECRET_BYTES)
        return b"" if kept is None or bytes(kept.plans) == b"null" else bytes(kept.plans)

    def save(self, plans: bytes) -> None:
        """Keep this JSON in place of what was kept; `load` comes first."""
        with suppress(OSError, msgspec.MsgspecError):
            data = msgspec.json.encode(_Kept(self._secret, msgspec.Raw(plans)))
            if len(data) <= MAX_BYTES:
                replace_state(self._path(), data, self._entropy)

    def key(self, own: str, peer: str) -> str:
        """The name of a pair of networks, each given by an address that the internet sees; after `load`."""
        networks = f"{_network(own)} {_network(peer)}".encode()
        return hashed(networks, self._secret)

    def _read(self) -> _Kept | None:
        try:
            kept = msgspec.json.decode(read_state(self._path(), MAX_BYTES), type=_Kept)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        return kept if len(kept.secret) == SECRET_BYTES else None

    def _path(self) -> Path:
        return (self._folder or state_folder()) / FILE


def _network(host: str) -> str:
    address = ip_address(host)
    return str(ip_network((address, _PREFIX_LENGTHS[address.version]), strict=False))
