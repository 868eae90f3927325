"""What each router was found to speak, kept in the user's state folder so that the next time is quicker.

The file names no network: its keys are hashed with a secret of this machine, and mean nothing elsewhere. What
cannot be read or written is forgotten without a word: it would only have saved a second.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from crowline.net.gateway import Gateway, station_of
from crowline.net.state_file import SECRET_BYTES, hashed, read_state, replace_state, state_folder
from crowline.portmap.router_events import Protocol
from crowline.portmap.router_port import KnownRouter
from crowline.portmap.upnp.element import MalformedUpnp
from crowline.portmap.upnp.gateway_url import GatewayUrl

FILE = "routers.json"
# Routers that are remembered; whoever travels further forgets the ones that were not met for longest.
MAX_ROUTERS = 64
MAX_BYTES = 1 << 16


class _Router(msgspec.Struct, frozen=True):
    """The description's place at the router: a port and a target, and the zero where there is none."""

    protocol: str
    port: int = 0
    target: str = ""


class _Kept(msgspec.Struct, frozen=True):
    secret: bytes
    routers: dict[str, _Router] = {}


class RouterMemory:
    """One file. `folder` is where it lies, without one in the user's state folder."""

    def __init__(self, folder: Path | None = None, *, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._folder = folder
        self._entropy = entropy

    def get(self, gateway: Gateway) -> KnownRouter | None:
        """What is known of that router."""
        kept = self._read()
        found = kept.routers.get(_key(kept.secret, gateway)) if kept is not None else None
        if found is None or found.protocol not in Protocol.__members__:
            return None
        return KnownRouter(Protocol[found.protocol], _location(found, gateway.host))

    def put(self, gateway: Gateway, known: KnownRouter) -> None:
        """Remember that, unless it is known already."""
        if self.get(gateway) == known:
            return
        kept = self._read() or _Kept(self._entropy(SECRET_BYTES))
        location = known.location
        # A description at another address than the router's own is found again by its search.
        is_there = location is not None and location.address.host == gateway.host
        port, target = (location.address.port, location.target) if location and is_there else (0, "")
        key = _key(kept.secret, gateway)
        routers = {each: router for each, router in kept.routers.items() if each != key}
        routers[key] = _Router(known.protocol.name, port, target)
        for each in list(routers)[:-MAX_ROUTERS]:
            del routers[each]
        with suppress(OSError):
            replace_state(self._path(), msgspec.json.encode(_Kept(kept.secret, routers)), self._entropy)

    def _read(self) -> _Kept | None:
        try:
            kept = msgspec.json.decode(read_state(self._path(), MAX_BYTES), type=_Kept)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        return kept if len(kept.secret) == SECRET_BYTES else None

    def _path(self) -> Path:
        return (self._folder or state_folder()) / FILE


def _key(secret: bytes, gateway: Gateway) -> str:
    """Half of all routers are at 192.168.1.1: what tells them apart is the number of their network card."""
    name = gateway.host.encode() + b" " + station_of(gateway.host, gateway.index)
    return hashed(name, secret)


def _location(router: _Router, host: str) -> GatewayUrl | None:
    if not router.port:
        return None
    name = f"[{host}]" if ":" in host else host
    try:
        return GatewayUrl.parse(f"http://{name}:{router.port}{router.target}", host)
    except MalformedUpnp:
        return None
