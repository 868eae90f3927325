"""Direct connections between two machines, through the NATs and firewalls between them.

async with crowline.host() as room:
    print(room.code)
    peer = await room.peer()
    stream = await peer.open_stream()

async with crowline.join("7-maple-orbit-candle") as peer:
    async for stream in peer.streams():
        ...
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from crowline.base.errors import (
    CrowlineError,
    IntegrityFailed,
    Interrupted,
    LocalProblem,
    NobodyCame,
    NoPath,
    ProtocolViolation,
    Refused,
    ServerUnreachable,
    UsageError,
    WrongCode,
)

if TYPE_CHECKING:
    from crowline.api.chat import Chat
    from crowline.api.doctor.examination import Examination, examine
    from crowline.api.forwarding.forwarder import forward_ports
    from crowline.api.pairing import KnownPeer, KnownPeers, pair, room_with
    from crowline.api.path import Path
    from crowline.api.peer import Peer, Stream
    from crowline.api.ping import pinging
    from crowline.api.pipe import pipe
    from crowline.api.port_mapping.mapper import PortMap, PortMapper, PortNotOpened
    from crowline.api.room import Room, host, join
    from crowline.api.serverless import (
        host_by_token,
        host_on_lan,
        host_towards,
        join_by_token,
        join_from,
        join_on_lan,
    )

__all__ = [
    "Chat",
    "CrowlineError",
    "Examination",
    "IntegrityFailed",
    "Interrupted",
    "KnownPeer",
    "KnownPeers",
    "LocalProblem",
    "NoPath",
    "NobodyCame",
    "Path",
    "Peer",
    "PortMap",
    "PortMapper",
    "PortNotOpened",
    "ProtocolViolation",
    "Refused",
    "Room",
    "ServerUnreachable",
    "Stream",
    "UsageError",
    "WrongCode",
    "examine",
    "forward_ports",
    "host",
    "host_by_token",
    "host_on_lan",
    "host_towards",
    "join",
    "join_by_token",
    "join_from",
    "join_on_lan",
    "pair",
    "pinging",
    "pipe",
    "room_with",
]

# Imported on first use: QUIC and the PAKE cost more time than a command's --help may take.
_LAZY = {
    "Chat": "crowline.api.chat",
    "KnownPeer": "crowline.api.pairing",
    "KnownPeers": "crowline.api.pairing",
    "pair": "crowline.api.pairing",
    "room_with": "crowline.api.pairing",
    "Examination": "crowline.api.doctor.examination",
    "Path": "crowline.api.path",
    "Peer": "crowline.api.peer",
    "PortMap": "crowline.api.port_mapping.mapper",
    "PortMapper": "crowline.api.port_mapping.mapper",
    "PortNotOpened": "crowline.api.port_mapping.mapper",
    "Stream": "crowline.api.peer",
    "Room": "crowline.api.room",
    "examine": "crowline.api.doctor.examination",
    "forward_ports": "crowline.api.forwarding.forwarder",
    "pinging": "crowline.api.ping",
    "pipe": "crowline.api.pipe",
    "host": "crowline.api.room",
    "host_by_token": "crowline.api.serverless",
    "host_on_lan": "crowline.api.serverless",
    "host_towards": "crowline.api.serverless",
    "join": "crowline.api.room",
    "join_by_token": "crowline.api.serverless",
    "join_from": "crowline.api.serverless",
    "join_on_lan": "crowline.api.serverless",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'crowline' has no attribute {name!r}")
    value: object = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
