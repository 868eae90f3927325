"""Two sides that have met by a code become known to each other."""

from __future__ import annotations

import platform

from crowline.api.pairing.identity import exchange_cards
from crowline.api.peer import Peer
from crowline.api.service import Service, agreed_stream
from crowline.base.errors import ProtocolViolation
from crowline.base.secrets import Secret
from crowline.net.known_peers import KnownPeer, KnownPeers, usual_name
from crowline.rendezvous.role import Role

_SERVICE = Service("pair")
_KEPT = b"kept\n"


def own_name() -> str:
    """What this computer calls itself to others, unless told otherwise."""
    return usual_name(platform.node().partition(".")[0]) or "peer"


async def pair(
    peer: Peer, *, server: str = "", own: str = "", called: str = "", known: KnownPeers | None = None
) -> KnownPeer:
    """Remember the other side, which calls this too: both can meet again without a code.

    `server` is the URL of where, `own` what this side calls itself, `called` what the other side is called
    here: by default what it was called before, else what it calls itself, with a number where that is taken.
    Nothing is kept where the other side kept nothing. Raises `ProtocolViolation`, `LocalProblem`.
    """
    known = known or KnownPeers()
    key = known.own_key()
    stream = await agreed_stream(peer, _SERVICE)
    card = await exchange_cards(peer, stream, key, own or own_name())
    role = Role.HOST if peer.is_host else Role.JOIN
    secret = Secret(peer.export_key("pair"))
    before = known.by_key(card.key)
    name = called or (card.name if before is None else before.name)
    kept = known.add(KnownPeer(name, card.key, secret, role, server))
    try:
        await stream.write(_KEPT)
        if await stream.readline() != _KEPT:
            raise ProtocolViolation("The other side did not keep what it takes to meet again.")
    except BaseException:
        if before is None:
            known.remove(kept.name)
        else:
            known.add(before)
        raise
    await stream.close()
    return kept
