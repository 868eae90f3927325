"""How a client speaks to the server."""

from __future__ import annotations

import msgspec

from crowline.base.addresses import Address
from crowline.base.transport import Transport


class FiveTuple(msgspec.Struct, frozen=True, gc=False):
    """Client address, the server address that it asked, and the protocol (RFC 8656 §2)."""

    client: Address
    local: Address | None
    transport: Transport = Transport.UDP
