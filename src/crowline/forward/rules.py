"""What a person asks to have forwarded, as `ssh` has it: ``[BIND:]PORT:HOST:PORT``, with ``/udp`` as well."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from crowline.base.errors import UsageError
from crowline.forward.messages import MAX_HOST, Transport

# Where things listen unless somebody says otherwise: for this machine's own programs only.
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Target:
    """A host, by name or address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Local:
    """Listen here at `bind`, connect from the other side to `target`."""

    transport: Transport
    bind: Target
    target: Target

    def __str__(self) -> str:
        return f"{self.bind} here → {self.target} over there, {self.transport}"


@dataclass(frozen=True, slots=True)
class Remote:
    """Listen on the other side at `bind`, connect from here to `target`."""

    transport: Transport
    bind: Target
    target: Target

    def __str__(self) -> str:
        return f"{self.bind} over there → {self.target} here, {self.transport}"


@dataclass(frozen=True, slots=True)
class Dynamic:
    """A SOCKS5 server here at `bind`; its clients name what to reach from the other side."""

    bind: Target

    def __str__(self) -> str:
        return f"SOCKS5 at {self.bind} here → what the other side reaches"


Rule: TypeAlias = Local | Remote | Dynamic

# Parts between colons; an IPv6 address stands in brackets.
_PARTS = re.compile(r"(\[[^\[\]\s]*\]|[^:\[\]\s]*)(?::|$)")
_HINT = "It looks like 8080:host.example.org:80, with the address to listen at in front and /udp behind."


def parse_local(text: str) -> Local:
    """Raises `UsageError` for a text that is no rule."""
    return Local(*_parse(text))


def parse_remote(text: str) -> Remote:
    """Raises `UsageError` for a text that is no rule."""
    return Remote(*_parse(text))


def parse_dynamic(text: str) -> Dynamic:
    """``[BIND:]PORT``. Raises `UsageError` for a text that is no rule."""
    parts = _split(text, text)
    if len(parts) > 2:
        raise UsageError(f"{text} is nothing to listen at.", hint="It looks like 1080 or 127.0.0.1:1080.")
    return Dynamic(_bind(parts, text))


def _parse(text: str) -> tuple[Transport, Target, Target]:
    rule, slash, transport = text.partition("/")
    if slash and transport not in ("tcp", "udp"):
        raise UsageError(f"{text} is no rule.", hint=_HINT)
    parts = _split(rule, text)
    if len(parts) == 1:
        # The same port on both ends, of the other machine itself.
        parts = [parts[0], "localhost", parts[0]]
    if len(parts) not in (3, 4):
        raise UsageError(f"{text} is no rule.", hint=_HINT)
    host = parts[-2]
    if not host or len(host) > MAX_HOST:
        raise UsageError(f"{text} names no host.", hint=_HINT)
    bind = _bind(parts[:-2], text)
    return "udp" if transport == "udp" else "tcp", bind, Target(host, _port(parts[-1], text, least=1))


def _bind(parts: list[str], text: str) -> Target:
    host = parts[0] if len(parts) == 2 else LOOPBACK
    if len(host) > MAX_HOST:
        raise UsageError(f"{text} is no rule.", hint=_HINT)
    return Target({"": LOOPBACK, "*": "0.0.0.0"}.get(host, host), _port(parts[-1], text, least=0))


def _split(rule: str, text: str) -> list[str]:
    parts, position = [], 0
    while position <= len(rule):
        match = _PARTS.match(rule, position)
        if match is None:
            raise UsageError(f"{text} is no rule.", hint=_HINT)
        parts.append(match[1].removeprefix("[").removesuffix("]"))
        if match.end() == len(rule) and not match[0].endswith(":"):
            return parts
        position = match.end()
    return parts


def _port(text: str, rule: str, *, least: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and least <= int(text) <= 65535):
        raise UsageError(f"{text or 'Nothing'} in {rule} is no port.", hint=_HINT)
    return int(text)
