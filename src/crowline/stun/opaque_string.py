"""The OpaqueString profile (RFC 8265 §4.2): user names, realms and passwords before they are hashed."""

from __future__ import annotations

import unicodedata


def prepare(text: str) -> str:
    """Other spaces become U+0020, everything is composed (NFC).

    What the profile forbids is left as it is: it then fits only a credential that was made with it.
    """
    if text.isascii():
        return text
    spaced = "".join(" " if unicodedata.category(letter) == "Zs" else letter for letter in text)
    return unicodedata.normalize("NFC", spaced)
