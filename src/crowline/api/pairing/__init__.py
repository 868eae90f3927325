"""Known peers: two sides that met once by a code meet again without one."""

from __future__ import annotations

from crowline.api.pairing.ceremony import own_name, pair
from crowline.api.pairing.known_room import room_with
from crowline.api.pairing.services import Standing, standing_of
from crowline.net.known_peers import KnownPeer, KnownPeers, check_name

__all__ = [
    "KnownPeer",
    "KnownPeers",
    "Standing",
    "check_name",
    "own_name",
    "pair",
    "room_with",
    "standing_of",
]
