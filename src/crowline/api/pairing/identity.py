"""Both sides show, on a stream of their own and inside the sealed session, which long-term keys they have."""

from __future__ import annotations

from typing import Annotated

import msgspec

from crowline.api.peer import Peer, Stream
from crowline.base.errors import ProtocolViolation
from crowline.rendezvous.long_term_key import KEY_BYTES, SIGNATURE_BYTES, LongTermKey, proves
from crowline.rendezvous.role import Role

_MAX_CARD = 1024  # bytes of one line, with a name of 64 characters in it
_BINDING = "identity"


class Card(msgspec.Struct, frozen=True):
    """Who a side says it is. `name` is a suggestion; escape it before you show it."""

    key: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    proof: Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
    name: Annotated[str, msgspec.Meta(max_length=64)] = ""


_decoder = msgspec.json.Decoder(Card)


async def exchange_cards(peer: Peer, stream: Stream, own: LongTermKey, name: str = "") -> Card:
    """The other side's card, whose key it has proven. Raises `ProtocolViolation`.

    A proof is good in this meeting and from this side alone: it covers the role and what both derive from the
    meeting's key.
    """
    binding = peer.export_key(_BINDING)
    own_role = Role.HOST if peer.is_host else Role.JOIN
    card = Card(own.public, own.prove(own_role, binding), name)
    await stream.write(msgspec.json.encode(card) + b"\n")
    theirs = read_card(await stream.readline())
    if theirs.key == own.public:
        raise ProtocolViolation(
            "Both sides are the same user of the same computer.", hint="Each of the two needs its own folder."
        )
    if not proves(theirs.proof, theirs.key, own_role.other, binding):
        raise ProtocolViolation("The other side does not have the key that it shows.")
    return theirs


def read_card(line: bytes) -> Card:
    """What the other side sent. Raises `ProtocolViolation`."""
    try:
        if len(line) > _MAX_CARD or not line.endswith(b"\n"):
            raise ValueError
        return _decoder.decode(line)
    except (ValueError, RecursionError):
        raise ProtocolViolation("The other side does not say who it is.") from None
