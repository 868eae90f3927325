"""The part of DNS that finds the address of a name by multicast (RFC 1035 §4.1, RFC 6762 §18)."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable

from msgspec import Struct, field

A, AAAA, SRV, ANY = 1, 28, 33, 255
"""Types of records and questions: an IPv4 address, an IPv6 address, a service's port, whatever there is."""

TTL = 120
"""Seconds for which an address may be remembered (RFC 6762 §10)."""

LEGACY_TTL = 10
"""The same for who asks as of a usual name server (RFC 6762 §6.7)."""

# More questions or records than anybody sends in one message; the rest is not looked at.
MAX_RECORDS = 64
MAX_NAME = 255
_MAX_LABEL = 63
# Places that one name may be put together from: nobody needs more than two or three, and a chain of thousands
# of pointers would be followed for each record.
MAX_POINTERS = 16
_HEADER = struct.Struct("!6H")
_SERVICE = struct.Struct("!HHH")  # priority, weight, port; a name follows
_RESPONSE = 0x8000
_AUTHORITATIVE = 0x0400
_OPCODE_AND_CODE = 0x780F  # both are zero in multicast DNS
_INTERNET = 1
# RFC 6762 §10.2 and §5.4: this bit says "these are all the records", or "answer by unicast".
_TOP_BIT = 0x8000
_POINTER = 0xC0


class MalformedDns(ValueError):
    """Bytes that are no DNS message."""


class Question(Struct, frozen=True):
    """`name` is in lower case and has no dot at its end."""

    name: str
    kind: int


class DnsMessage(Struct, frozen=True):
    """What matters of a message: its questions, and the addresses in its answers."""

    id: int = 0
    is_response: bool = False
    questions: list[Question] = field(default_factory=list)
    addresses: list[tuple[str, str]] = field(default_factory=list)
    """Names with a host each."""
    services: list[tuple[str, int]] = field(default_factory=list)
    """Names with a port each (RFC 2782)."""


def parse(data: bytes) -> DnsMessage:
    """Raises `MalformedDns`. Records of other types and classes are passed over."""
    try:
        number, flags, questions, *records = _HEADER.unpack_from(data)
        if flags & _OPCODE_AND_CODE:
            raise MalformedDns("not a message of multicast DNS")
        message = DnsMessage(number, bool(flags & _RESPONSE))
        at = _HEADER.size
        for _ in range(min(questions, MAX_RECORDS)):
            name, at = _read_name(data, at)
            kind, _ = struct.unpack_from("!HH", data, at)
            at += 4
            message.questions.append(Question(name, kind))
        for _ in range(min(sum(records), MAX_RECORDS) if questions <= MAX_RECORDS else 0):
            at = _read_record(data, at, message)
    except (struct.error, IndexError) as error:
        raise MalformedDns("a message that ends too early") from error
    return message


def write_query(name: str) -> bytes:
    """Ask for both kinds of addresses of `name`, to be answered by multicast."""
    questions = b"".join(_write_name(name) + struct.pack("!HH", kind, _INTERNET) for kind in (A, AAAA))
    return _HEADER.pack(0, 0, 2, 0, 0, 0) + questions


def write_service_query(name: str) -> bytes:
    """Ask at which port that service is, to be answered by multicast."""
    return _HEADER.pack(0, 0, 1, 0, 0, 0) + _write_name(name) + struct.pack("!HH", SRV, _INTERNET)


def write_service_answer(name: str, port: int, target: str) -> bytes:
    """Tell everybody that the service is at that port of this machine, whose name is `target`."""
    data = struct.pack("!HHH", 0, 0, port) + _write_name(target)
    head = struct.pack("!HHIH", SRV, _INTERNET | _TOP_BIT, TTL, len(data))
    return _HEADER.pack(0, _RESPONSE | _AUTHORITATIVE, 0, 1, 0, 0) + _write_name(name) + head + data


def write_answer(name: str, host: str) -> bytes:
    """Tell everybody that `name` has the address `host` and no other of its kind."""
    return _HEADER.pack(0, _RESPONSE | _AUTHORITATIVE, 0, 1, 0, 0) + _write_record(
        name, host, _INTERNET | _TOP_BIT, TTL
    )


def write_legacy_answer(question: Question, number: int, host: str) -> bytes:
    """The same for one who asked as of a usual name server, whose question and number are repeated."""
    asked = _write_name(question.name) + struct.pack("!HH", question.kind, _INTERNET)
    head = _HEADER.pack(number, _RESPONSE | _AUTHORITATIVE, 1, 1, 0, 0)
    return head + asked + _write_record(question.name, host, _INTERNET, LEGACY_TTL)


def kind_of(host: str) -> int:
    """Which type of record has that address."""
    return AAAA if ":" in host else A


def _read_record(data: bytes, at: int, message: DnsMessage) -> int:
    name, at = _read_name(data, at)
    length: int
    kind, class_, _, length = struct.unpack_from("!HHIH", data, at)
    at += 10
    packed = data[at : at + length]
    if len(packed) != length:
        raise MalformedDns("a record that ends too early")
    if class_ & ~_TOP_BIT == _INTERNET and (kind, length) in ((A, 4), (AAAA, 16)):
        message.addresses.append((name, str(ipaddress.ip_address(packed))))
    elif class_ & ~_TOP_BIT == _INTERNET and kind == SRV and length > _SERVICE.size:
        message.services.append((name, _SERVICE.unpack_from(packed)[2]))
    return at + length


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    """The name at that place and where it ends. Pointers lead backwards only, so that there is an end."""
    labels: list[bytes] = []
    size, pointers, end, limit = 0, 0, -1, at
    while length := data[at]:
        if length & _POINTER == _POINTER:
            end = at + 2 if end < 0 else end
            at = (length & ~_POINTER) << 8 | data[at + 1]
            pointers += 1
            if at >= limit or pointers > MAX_POINTERS:
                raise MalformedDns("a name that does not end")
            limit = at
            continue
        label = data[at + 1 : at + 1 + length]
        size += length + 1
        if length > _MAX_LABEL or len(label) != length or size > MAX_NAME:
            raise MalformedDns("a name that is too long")
        labels.append(label)
        at += 1 + length
    name = b".".join(labels).decode("ascii", "replace").lower()
    return name, at + 1 if end < 0 else end


def _write_name(name: str) -> bytes:
    labels: Iterable[bytes] = (label.encode("ascii") for label in name.split("."))
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _write_record(name: str, host: str, class_: int, ttl: int) -> bytes:
    packed = ipaddress.ip_address(host).packed
    return _write_name(name) + struct.pack("!HHIH", kind_of(host), class_, ttl, len(packed)) + packed
