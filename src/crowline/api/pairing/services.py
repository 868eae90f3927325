"""Where two who know each other meet: a mailbox for each thing they do, so that several go on at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from crowline.api.presence import who_waits
from crowline.base.secrets import Secret
from crowline.net.known_peers import KnownPeer
from crowline.rendezvous.keys import derive
from crowline.rendezvous.role import Role


class Service(StrEnum):
    """What two sides meet for; the name of the command."""

    SEND = "send"
    PIPE = "pipe"
    FORWARD = "forward"
    CHAT = "chat"
    PING = "ping"


@dataclass(frozen=True, slots=True)
class Standing:
    """`waits`: the commands that a known peer runs now and waits with; None where its server did not say."""

    peer: KnownPeer
    waits: tuple[str, ...] | None


def meeting_secret(peer: KnownPeer, service: str, *, sends: bool | None = None) -> Secret:
    """What both sides meet by. `sends`: whether this side is the one that gives, where that matters: two who
    send to each other are two meetings.
    """
    giver = "" if sends is None else f" from {(peer.role if sends else peer.role.other).value}"
    return derive(peer.secret, f"known {service}{giver}")


async def standing_of(server: str, peers: Sequence[KnownPeer]) -> list[Standing]:
    """Who of them waits for this side at `server` now, and with what. Raises `ServerUnreachable`.

    The server learns that somebody asks for mailboxes that it knows nothing of.
    """
    ways = _ways()
    secrets = [meeting_secret(peer, service, sends=sends) for peer in peers for _, service, sends in ways]
    found = await who_waits(server, secrets)
    standings = []
    for index, peer in enumerate(peers):
        roles = found[index * len(ways) : (index + 1) * len(ways)]
        waits = tuple(verb for (verb, _, _), there in zip(ways, roles, strict=True) if _is_there(peer, there))
        standings.append(Standing(peer, waits))
    return standings


def _ways() -> list[tuple[str, Service, bool | None]]:
    """What the other side may run: its command, the service, and whether this side would send."""
    both = [(each.value, each, None) for each in Service if each is not Service.SEND]
    return [("send", Service.SEND, False), ("receive", Service.SEND, True), *both]


def _is_there(peer: KnownPeer, roles: frozenset[Role]) -> bool:
    return peer.role.other in roles
