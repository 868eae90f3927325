"""Who was paired with: one small file for each, in a folder that this user alone can read.

Unlike what lies in the state folder this cannot be found out again: it is kept with the user's data, and a
file that cannot be written or read is an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import msgspec

from crowline.base.errors import LocalProblem, UsageError
from crowline.base.secrets import Secret
from crowline.net.state_file import read_state, replace_state
from crowline.rendezvous.long_term_key import KEY_BYTES, LongTermKey
from crowline.rendezvous.role import Role

OWN_FILE = "identity.json"
PEERS_FOLDER = "peers"
MAX_FILE = 8192  # bytes; a record has 400
MAX_PEERS = 1000  # more than anybody has computers and friends
MAX_NAME = 32
"""Characters of a name: what fits on a line beside other things."""
_FILE_DIGITS = 32

_Key = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]


@dataclass(frozen=True, slots=True)
class KnownPeer:
    """Somebody to meet again without a code.

    `public_key` is theirs (Ed25519), `secret` what both have, `role` this side's at each meeting, `server`
    the URL of where to meet, empty where that was not known.
    """

    name: str
    public_key: bytes
    secret: Secret
    role: Role
    server: str = ""


class _Own(msgspec.Struct, frozen=True):
    secret: _Key


class _Record(msgspec.Struct, frozen=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
    public_key: _Key
    secret: _Key
    role: Role
    server: Annotated[str, msgspec.Meta(max_length=2048)] = ""


class KnownPeers:
    """The files of one user. `folder` is where they lie, without one in the user's data folder."""

    def __init__(self, folder: Path | None = None, *, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._folder = folder or _data_folder()
        self._entropy = entropy

    def own_key(self) -> LongTermKey:
        """What proves this user to others; made when it is first asked for. Raises `LocalProblem`."""
        path = self._folder / OWN_FILE
        try:
            if not path.exists():
                self._make_own(path)
            own = msgspec.json.decode(read_state(path, MAX_FILE), type=_Own)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise LocalProblem(
                f"{path} cannot be read.", hint="Without it nobody who was paired with knows this computer."
            ) from None
        except OSError as error:
            raise LocalProblem(f"{path} cannot be written: {error.strerror}.") from error
        return LongTermKey(Secret(own.secret))

    def all(self) -> list[KnownPeer]:
        """By name. What is no record is left out."""
        with suppress(OSError):
            paths = sorted((self._folder / PEERS_FOLDER).glob("*.json"))[:MAX_PEERS]
            found = [peer for path in paths if (peer := _read(path)) is not None]
            return sorted(found, key=lambda peer: peer.name.casefold())
        return []

    def by_key(self, public_key: bytes) -> KnownPeer | None:
        """Whoever has that key."""
        return next((peer for peer in self.all() if peer.public_key == public_key), None)

    def get(self, name: str) -> KnownPeer:
        """Raises `UsageError` where nobody has that name."""
        for peer in self.all():
            if peer.name.casefold() == name.casefold():
                return peer
        raise UsageError(
            f"Nobody called {name} is known here.",
            hint="`crowline peers` lists them, `crowline pair` adds one.",
        )

    def add(self, peer: KnownPeer) -> KnownPeer:
        """Keep `peer`, under another name where somebody else has that one. Whoever was known by the same key
        is replaced. Raises `LocalProblem`.
        """
        taken = {each.name.casefold() for each in self.all() if each.public_key != peer.public_key}
        if len(taken) >= MAX_PEERS:
            raise LocalProblem(
                "Too many are known already.", hint="`crowline peers remove NAME` removes one."
            )
        peer = replace(peer, name=_free(usual_name(peer.name) or "peer", taken))
        self._write(peer)
        return peer

    def remove(self, name: str) -> KnownPeer:
        """Forget whoever has that name. Raises `UsageError`, `LocalProblem`."""
        peer = self.get(name)
        try:
            self._path(peer).unlink(missing_ok=True)
        except OSError as error:
            raise LocalProblem(f"{self._path(peer)} cannot be removed: {error.strerror}.") from error
        return peer

    def rename(self, old: str, new: str) -> KnownPeer:
        """Raises `UsageError` for a name that is none or taken, and `LocalProblem`."""
        peer = self.get(old)
        check_name(new)
        if any(each.name.casefold() == new.casefold() for each in self.all() if each != peer):
            raise UsageError(f"Somebody else is called {new}.")
        peer = replace(peer, name=new)
        self._write(peer)
        return peer

    def _make_own(self, path: Path) -> None:
        """Where two programs do so at once, both get what the first one wrote."""
        fresh = path.with_name(f"{OWN_FILE}.new.{self._entropy(8).hex()}")
        replace_state(fresh, msgspec.json.encode(_Own(self._entropy(KEY_BYTES))), self._entropy, lasting=True)
        try:
            os.link(fresh, path)
        except FileExistsError:
            return
        except OSError:
            # A file system without hard links.
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)

    def _write(self, peer: KnownPeer) -> None:
        record = _Record(peer.name, peer.public_key, peer.secret.reveal(), peer.role, peer.server)
        path = self._path(peer)
        try:
            replace_state(path, msgspec.json.encode(record), self._entropy, lasting=True)
        except OSError as error:
            raise LocalProblem(f"{path} cannot be written: {error.strerror}.") from error

    def _path(self, peer: KnownPeer) -> Path:
        digits = sha256(peer.public_key).hexdigest()[:_FILE_DIGITS]
        return self._folder / PEERS_FOLDER / f"{digits}.json"


def usual_name(text: str) -> str:
    """What may be made of `text`: letters, digits, dots, hyphens and underscores, empty where it has none."""
    kept = "".join(char if char.isalnum() or char in "._-" else "-" for char in text)
    while "--" in kept:
        kept = kept.replace("--", "-")
    return kept.strip("-._")[:MAX_NAME].rstrip("-._")


def check_name(text: str) -> None:
    """Raises `UsageError` where that is no name."""
    if not text or usual_name(text) != text:
        raise UsageError(
            f"That is no name: it has up to {MAX_NAME} letters, digits, dots, hyphens and underscores."
        )


def _data_folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("crowline", appauthor=False))


def _read(path: Path) -> KnownPeer | None:
    try:
        record = msgspec.json.decode(read_state(path, MAX_FILE), type=_Record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    name = usual_name(record.name)
    if not name:
        return None
    return KnownPeer(name, record.public_key, Secret(record.secret), record.role, record.server)


def _free(name: str, taken: set[str]) -> str:
    """`name`, or with a number where somebody has it."""
    number, found = 1, name
    while found.casefold() in taken:
        number += 1
        found = f"{usual_name(name[: MAX_NAME - 5])}-{number}"
    return found
