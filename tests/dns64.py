"""A name server with DNS64 (RFC 6147), as far as the discovery of a NAT64 prefix needs one."""

from __future__ import annotations

import ipaddress
import struct

from crowline.base.nat64 import WELL_KNOWN_HOSTS, WELL_KNOWN_NAME
from crowline.lab import nat64


def dns64_answer(query: bytes) -> bytes:
    """What a name server with DNS64 says: both well-known addresses behind its prefix, and nothing else."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += 1 + query[at]
    kind = int.from_bytes(query[at + 1 : at + 3])
    hosts = WELL_KNOWN_HOSTS if ".".join(labels) == WELL_KNOWN_NAME and kind == 28 else ()
    answers = b"".join(
        struct.pack("!HHHIH", 0xC00C, 28, 1, 60, 16) + ipaddress.ip_address(nat64.synthesized(host)).packed
        for host in hosts
    )
    head = query[:2] + struct.pack("!HHHHH", 0x8180, 1, len(hosts), 0, 0)
    return head + query[12 : at + 5] + answers
