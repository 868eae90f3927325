"""SOAP as gateways speak it: an action goes out in an envelope, its results or a fault come back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from crowline.base.errors import UsageError
from crowline.portmap.upnp.description import Service
from crowline.portmap.upnp.element import Element, MalformedUpnp, parse
from crowline.portmap.upnp.upnp_error import words_of

MAX_VALUE = 256
"""Characters of an argument; descriptions are the longest, and routers cut them much earlier."""

MAX_RESULT = 1024
"""Characters of a result that are kept; the results that are read have less than 64."""


@dataclass(frozen=True, slots=True)
class Action:
    """The name of an action and its arguments, in the order of its specification."""

    name: str
    arguments: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """The action was done; `results` by their names in lower case."""

    results: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fault:
    """The gateway says no; `code` is one of `UpnpError`, or one of the vendor's own."""

    code: int

    @property
    def words(self) -> str:
        return f"the gateway says: {words_of(self.code)}"


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Nothing that could be understood; nobody knows whether the action was done. `words` says why."""

    words: str


Outcome: TypeAlias = Answered | Fault | Unanswered


def write_envelope(service: Service, action: Action) -> bytes:
    """The body of the request. Raises `UsageError` for a value that XML or a router cannot bear."""
    arguments = "".join(f"<{name}>{_escape(value)}</{name}>" for name, value in action.arguments)
    return (
        '<?xml version="1.0"?>\r\n'
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"'
        ' s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
        f'<u:{action.name} xmlns:u="{service.type.value}">{arguments}</u:{action.name}>'
        "</s:Body></s:Envelope>\r\n"
    ).encode()


def write_headers(service: Service, action: Action) -> tuple[tuple[str, str], ...]:
    """The header fields of the request beside those that every HTTP request has."""
    return (
        ("Content-Type", 'text/xml; charset="utf-8"'),
        ("SOAPAction", f'"{service.type.value}#{action.name}"'),
    )


def check_value(value: str) -> None:
    """Raises `UsageError` for an argument that is too long or has control characters."""
    if len(value) > MAX_VALUE or not all(_is_plain(character) for character in value):
        raise UsageError("A value for the router is too long, or has control characters.")


def parse_outcome(action: Action, status: int, body: bytes) -> Outcome:
    """What an HTTP answer means. The content type is not looked at: many routers send a wrong one."""
    if 300 <= status < 400:
        return Unanswered("the gateway sends us elsewhere")
    if status == 200 and not body.strip():
        return Answered()
    try:
        root = parse(body)
    except MalformedUpnp as error:
        return Unanswered(error.message if status in (200, 500) else f"the gateway answers HTTP {status}")
    fault = _fault(root)
    if fault is not None:
        return fault
    results = root.find(f"{action.name}response".lower())
    if results is None or status != 200:
        return Unanswered(f"the gateway answers HTTP {status} and not the question")
    return Answered({child.name: child.text[:MAX_RESULT] for child in results.children})


def _fault(root: Element) -> Fault | None:
    """The code of a fault wherever it stands: it is found at several depths."""
    error = root.find("upnperror")
    if error is None:
        return None
    code = error.child_text("errorcode")
    return Fault(int(code)) if code.isascii() and code.isdigit() and len(code) <= 5 else Fault(0)


def _escape(value: str) -> str:
    check_value(value)
    return value.translate(_ESCAPES)


def _is_plain(character: str) -> bool:
    """What XML 1.0 §2.2 allows, without the control characters and line breaks it also allows."""
    code = ord(character)
    is_control = code < 0x20 or 0x7F <= code <= 0x9F
    is_no_character = 0xD800 <= code <= 0xDFFF or code & 0xFFFE == 0xFFFE
    return not is_control and not is_no_character


_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"})
