"""Whether what answered a plain HTTP request was the server that was asked, or a network's sign-in page."""

from __future__ import annotations

from urllib.parse import urlsplit

from crowline.diagnosis.facts import Portal, PortalFacts

MAX_LOGIN = 200
"""Characters of the sign-in page's address that are shown."""

_SIGN_IN_NEEDED = 511  # Network Authentication Required, RFC 6585 §6
_REDIRECTS = {301, 302, 303, 307, 308}


def judge(host: str, token: str, status: int, location: str, body: bytes, *, is_hub: bool) -> PortalFacts:
    """Of an answer to GET /probe/TOKEN at `host`. `is_hub`: the hub itself listens on the port asked.

    Where something else may listen there, as on port 80 of a server that has the hub on 443, a page of its
    own says nothing.
    """
    if status == 200 and body.strip() == b"crowline " + token.encode():
        return PortalFacts(Portal.NONE)
    if status in _REDIRECTS:
        return (
            PortalFacts(Portal.NONE)
            if _leads_to(host, location)
            else PortalFacts(Portal.FOUND, _shown(location))
        )
    if status == _SIGN_IN_NEEDED or (is_hub and 200 <= status < 300):
        return PortalFacts(Portal.FOUND)
    return PortalFacts(Portal.UNKNOWN)


def _leads_to(host: str, location: str) -> bool:
    """Whether a redirect stays at that host: without a scheme and a host of its own it does."""
    try:
        parts = urlsplit(location)
        return parts.hostname == host if parts.scheme or parts.netloc else True
    except ValueError:
        return False


def _shown(location: str) -> str:
    """An address that a person may open, without what follows the path; "" for anything else."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return shown if len(shown) <= MAX_LOGIN and shown.isascii() and shown.isprintable() else ""
