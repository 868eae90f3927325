"""What kind of NAT this machine is behind, asked from STUN servers that are named."""

from __future__ import annotations

from collections.abc import Sequence

from crowline.api.mapped_address import STUN_PORT
from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem, ServerUnreachable
from crowline.base.nat64 import Nat64Prefix
from crowline.net.interfaces import local_addresses, source_towards
from crowline.net.mapping_lifetimes import LONGEST, measure_lifetimes
from crowline.net.nat64 import Nat64Discovery
from crowline.net.nat_discovery import discover_nat
from crowline.net.resolver import resolve
from crowline.punch.nat_profile import NatProfile

__all__ = ["LONGEST", "NatProfile", "measured_nat"]


async def measured_nat(
    servers: Sequence[tuple[str, int | None]], *, ipv6: bool | None = None, lifetimes: bool = False
) -> NatProfile:
    """The profile, after two seconds; with `lifetimes` after `LONGEST` seconds at most.

    `servers` are names or addresses with a port, 3478 where it is ``None``. They are asked by IPv4 where this
    machine has a way there, also through a NAT64, and by IPv6 otherwise; `ipv6` chooses.
    Silence is a result. Raises `ServerUnreachable` for names that nobody knows, and `LocalProblem`.
    """
    found = await resolve([(host, port or STUN_PORT) for host, port in servers], "")
    if not found:
        raise ServerUnreachable("None of the servers can be looked up: no such name, or no answer.")
    addresses, prefix = await _reached(found, ipv6)
    profile = await discover_nat(addresses, prefix=prefix)
    if not lifetimes or not profile.answers:
        return profile
    return profile.with_lifetimes(await measure_lifetimes(addresses, prefix=prefix))


async def _reached(found: Sequence[Address], ipv6: bool | None) -> tuple[list[Address], Nat64Prefix | None]:
    """The servers of the family to be asked, as they are written here, and the prefix that does it."""
    by_ipv4 = [each for each in found if not each.is_ipv6]
    by_ipv6 = [each for each in found if each.is_ipv6]
    if ipv6 is not True and by_ipv4:
        if source_towards(by_ipv4[0]) is not None:
            return by_ipv4, None
        prefix = await _translated_by()
        if prefix is not None:
            return [Address(prefix.synthesize(each.host), each.port) for each in by_ipv4], prefix
    if ipv6 is not False and by_ipv6 and source_towards(by_ipv6[0]) is not None:
        return by_ipv6, None
    if ipv6 is not None and not (by_ipv6 if ipv6 else by_ipv4):
        raise ServerUnreachable(f"The servers have no IPv{6 if ipv6 else 4} address.")
    raise LocalProblem("This machine has no way to any of the servers.", hint="Is it offline?")


async def _translated_by() -> Nat64Prefix | None:
    """The prefix of this network's NAT64, where this machine has IPv6 alone."""
    if not any(":" in host for host in local_addresses()):
        return None
    discovery = Nat64Discovery()
    try:
        return next(iter(await discovery.prefixes()), None)
    finally:
        discovery.close()
