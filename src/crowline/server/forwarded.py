"""Who is behind a reverse proxy: X-Forwarded-For, believed from the proxies that the owner names."""

from __future__ import annotations

from collections.abc import Sequence

from crowline.base.addresses import IPNetwork
from crowline.server.gate import canonical_host, is_one_of

# Hops looked at, from the nearest: more proxies in a row than anybody runs.
MAX_HOPS = 8


def true_source(peer: str, header: str | None, proxies: Sequence[IPNetwork]) -> str:
    """The address of the client: `peer`, or where that is one of `proxies`, the nearest address in `header`
    that is none of them. What is left of it in the header is the client's own claim and not looked at.

    Several header lines are one, joined by commas in their order: some proxies add a line of their own."""
    source = peer
    for claimed in reversed((header or "").split(",")[-MAX_HOPS:]):
        if not is_one_of(source, proxies):
            return source
        try:
            source = canonical_host(claimed.strip())
        except ValueError:
            return source
    return source
