"""The ``candidate`` attribute of session descriptions, read and written (RFC 8839 §5.1, RFC 6544 §4.5).

    candidate:FOUNDATION COMPONENT TRANSPORT PRIORITY ADDRESS PORT typ TYPE [raddr ADDRESS rport PORT]
              [tcptype TYPE] [NAME VALUE]…

Rules of this codec:

1. `CandidateLine.parse` raises `MalformedIceLine` and nothing else, whatever the text.
2. What RFC 8839 has an agent ignore (other transports and types, host names that are not mDNS names) is
   malformed here: who catches the one error has ignored the candidate.
3. Nothing is written that would not be read back as the same line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.base.errors import MalformedMessage, UsageError
from crowline.ice.candidate import TCP, UDP, Candidate, CandidateType, TcpType

# Characters; real lines have fewer than 300, and the cap bounds everything that is kept of one.
MAX_LINE = 1024
MAX_COMPONENT = 256  # RFC 8839 §5.1
MAX_PRIORITY = 2**31 - 1  # RFC 8839 §5.1
DISCARD_PORT = 9  # what active TCP candidates say, for they listen nowhere (RFC 6544 §4.5)

_PRINTABLE = re.compile(r"[\x20-\x7e]*")
_FOUNDATION = re.compile(r"[A-Za-z0-9+/]{1,32}")
# Of mDNS names as RFC 6762 §3 has them: one label, and `.local`.
_MDNS_NAME = re.compile(r"[a-z0-9_-]{1,63}\.local")
_TOKEN = re.compile(r"[A-Za-z0-9.!%*_+`'~-]+")  # RFC 3261 §25.1
_FIELDS = 8  # as far as `typ TYPE`


class MalformedIceLine(MalformedMessage):
    """The other side described its end of the connection in a way that cannot be read."""


@dataclass(frozen=True, slots=True)
class CandidateLine:
    """One candidate as the other side is told of it.

    `host` is an IP address in canonical form, or an mDNS name in small letters that has to be looked up.
    `related_host` and `related_port` are ``""`` and 0 where there is no related address. `extensions` are
    names and values in their order, ``("generation", "0")`` for example.
    """

    foundation: str
    component: int
    transport: str
    priority: int
    host: str
    port: int
    type: CandidateType
    related_host: str = ""
    related_port: int = 0
    tcp_type: TcpType | None = None
    extensions: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> CandidateLine:
        """Read a line, with or without ``a=`` and ``candidate:`` before it and a line end behind.

        Raises `MalformedIceLine`.
        """
        fields = strip_line(text).removeprefix("a=").removeprefix("candidate:").split(" ")
        if len(fields) % 2 and fields[-1] == "":
            fields.pop()  # one blank at the end
        if len(fields) < _FIELDS or len(fields) % 2 or fields[6] != "typ":
            raise MalformedIceLine("a candidate line without its eight fields")
        pairs = list(zip(fields[_FIELDS::2], fields[_FIELDS + 1 :: 2], strict=True))
        known, extensions = _split(pairs)
        transport = fields[2].lower()
        return cls(
            _matched(_FOUNDATION, fields[0], "foundation"),
            _number(fields[1], 1, MAX_COMPONENT, "component"),
            transport,
            _number(fields[3], 1, MAX_PRIORITY, "priority"),
            _host(fields[4]),
            _port(fields[5]),
            _candidate_type(fields[7]),
            _host(known["raddr"]) if "raddr" in known else "",
            _port(known.get("rport", "0")),
            _tcp_type(transport, known.get("tcptype")),
            extensions,
        )

    @classmethod
    def of(
        cls, candidate: Candidate, *, extensions: Mapping[str, str] | None = None, private: bool = False
    ) -> CandidateLine:
        """The line of a local candidate.

        `private` tells nothing of the address behind it, as for a relayed one that must not give away where
        we are (RFC 8445 §19.1). Raises `UsageError` for one that cannot be told.
        """
        related = candidate.related
        host, port = (related.host, related.port) if related is not None else ("", 0)
        if private and related is not None:
            host, port = ("::", DISCARD_PORT) if related.is_ipv6 else ("0.0.0.0", DISCARD_PORT)
        line = cls(
            candidate.foundation,
            candidate.component,
            candidate.transport,
            candidate.priority,
            candidate.address.host,
            candidate.address.port,
            candidate.type,
            host,
            port,
            candidate.tcp_type,
            tuple((extensions or {}).items()),
        )
        line.write()
        return line

    @property
    def is_name(self) -> bool:
        """Whether `host` is an mDNS name."""
        return _is_name(self.host)

    def write(self) -> str:
        """``candidate:…``, without ``a=`` and line end. Raises `UsageError` for what is no candidate."""
        text = " ".join(["candidate:" + " ".join(self._fields()), *(f"{n} {v}" for n, v in self.extensions)])
        try:
            same = self.parse(text) == self
        except MalformedIceLine as error:
            raise UsageError(f"That candidate cannot be written: {error.message}.") from None
        if not same:
            raise UsageError("That candidate cannot be written: it would be read as another.")
        return text

    def candidate(self, host: str | None = None) -> Candidate:
        """The other side's candidate for an agent; `host` is the IP address that a name was found to have.

        Raises `UsageError` for a name without one, or where `host` is no IP address.
        """
        try:
            address = Address.parse(host or self.host, self.port)
        except ValueError:
            raise UsageError(f"{host or self.host} is not an IP address.") from None
        has_related = self.related_host and not _is_name(self.related_host)
        return Candidate(
            self.foundation,
            self.component,
            self.transport,
            self.priority,
            address,
            self.type,
            Address(self.related_host, self.related_port) if has_related else None,
            tcp_type=self.tcp_type,
        )

    def _fields(self) -> list[str]:
        fields = [
            *(self.foundation, str(self.component), self.transport, str(self.priority)),
            *(self.host, str(self.port), "typ", self.type.value),
        ]
        if self.related_host:
            fields += ["raddr", self.related_host, "rport", str(self.related_port)]
        if self.tcp_type is not None:
            fields += ["tcptype", self.tcp_type.value]
        return fields


def strip_line(text: str) -> str:
    """A line without its end and the blanks before it. Raises `MalformedIceLine` for what is no line."""
    if len(text) > MAX_LINE:
        raise MalformedIceLine(f"a line of more than {MAX_LINE} characters")
    line = text.rstrip("\r\n").lstrip(" ")
    if not _PRINTABLE.fullmatch(line):
        raise MalformedIceLine("a line with characters that do not print")
    return line


def is_token(text: str) -> bool:
    """Whether that may be the name of an attribute or an option."""
    return _TOKEN.fullmatch(text) is not None


def _split(pairs: list[tuple[str, str]]) -> tuple[dict[str, str], tuple[tuple[str, str], ...]]:
    """What is understood here, and the rest."""
    known: dict[str, str] = {}
    extensions: list[tuple[str, str]] = []
    for name, value in pairs:
        if not is_token(name):
            raise MalformedIceLine("an extension without a name")
        if name not in ("raddr", "rport", "tcptype"):
            extensions.append((name, value))
        elif name in known:
            raise MalformedIceLine(f"a candidate line with two {name}")
        else:
            known[name] = value
    if "rport" in known and "raddr" not in known:
        raise MalformedIceLine("a related port without an address")
    return known, tuple(extensions)


def _matched(pattern: re.Pattern[str], text: str, what: str) -> str:
    if not pattern.fullmatch(text):
        raise MalformedIceLine(f"a {what} that is none")
    return text


def _number(text: str, least: int, most: int, what: str) -> int:
    # Ten digits hold every number here; `int` itself would take signs, blanks and other scripts' digits.
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and least <= int(text) <= most):
        raise MalformedIceLine(f"a {what} that is no number from {least} to {most}")
    return int(text)


def _port(text: str) -> int:
    return _number(text, 0, 65535, "port")


def _host(text: str) -> str:
    name = text.lower()
    if _is_name(name):
        return name
    try:
        return Address.parse(text, 0).host
    except ValueError:
        raise MalformedIceLine("an address that is neither an IP address nor an mDNS name") from None


def _is_name(host: str) -> bool:
    return _MDNS_NAME.fullmatch(host) is not None


def _candidate_type(text: str) -> CandidateType:
    try:
        return CandidateType(text.lower())
    except ValueError:
        raise MalformedIceLine("a candidate of an unknown type") from None


def _tcp_type(transport: str, text: str | None) -> TcpType | None:
    """RFC 6544 §4.5: every TCP candidate has one, and no other has."""
    if transport == UDP and text is None:
        return None
    if transport != TCP or text is None:
        raise MalformedIceLine("a candidate of an unknown transport, or without the TCP type that it needs")
    try:
        return TcpType(text.lower())
    except ValueError:
        raise MalformedIceLine("a candidate of an unknown TCP type") from None
