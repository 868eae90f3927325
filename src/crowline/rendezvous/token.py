"""What two people hand each other where there is no server: one text each way, pasted or as a picture.

    version u8 | role u8 | public key 32 | certificate's SHA-256 32 | (joining side: answered token 8)
    | user fragment: u8 + text | password: u8 + text | number of candidates u8
    | for each: kind and family u8, priority u32, port u16, address 4 or 16 | checksum 4

in URL-safe base64 behind `PREFIX`. Nothing in it is secret: whoever reads both tokens of a meeting learns
addresses, and no key (X25519). Whoever can change both on their way can sit in between; the words on both
screens differ then.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
import struct
from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.base.errors import WrongCode
from crowline.rendezvous.role import Role
from crowline.rendezvous.signals import CandidateSignal

PREFIX = "crowline-"
VERSION = 1
MAX_CANDIDATES = 16
"""Candidates in one token: a picture of it must still fit on a screen."""
MAX_TEXT = 4000
"""Characters of pasted text that are looked at; the longest token has 900."""
KEY_SIZE = 32
ANSWERED_SIZE = 8

_CHECKSUM_SIZE = 4
# Characters of a user fragment and of a password: what ICE asks for (RFC 8839 §5.4); ours have 8 and 24.
_MIN_NAMES, _MAX_NAME = (4, 22), 64
_KINDS = ("host", "srflx", "prflx", "relay")
_IPV6 = 0x04
_CANDIDATE = struct.Struct("!BIH")
_IN_TEXT = re.compile(PREFIX + r"([A-Za-z0-9_-]+)")


class BadToken(WrongCode):
    """That is not a token, or not all of one."""


@dataclass(frozen=True, slots=True)
class Token:
    """`answers`: of the joining side, the fingerprint of the token that it answers; else empty."""

    role: Role
    key: bytes
    certificate: bytes
    ufrag: str
    pwd: str
    candidates: tuple[CandidateSignal, ...]
    answers: bytes = b""

    @classmethod
    def parse(cls, text: str) -> Token:
        """Read what a person pasted, with line breaks and words around it. Raises `BadToken`."""
        if _IN_TEXT.search("".join(text[:MAX_TEXT].split())) is None:
            raise BadToken(hint=f"A token begins with {PREFIX} and is one long word.")
        body = _find(text[:MAX_TEXT].split())
        if body is None:
            raise BadToken(hint="Copy it again, all of it.")
        if body[0] != VERSION:
            raise BadToken("That token is of another version of this program.", hint="Update the older one.")
        try:
            return _read(body)
        except (struct.error, IndexError, ValueError) as error:
            raise BadToken(hint="Copy it again, all of it.") from error

    @property
    def body(self) -> bytes:
        """The bytes without the checksum: what keys are bound to."""
        parts = [bytes([VERSION, self.role is Role.JOIN]), self.key, self.certificate, self.answers]
        parts += [_name(self.ufrag), _name(self.pwd), bytes([len(self.candidates)])]
        for each in self.candidates:
            address = ipaddress.ip_address(each.host)
            head = _KINDS.index(each.kind) | (_IPV6 if address.version == 6 else 0)
            parts += [_CANDIDATE.pack(head, each.priority, each.port), address.packed]
        return b"".join(parts)

    @property
    def fingerprint(self) -> bytes:
        """What an answer to this token repeats."""
        return hashlib.sha256(self.body).digest()[:ANSWERED_SIZE]

    def __str__(self) -> str:
        body = self.body
        data = body + hashlib.sha256(body).digest()[:_CHECKSUM_SIZE]
        return PREFIX + base64.urlsafe_b64encode(data).decode().rstrip("=")


def _name(text: str) -> bytes:
    data = text.encode("ascii")
    return bytes([len(data)]) + data


def _find(words: list[str]) -> bytes | None:
    """What a checksum fits to: where a chat broke the token, it goes on with the next word; where that is the
    next word of a sentence, it does not.
    """
    for end in range(len(words), 0, -1):
        found = _IN_TEXT.search("".join(words[:end]))
        if found is None:
            return None
        letters = found[1]
        try:
            data = base64.b64decode(letters + "=" * (-len(letters) % 4), altchars=b"-_", validate=True)
        except ValueError:
            continue
        body, checksum = data[:-_CHECKSUM_SIZE], data[-_CHECKSUM_SIZE:]
        if body and hashlib.sha256(body).digest()[:_CHECKSUM_SIZE] == checksum:
            return body
    return None


def _read(body: bytes) -> Token:
    """Raises `ValueError`, `IndexError`, `struct.error`."""
    role = {0: Role.HOST, 1: Role.JOIN}.get(body[1])
    if role is None:
        raise ValueError("no such role")
    at = 2
    sizes = (KEY_SIZE, KEY_SIZE, ANSWERED_SIZE if role is Role.JOIN else 0)
    key, certificate, answers = (body[at + sum(sizes[:n]) : at + sum(sizes[: n + 1])] for n in range(3))
    at += sum(sizes)
    names = []
    for shortest in _MIN_NAMES:
        length = body[at]
        name = body[at + 1 : at + 1 + length]
        if len(name) != length or not shortest <= length <= _MAX_NAME:
            raise ValueError("a name that is too long, or too short")
        names.append(name.decode("ascii"))
        at += 1 + length
    count = body[at]
    if count > MAX_CANDIDATES:
        raise ValueError("too many candidates")
    at += 1
    candidates = []
    for number in range(count):
        head, priority, port = _CANDIDATE.unpack_from(body, at)
        at += _CANDIDATE.size
        size = 16 if head & _IPV6 else 4
        packed = body[at : at + size]
        at += size
        if head & ~_IPV6 >= len(_KINDS) or not 1 <= priority < 2**31:
            raise ValueError("not a candidate")
        address = Address.parse(str(ipaddress.ip_address(packed)), port)
        kind = _KINDS[head & ~_IPV6]
        candidates.append(
            CandidateSignal(str(number + 1), 1, "udp", priority, address.host, port, kind)  # type: ignore[arg-type]
        )
    if at != len(body):
        raise ValueError("more than one token")
    ufrag, pwd = names
    return Token(role, key, certificate, ufrag, pwd, tuple(candidates), answers)
