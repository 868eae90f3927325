"""XML of a router, read with distrust: bounded, without document types, without namespaces.

Routers differ in the case of their tags and in their namespaces, and some use prefixes that they never
declare. None of that carries meaning here, so elements are known by their local names in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml.ElementTree import DefusedXMLParser

from crowline.base.errors import MalformedMessage

MAX_DOCUMENT = 64 * 1024
"""Bytes of a document; descriptions of real gateways have 2 to 20 KiB."""

MAX_DEPTH = 32
"""Elements inside each other; a gateway's service stands at depth 9."""

MAX_ELEMENTS = 4096
"""Elements of a document; real descriptions have some hundred."""

# Before the first tag, routers send byte order marks and blank lines; after the last one, zero bytes.
_PADDING = "\ufeff\0 \t\r\n"
_PREFIX = re.compile(r"(</?)[\w.-]+:")
_NAMESPACED_ATTRIBUTE = re.compile(r"\s[\w.-]+:[\w.-]+\s*=\s*(\"[^\"<]*\"|'[^'<]*')")


class MalformedUpnp(MalformedMessage):
    """The router sent something that cannot be read, or that is not to be believed."""


@dataclass(slots=True)
class Element:
    """`name` is local and in lower case; `text` is what stands directly inside, without outer blanks."""

    name: str
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def walk(self) -> Iterator[Element]:
        """The element and all below it, in document order."""
        waiting = [self]
        while waiting:
            element = waiting.pop()
            yield element
            waiting += reversed(element.children)

    def find(self, name: str) -> Element | None:
        """The first element of that name, this one or one below it."""
        return next((element for element in self.walk() if element.name == name), None)

    def child_text(self, name: str) -> str:
        """The text of the first direct child of that name, or an empty one."""
        return next((child.text for child in self.children if child.name == name), "")


def parse(document: bytes) -> Element:
    """The root element. Raises `MalformedUpnp`."""
    if len(document) > MAX_DOCUMENT:
        raise MalformedUpnp(f"The router's document is longer than {MAX_DOCUMENT} bytes.")
    # Whatever encoding is declared: names and numbers are ASCII, and a name in Latin-1 is nobody's loss.
    text = document.decode("utf-8", "replace").strip(_PADDING)
    try:
        return _parse(text)
    except ParseError:
        return _parse_without_prefixes(text)


def _parse_without_prefixes(text: str) -> Element:
    bare = _NAMESPACED_ATTRIBUTE.sub(" ", _PREFIX.sub(r"\1", text))
    try:
        return _parse(bare)
    except ParseError as error:
        raise MalformedUpnp(f"The router's XML does not parse: {error}.") from None


def _parse(text: str) -> Element:
    """Raises `MalformedUpnp` for what is refused and `ParseError` for what is no XML."""
    try:
        parser = DefusedXMLParser(target=_Builder(), forbid_dtd=True)
        parser.feed(text)
        root: Any = parser.close()
    except ValueError as error:
        # DTDs, entities and external references are ValueErrors of the parser.
        raise MalformedUpnp(f"The router's XML is refused: {type(error).__name__}.") from None
    if not isinstance(root, Element):
        raise MalformedUpnp("The router's XML has no element.")
    return root


class _Builder:
    """Takes the parser's events, and stops it at the first element too many."""

    def __init__(self) -> None:
        self._root: Element | None = None
        self._open: list[tuple[Element, list[str]]] = []
        self._count = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if len(self._open) >= MAX_DEPTH or self._count > MAX_ELEMENTS:
            raise MalformedUpnp("The router's XML is too deep or has too many elements.")
        element = Element(tag.rpartition("}")[2].rpartition(":")[2].lower())
        if self._open:
            self._open[-1][0].children.append(element)
        else:
            self._root = element
        self._open.append((element, []))

    def data(self, text: str) -> None:
        if self._open:
            self._open[-1][1].append(text)

    def end(self, tag: str) -> None:
        element, texts = self._open.pop()
        element.text = "".join(texts).strip()

    def close(self) -> Element | None:
        return self._root
