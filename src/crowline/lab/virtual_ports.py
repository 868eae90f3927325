"""Ports that a virtual system gives to sockets that name none."""

from __future__ import annotations

from crowline.base.addresses import Address
from crowline.lab.network import Host
from crowline.lab.virtual import Internet
from crowline.lab.virtual_tcp import EPHEMERAL


def free_address(internet: Internet, host: Host, own: str) -> Address:
    """A random port of that address of the host's at which no UDP socket is."""
    while True:
        address = Address(own, internet.random.randint(*EPHEMERAL))
        if address not in host.sockets:
            return address
