"""Which of this machine's addresses are gathered from."""

from __future__ import annotations

import ipaddress

import ifaddr
import pytest

from crowline.net import interfaces
from crowline.net.interfaces import MAX_ADDRESSES, local_addresses


def adapters(*addresses: str) -> list[ifaddr.Adapter]:
    found = []
    for address in addresses:
        is_ipv6 = ipaddress.ip_address(address).version == 6
        entry = ifaddr.IP((address, 0, 0) if is_ipv6 else address, 64 if is_ipv6 else 24, "x")
        found.append(ifaddr.Adapter("x", "x", [entry]))
    return found


def test_a_host_of_many_containers_keeps_its_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither family crowds the other out: either may hold the only direct path."""
    bridges = [f"172.{number}.0.1" for number in range(17, 31)]
    for many, few in ((bridges, ["2001:db8::5"]), ([f"2001:db8::{n}" for n in range(1, 15)], ["192.0.2.5"])):
        monkeypatch.setattr(interfaces.ifaddr, "get_adapters", lambda m=many, f=few: adapters(*m, *f))
        found = local_addresses()
        assert len(found) == MAX_ADDRESSES
        assert set(few) < set(found)
        assert [":" in each for each in found] == sorted(":" in each for each in found)


def test_what_is_no_unicast_address_of_this_machine_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Link-local and loopback addresses, and repeats."""
    listed = adapters("127.0.0.1", "169.254.1.1", "fe80::1", "192.0.2.1", "192.0.2.1", "::1")
    monkeypatch.setattr(interfaces.ifaddr, "get_adapters", lambda: listed)
    assert local_addresses() == ["192.0.2.1"]
    assert local_addresses(loopback=True) == ["192.0.2.1", "127.0.0.1", "::1"]
