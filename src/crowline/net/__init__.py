"""The only place with sockets, clocks, threads, files and DNS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crowline.base.lazy import lazy

if TYPE_CHECKING:
    from crowline.net.arrival import address_of
    from crowline.net.binding import Binding
    from crowline.net.ice_connection import IceConnection
    from crowline.net.interfaces import local_addresses
    from crowline.net.mdns import MdnsNames
    from crowline.net.pump import Pump
    from crowline.net.relayed_address import RelayedAddress, TurnAccount

__all__ = [
    "Binding",
    "IceConnection",
    "MdnsNames",
    "Pump",
    "RelayedAddress",
    "TurnAccount",
    "address_of",
    "local_addresses",
]

__getattr__ = lazy(
    __name__,
    {
        "arrival": "address_of",
        "binding": "Binding",
        "ice_connection": "IceConnection",
        "interfaces": "local_addresses",
        "mdns": "MdnsNames",
        "pump": "Pump",
        "relayed_address": "RelayedAddress TurnAccount",
    },
)
