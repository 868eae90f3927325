"""Cuts a long text, such as a pasted log, into messages."""

from __future__ import annotations

from crowline.chat.messages import MAX_TEXT


def pages(text: str, most: int = MAX_TEXT) -> list[str]:
    """The text as pieces of at most `most` characters, cut at the ends of lines where there are any.

    The newline at a cut is left out, as are the ones at both ends; no piece is empty.
    """
    found = []
    rest = text.replace("\r\n", "\n").replace("\r", "\n").strip("\n")
    while len(rest) > most:
        end = rest.rfind("\n", 1, most + 1)
        end = end if end > 0 else most
        found.append(rest[:end].rstrip("\n"))
        rest = rest[end:].lstrip("\n")
    found.append(rest)
    return [page for page in found if page]
