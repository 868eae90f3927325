"""The lines by which two agents describe themselves to each other (RFC 8839 §5, RFC 8840 §4.4).

One line is one attribute: ``a=NAME:VALUE`` with ``a=`` left out where there is no session description around.
`read_attribute` takes a line of either form and gives a value of one of the types below, whose `write` gives
the line without ``a=``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TypeAlias

from crowline.base.errors import UsageError
from crowline.ice.candidate_line import CandidateLine, MalformedIceLine, is_token, strip_line

# RFC 8839 §5.4.
_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}")
_PASSWORD = re.compile(r"[A-Za-z0-9+/]{22,256}")

TRICKLE = "trickle"
"""The option of an agent that takes candidates one by one (RFC 8838 §3)."""
ICE2 = "ice2"
"""The option of an agent that keeps to RFC 8445 (§10 there)."""


@dataclass(frozen=True, slots=True)
class IceUfrag:
    """The user name fragment of the side that says it."""

    value: str

    def write(self) -> str:
        """Raises `UsageError` for what is none."""
        return _write("ice-ufrag", _UFRAG, self.value)


@dataclass(frozen=True, slots=True)
class IcePwd:
    """The password that checks to the side that says it are signed with."""

    value: str = field(repr=False)

    def write(self) -> str:
        """Raises `UsageError` for what is none."""
        return _write("ice-pwd", _PASSWORD, self.value)


@dataclass(frozen=True, slots=True)
class IceOptions:
    """What the side that says it can do; unknown names mean nothing (RFC 8839 §5.6)."""

    names: tuple[str, ...]

    def write(self) -> str:
        """Raises `UsageError` for what are none."""
        if not self.names or not all(is_token(name) for name in self.names):
            raise UsageError("ICE options are words.")
        return f"ice-options:{' '.join(self.names)}"


@dataclass(frozen=True, slots=True)
class IceLite:
    """The side that says it sends no checks of its own (RFC 8839 §5.3)."""

    def write(self) -> str:
        return "ice-lite"


@dataclass(frozen=True, slots=True)
class EndOfCandidates:
    """The side that says it has told all its candidates (RFC 8840 §8.2)."""

    def write(self) -> str:
        return "end-of-candidates"


IceAttribute: TypeAlias = CandidateLine | IceUfrag | IcePwd | IceOptions | IceLite | EndOfCandidates


def read_attribute(text: str) -> IceAttribute | None:
    """What a line says; ``None`` for an attribute, or a line of a description, that is not ICE's.

    Raises `MalformedIceLine`.
    """
    line = strip_line(text).removeprefix("a=")
    name, _, value = line.partition(":")
    if name == "candidate":
        return CandidateLine.parse(line)
    if name == "ice-ufrag":
        return IceUfrag(_matched(_UFRAG, value, "user name fragment"))
    if name == "ice-pwd":
        return IcePwd(_matched(_PASSWORD, value, "password"))
    if name == "ice-options":
        return _options(value)
    if line == "ice-lite":
        return IceLite()
    if line == "end-of-candidates":
        return EndOfCandidates()
    return None


def _options(value: str) -> IceOptions:
    names = value.split(" ")
    if not all(is_token(name) for name in names):
        raise MalformedIceLine("ICE options that are no words")
    return IceOptions(tuple(names))


def _matched(pattern: re.Pattern[str], value: str, what: str) -> str:
    if not pattern.fullmatch(value):
        raise MalformedIceLine(f"an ICE {what} that is none")
    return value


def _write(name: str, pattern: re.Pattern[str], value: str) -> str:
    if not pattern.fullmatch(value):
        raise UsageError(f"That is no {name}.")
    return f"{name}:{value}"
