"""What the two sides tell each other, sealed: the hub carries it and cannot read it.

JSON objects, told apart by ``t``. Fields that a newer version adds are ignored; sizes are bounded before
anything is done with them.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Literal, TypeAlias

import msgspec

from crowline.base.errors import MalformedMessage
from crowline.punch.punch_signals import PunchCall, PunchOver, PunchProfile, PunchReady

MAX_SIGNAL = 4096
"""Bytes of one signal; the largest, a description or a farewell, stays far below."""

SIGNALS_VERSION = 1
"""Version of this vocabulary, told in `Description`."""

SESSION_BYTES = 16
"""Bytes by which one end of a session is told from all others."""

Text256 = Annotated[str, msgspec.Meta(max_length=256)]
"""RFC 8445 §5.3: a username fragment or password has at most 256 characters."""
Token = Annotated[str, msgspec.Meta(max_length=32)]
Host = Annotated[str, msgspec.Meta(max_length=45)]
"""The longest text form of an IPv6 address has 45 characters."""
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Fingerprint = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Certificate = Annotated[bytes, msgspec.Meta(max_length=1024)]
"""A self-signed P-256 certificate without extensions has 300 bytes."""


class MalformedSignal(MalformedMessage):
    """The other side sent a signal that cannot be read."""


class Continuation(msgspec.Struct, frozen=True, tag_field="t", tag="continuation"):
    """The first signal of each meeting: which session it is for. `session` is the number that this side drew
    for its own end of it; `peer` is that of the other side, empty as long as this side knows none. `key`
    tells the session's key from others, empty as long as there is none.
    """

    session: Annotated[bytes, msgspec.Meta(min_length=SESSION_BYTES, max_length=SESSION_BYTES)]
    peer: Annotated[bytes, msgspec.Meta(max_length=SESSION_BYTES)] = b""
    key: Annotated[bytes, msgspec.Meta(max_length=SESSION_BYTES)] = b""


class Description(msgspec.Struct, frozen=True, tag_field="t", tag="description"):
    """The first signal: what ICE and links need to know of a side.

    `fingerprint` is the SHA-256 of its certificate (DER) in hexadecimal, `ta_ms` its pacing interval in
    milliseconds, `renominate` whether it takes more than one nomination for a component. `restarts`: it
    takes a later description with other credentials for an ICE restart (RFC 8445 §9), and may send one to
    a side that says the same. `regains`: it tries pairs again that fell silent, and takes a new
    authenticated check there for consent, with a side that says the same. `certificate` is the
    certificate itself, base64 on the wire; a side without it takes no TLS links. One that does not have
    the fingerprint is refused with the whole description. `punches`: it takes part in plans for hard NATs
    (`punch.punch_signals`), with a side that says the same.
    """

    ufrag: Text256
    pwd: Text256
    fingerprint: Fingerprint
    ta_ms: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 50
    renominate: bool = False
    version: Annotated[int, msgspec.Meta(ge=1)] = SIGNALS_VERSION
    certificate: Certificate = b""
    restarts: bool = False
    regains: bool = False
    punches: bool = False

    def __post_init__(self) -> None:
        if self.certificate and sha256(self.certificate).hexdigest() != self.fingerprint:
            raise ValueError("the certificate has another fingerprint")


class CandidateSignal(msgspec.Struct, frozen=True, tag_field="t", tag="candidate"):
    """One candidate (RFC 8445 §5.1). `related_*` is the address below it, empty and 0 where there is none;
    `tcp_type` says who dials where `transport` is TCP (RFC 6544 §4.5)."""

    foundation: Token
    component: Annotated[int, msgspec.Meta(ge=1, le=256)]
    transport: Token
    priority: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    host: Host
    port: Port
    kind: Literal["host", "srflx", "prflx", "relay"]
    related_host: Host = ""
    related_port: Port = 0
    tcp_type: Literal["", "active", "passive", "so"] = ""


class CandidateGone(msgspec.Struct, frozen=True, tag_field="t", tag="candidate-gone"):
    """Nothing can reach this side at that address any more; it may have been learnt from checks alone."""

    host: Host
    port: Port
    transport: Literal["udp", "tcp"] = "udp"


class CandidateFading(msgspec.Struct, frozen=True, tag_field="t", tag="candidate-fading"):
    """That address will be gone soon: what uses it should move to another one of this side."""

    host: Host
    port: Port


class EndOfCandidates(msgspec.Struct, frozen=True, tag_field="t", tag="end-of-candidates"):
    """No candidate follows (RFC 8838 §13)."""


class Hello(msgspec.Struct, frozen=True, tag_field="t", tag="hello"):
    """What a side calls itself; escape it before you show it."""

    name: Annotated[str, msgspec.Meta(max_length=64)] = ""


class Bye(msgspec.Struct, frozen=True, tag_field="t", tag="bye"):
    """The last signal: an exit code and the sentence for the person; escape it before you show it."""

    code: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0
    sentence: Annotated[str, msgspec.Meta(max_length=500)] = ""


Signal: TypeAlias = (
    Continuation
    | Description
    | CandidateSignal
    | CandidateGone
    | CandidateFading
    | EndOfCandidates
    | PunchProfile
    | PunchCall
    | PunchReady
    | PunchOver
    | Hello
    | Bye
)

_decoder = msgspec.json.Decoder(Signal)


def encode(signal: Signal) -> bytes:
    """The bytes to seal."""
    return msgspec.json.encode(signal)


def decode(data: bytes) -> Signal:
    """Raises `MalformedSignal`."""
    if len(data) > MAX_SIGNAL:
        raise MalformedSignal
    try:
        signal: Signal = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise MalformedSignal from None
    return signal
