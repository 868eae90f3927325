"""A SOCKS5 server (RFC 1928): the conversation with one client, and the header of its datagrams.

No authentication: who can reach the port may use it, and it is for this machine's own programs.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from enum import IntEnum

from crowline.base.addresses import Address
from crowline.base.errors import MalformedMessage
from crowline.forward.messages import MAX_HOST, Reason

_VERSION = 5
_NO_AUTHENTICATION, _NO_METHOD = 0, 0xFF
_IPV4, _NAME, _IPV6 = 1, 3, 4
_PORT = struct.Struct("!H")
# RFC 1928 §7: two bytes of nothing, and the number of a fragment: none.
_WHOLE = b"\x00\x00\x00"


class Command(IntEnum):
    CONNECT = 1
    BIND = 2
    UDP_ASSOCIATE = 3


class Reply(IntEnum):
    """RFC 1928 §6."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_NOT_SUPPORTED = 8


_REPLIES = {
    Reason.REFUSED: Reply.REFUSED,
    Reason.UNREACHABLE: Reply.NETWORK_UNREACHABLE,
    Reason.SILENT: Reply.TTL_EXPIRED,
    Reason.UNKNOWN_NAME: Reply.HOST_UNREACHABLE,
    Reason.NOT_ALLOWED: Reply.NOT_ALLOWED,
}


class MalformedSocks(MalformedMessage):
    """That is no SOCKS5."""


@dataclass(frozen=True, slots=True)
class SocksRequest:
    """What a client wants."""

    command: Command
    host: str
    port: int


class SocksConversation:
    """The server's half, up to the request. `outgoing` is to be sent after each `feed`."""

    def __init__(self) -> None:
        self.outgoing = b""
        self._pending = b""
        self._is_greeted = False

    def feed(self, data: bytes) -> SocksRequest | None:
        """The request, once it is whole. Raises `MalformedSocks`; `outgoing` is then the last word."""
        self._pending += data
        self.outgoing = b""
        if not self._is_greeted and not self._greet():
            return None
        return self._request()

    @property
    def rest(self) -> bytes:
        """What the client sent behind its request, without waiting for the reply."""
        return self._pending

    def _greet(self) -> bool:
        pending = self._pending
        if pending[:1] not in (b"", bytes([_VERSION])):
            raise MalformedSocks("A program spoke something else than SOCKS5.")
        if len(pending) < 2 or len(pending) < 2 + pending[1]:
            return False
        methods, self._pending = pending[2 : 2 + pending[1]], pending[2 + pending[1] :]
        if _NO_AUTHENTICATION not in methods:
            self.outgoing = bytes([_VERSION, _NO_METHOD])
            raise MalformedSocks("A program asks for a kind of login that is not needed here.")
        self.outgoing = bytes([_VERSION, _NO_AUTHENTICATION])
        self._is_greeted = True
        return True

    def _request(self) -> SocksRequest | None:
        pending = self._pending
        if len(pending) < 4:
            return None
        try:
            parsed = parse_address(memoryview(pending)[3:])
            if pending[0] != _VERSION or pending[2] != 0:
                raise MalformedSocks("A program sent a request that is no SOCKS5.")
        except MalformedSocks:
            self.outgoing += reply(Reply.ADDRESS_NOT_SUPPORTED)
            raise
        if parsed is None:
            return None
        host, port, size = parsed
        self._pending = pending[3 + size :]
        try:
            command = Command(pending[1])
        except ValueError:
            command = Command.BIND  # as little supported
        if command is Command.BIND:
            self.outgoing += reply(Reply.COMMAND_NOT_SUPPORTED)
            raise MalformedSocks("A program asks for what this SOCKS5 server does not do.")
        return SocksRequest(command, host, port)


def reply(code: Reply | Reason | None, bound: Address | None = None) -> bytes:
    """The answer to a request; None is success. `bound`: where datagrams are to be sent (UDP ASSOCIATE)."""
    if isinstance(code, Reason):
        code = _REPLIES.get(code, Reply.GENERAL_FAILURE)
    host, port = (bound.host, bound.port) if bound is not None else ("0.0.0.0", 0)
    return bytes([_VERSION, code or Reply.SUCCEEDED, 0]) + format_address(host, port)


def format_address(host: str, port: int) -> bytes:
    """RFC 1928 §5: type, host, port. Raises `ValueError` for a name that is too long or none."""
    try:
        packed = ipaddress.ip_address(host).packed
    except ValueError:
        name = host.encode("idna") if not host.isascii() else host.encode()
        if not 0 < len(name) <= MAX_HOST:
            raise ValueError("a name of that length is none") from None
        return bytes([_NAME, len(name)]) + name + _PORT.pack(port)
    return bytes([_IPV4 if len(packed) == 4 else _IPV6]) + packed + _PORT.pack(port)


def parse_address(view: memoryview) -> tuple[str, int, int] | None:
    """Host, port and the bytes they took; None where some are missing. Raises `MalformedSocks`."""
    if len(view) < 2:
        return None
    kind = view[0]
    sizes = {_IPV4: 4, _IPV6: 16, _NAME: view[1]}
    if kind not in sizes:
        raise MalformedSocks("An address of a kind that SOCKS5 does not know.")
    start = 2 if kind == _NAME else 1
    end = start + sizes[kind]
    if len(view) < end + 2:
        return None
    (port,) = _PORT.unpack(view[end : end + 2])
    return _host(kind, bytes(view[start:end])), port, end + 2


def _host(kind: int, data: bytes) -> str:
    if kind != _NAME:
        return str(ipaddress.ip_address(data))
    try:
        name = data.decode("ascii")
    except UnicodeDecodeError:
        raise MalformedSocks("A name that is none.") from None
    if not name or any(char <= " " or char == "\x7f" for char in name):
        raise MalformedSocks("A name that is none.")
    return name


def format_datagram(data: bytes | memoryview) -> bytes:
    """For a client, from address and payload: RFC 1928 §7, unfragmented."""
    return _WHOLE + data


def parse_datagram(data: bytes) -> bytes | None:
    """Address and payload of a client's datagram, which `split_datagram` parses; None for a fragment."""
    return data.removeprefix(_WHOLE) if data.startswith(_WHOLE) else None


def split_datagram(data: memoryview) -> tuple[str, int, memoryview] | None:
    """Host, port and payload of what begins with an address; None for anything else."""
    try:
        parsed = parse_address(data)
    except MalformedSocks:
        return None
    if parsed is None:
        return None
    host, port, size = parsed
    return host, port, data[size:]
