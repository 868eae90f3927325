"""HTTP as far as a gateway needs it: one request and one answer for each connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus

MAX_REQUEST = 64 * 1024  # bytes; real ones have one or two thousand
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class HttpAsked:
    """A request; the names of `headers` are in lower case."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def encode(self, host: str) -> bytes:
        """The request as it is sent to `host`, with its port."""
        lines = [f"{self.method} {self.target} HTTP/1.1", f"Host: {host}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.body:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An answer, sent `delay` seconds after the question.

    `is_cut`: the connection ends in the middle of the body. `is_endless`: the body is sent again and again.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    delay: float = 0.0
    is_cut: bool = False
    is_endless: bool = False

    def encode(self) -> bytes:
        """The answer, an endless one with its body once."""
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if not self.is_endless:
            lines.append(f"Content-Length: {len(self.body)}")
        body = self.body[: len(self.body) // 2] if self.is_cut else self.body
        return "\r\n".join([*lines, "", ""]).encode() + body


def read_request(data: bytes) -> HttpAsked | None:
    """The request in `data`; ``None`` while it is not complete. Raises `ValueError` for what is none."""
    head, end, body = data.partition(_END)
    if not end:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = _fields(lines)
    if len(body) < int(headers.get("content-length", "0")):
        return None
    return HttpAsked(method, target, headers, body)


def read_reply(data: bytes) -> tuple[int, bytes] | None:
    """Status and body of a whole answer; ``None`` for one that was cut off. Raises `ValueError`."""
    head, end, body = data.partition(_END)
    first, *lines = head.decode("latin-1").split("\r\n")
    length = _fields(lines).get("content-length")
    if not end or (length is not None and len(body) < int(length)):
        return None
    return int(first.split(" ")[1]), body


def _fields(lines: list[str]) -> dict[str, str]:
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    return fields
