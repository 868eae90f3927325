"""A TURN server as this side knows it."""

from __future__ import annotations

from msgspec import Struct

from crowline.base.addresses import Address
from crowline.net.stream import StreamTarget
from crowline.stun.shapes import FAMILY_IPV4, FAMILY_IPV6

BOTH_FAMILIES = (FAMILY_IPV4, FAMILY_IPV6)


class RelayServer(Struct, frozen=True):
    """One server: its UDP addresses and the streams it offers, which all lead to the same relays."""

    datagrams: tuple[Address, ...] = ()
    streams: tuple[StreamTarget, ...] = ()
    families: tuple[int, ...] = BOTH_FAMILIES
