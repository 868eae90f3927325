"""Which of this machine's addresses are gathered from, and in which order."""

from __future__ import annotations

import errno
import ipaddress
import socket

import ifaddr
import pytest

from crowline.base.addresses import Address
from crowline.net import interfaces
from crowline.net import rtnetlink as rt
from crowline.net.interfaces import (
    MAX_ADDRESSES,
    InterfaceAddress,
    InterfaceKind,
    interface_addresses,
    local_addresses,
    preferred,
    source_towards,
)
from crowline.net.netlink import Tables

ETHERNET, NO_LINK_LAYER = 1, 0xFFFE  # linux/if_arp.h
LIVE = rt.UP | rt.RUNNING


class FakeNetlink:
    """Answers what it is told; `way` is the index of the interface that leads to the internet."""

    def __init__(self, tables: Tables, way: int = 0) -> None:
        self._tables = tables
        self._way = way

    def __call__(self) -> FakeNetlink:
        return self

    @staticmethod
    def missing() -> None:
        raise OSError("no netlink here")

    def __enter__(self) -> FakeNetlink:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def tables(self) -> Tables:
        return self._tables

    def route_towards(self, host: str) -> rt.RouteStep | None:
        return rt.RouteStep(self._way, "", "") if self._way else None


def tables(*rows: tuple[rt.Link, str, int]) -> Tables:
    """Rows of a link, an address in prefix notation and the address's flags."""
    addresses = [
        rt.LinkAddress(link.device, text.partition("/")[0], int(text.partition("/")[2]), flags)
        for link, text, flags in rows
    ]
    return Tables({link.device: link for link, _, _ in rows}, addresses)


def ethernet(index: int = 2, name: str = "eth0", flags: int = LIVE, kind: str = "") -> rt.Link:
    return rt.Link(index, name, kind, ETHERNET, flags)


LOOPBACK = rt.Link(1, "lo", "", 772, LIVE | rt.LOOPBACK)


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> object:
    """Have the kernel tell such tables."""

    def tell(told: Tables, way: int = 0) -> None:
        monkeypatch.setattr(interfaces, "Netlink", FakeNetlink(told, way))

    return tell


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> object:
    """A system without netlink, whose interfaces have such addresses."""

    def tell(*listed: ifaddr.Adapter) -> None:
        monkeypatch.setattr(interfaces, "Netlink", FakeNetlink.missing)
        monkeypatch.setattr(interfaces, "source_towards", lambda destination: None)
        monkeypatch.setattr(ifaddr, "get_adapters", lambda: listed)

    return tell


def adapter(*addresses: str, name: str = "x") -> ifaddr.Adapter:
    entries = []
    for address in addresses:
        is_ipv6 = ipaddress.ip_address(address).version == 6
        entries.append(ifaddr.IP((address, 0, 0) if is_ipv6 else address, 64 if is_ipv6 else 24, name))
    return ifaddr.Adapter(name, name, entries, 7)


def test_a_host_of_many_containers_keeps_its_ipv6(elsewhere) -> None:
    """Neither family crowds the other out: either may hold the only direct path."""
    bridges = [f"172.{number}.0.1" for number in range(17, 31)]
    for many, few in ((bridges, ["2001:db8::5"]), ([f"2001:db8::{n}" for n in range(1, 15)], ["192.0.2.5"])):
        elsewhere(adapter(*many, *few))
        found = local_addresses()
        assert len(found) == MAX_ADDRESSES
        assert set(few) < set(found)
        assert [":" in each for each in found] == sorted(":" in each for each in found)


def test_what_is_no_unicast_address_of_this_machine_is_left_out(elsewhere) -> None:
    """Link-local and loopback addresses, and repeats."""
    elsewhere(adapter("127.0.0.1", "169.254.1.1", "fe80::1", "192.0.2.1", "192.0.2.1", "::1"))
    assert local_addresses() == ["192.0.2.1"]
    assert local_addresses(loopback=True) == ["192.0.2.1", "127.0.0.1", "::1"]


def test_linux_tells_what_each_address_is(linux) -> None:
    """Temporary, deprecated and tentative ones, in both places in which a duplicate is told."""
    linux(
        tables(
            (ethernet(), "2001:db8::1/64", 0),
            (ethernet(), "2001:db8::2/64", rt.TEMPORARY),
            (ethernet(), "2001:db8::3/64", rt.TEMPORARY | rt.DEPRECATED),
            (ethernet(), "2001:db8::4/64", rt.TENTATIVE),
            (ethernet(), "2001:db8::5/64", rt.TENTATIVE | rt.OPTIMISTIC),
            (ethernet(), "2001:db8::6/64", rt.DUPLICATE),
            # The bit says "secondary" for IPv4.
            (ethernet(), "192.0.2.1/24", rt.TEMPORARY),
        )
    )
    told = {each.host[-1]: each for each in interface_addresses() if each.is_ipv6}
    assert {key for key, each in told.items() if each.is_temporary} == {"2", "3"}
    assert {key for key, each in told.items() if each.is_deprecated} == {"3"}
    assert {key for key, each in told.items() if not each.is_usable} == {"4", "6"}
    assert told["1"].network == ipaddress.ip_network("2001:db8::/64")
    (ipv4,) = [each for each in interface_addresses() if not each.is_ipv6]
    assert not ipv4.is_temporary
    assert set(local_addresses()) == {ipv4.host, *(f"2001:db8::{n}" for n in (1, 2, 3, 5))}


def test_preference_follows_rfc_6724(linux) -> None:
    """Preferred before deprecated, temporary before stable, global before unique local, IPv6 before IPv4."""
    linux(
        tables(
            (ethernet(), "fd00::1/64", 0),
            (ethernet(), "192.0.2.1/24", 0),
            (ethernet(), "2001:db8::3/64", rt.DEPRECATED),
            (ethernet(), "2001:db8::1/64", 0),
            (ethernet(), "2001:db8::2/64", rt.TEMPORARY),
            (LOOPBACK, "127.0.0.1/8", 0),
            (ethernet(), "fe80::1/64", 0),
        ),
        way=2,
    )
    assert [each.host for each in interface_addresses()] == [
        "2001:db8::2",
        "2001:db8::1",
        "192.0.2.1",
        "fd00::1",
        "2001:db8::3",
        "fe80::1",
        "127.0.0.1",
    ]


def test_what_leads_to_the_internet_comes_first(linux) -> None:
    """A container's own cable is "virtual", and the only way out all the same."""
    tunnel = rt.Link(5, "tun0", "tun", NO_LINK_LAYER, LIVE)
    rows = tables(
        (ethernet(3, "br0", kind="bridge"), "172.17.0.1/16", 0),
        (tunnel, "10.8.0.2/24", 0),
        (ethernet(), "192.0.2.1/24", 0),
    )
    linux(rows, way=2)
    assert local_addresses() == ["192.0.2.1", "10.8.0.2", "172.17.0.1"]
    linux(rows, way=5)
    assert local_addresses() == ["10.8.0.2", "192.0.2.1", "172.17.0.1"]
    linux(rows, way=3)
    assert local_addresses() == ["172.17.0.1", "192.0.2.1", "10.8.0.2"]


@pytest.mark.parametrize(
    ("link", "kind"),
    [
        (ethernet(), InterfaceKind.ORDINARY),
        (ethernet(kind="vlan"), InterfaceKind.ORDINARY),
        (ethernet(kind="wireguard"), InterfaceKind.TUNNEL),
        (rt.Link(2, "tun0", "tun", NO_LINK_LAYER, LIVE), InterfaceKind.TUNNEL),
        (rt.Link(2, "odd0", "", NO_LINK_LAYER, LIVE), InterfaceKind.TUNNEL),
        (ethernet(flags=LIVE | rt.POINT_TO_POINT), InterfaceKind.TUNNEL),
        (ethernet(kind="bridge"), InterfaceKind.VIRTUAL),
        (ethernet(kind="veth"), InterfaceKind.VIRTUAL),
        (LOOPBACK, InterfaceKind.LOOPBACK),
    ],
    ids=lambda value: f"{value.name}-{value.kind}" if isinstance(value, rt.Link) else value.value,
)
def test_the_driver_tells_the_kind_of_an_interface(linux, link: rt.Link, kind: InterfaceKind) -> None:
    """Tunnels, bridges to containers, loopback, and everything else."""
    linux(tables((link, "192.0.2.1/24", 0)))
    assert [each.kind for each in interface_addresses()] == [kind]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("en0", InterfaceKind.ORDINARY),
        ("utun3", InterfaceKind.TUNNEL),
        ("Tailscale", InterfaceKind.TUNNEL),
        ("vEthernet (WSL)", InterfaceKind.VIRTUAL),
        ("bridge100", InterfaceKind.VIRTUAL),
    ],
)
def test_elsewhere_the_name_tells_the_kind(elsewhere, name: str, kind: InterfaceKind) -> None:
    """What macOS, BSD, Windows and well-known programs call their interfaces."""
    elsewhere(adapter("192.0.2.1", name=name))
    assert [each.kind for each in interface_addresses()] == [kind]


def test_an_interface_without_a_carrier_comes_last(linux) -> None:
    """Its address can be bound, and nothing leaves by it."""
    linux(tables((ethernet(2, "eth0", rt.UP), "192.0.2.1/24", 0), (ethernet(3, "eth1"), "192.0.2.2/24", 0)))
    assert [each.is_usable for each in interface_addresses()] == [True, False]
    assert local_addresses() == ["192.0.2.2", "192.0.2.1"]


def test_an_address_that_shows_the_hardware_yields_to_a_temporary_one(linux) -> None:
    """RFC 8445 §5.1.1.1, on the same interface and network only."""
    shown, hidden = "2001:db8::211:22ff:fe33:4455", "2001:db8::9a1c:77e:1234:5678"
    rows = [(ethernet(), f"{shown}/64", 0)]
    linux(tables(*rows))
    assert local_addresses() == [shown]
    linux(tables(*rows, (ethernet(3, "eth1"), f"{hidden}/64", rt.TEMPORARY)))
    assert set(local_addresses()) == {shown, hidden}
    linux(tables(*rows, (ethernet(), f"{hidden}/64", rt.TEMPORARY)))
    assert local_addresses() == [hidden]


def test_an_address_whose_interface_went_meanwhile_is_left_out(linux) -> None:
    """The two tables are read one after the other."""
    linux(Tables({}, [rt.LinkAddress(9, "192.0.2.1", 24, 0)]))
    assert interface_addresses() == []


def test_equal_addresses_keep_their_order() -> None:
    """What the system lists first stays first."""
    listed = [InterfaceAddress(f"192.0.2.{number}", 24, "eth0", 2) for number in (3, 1, 2)]
    assert preferred(listed) == listed


def test_this_machine_has_a_loopback_address() -> None:
    """The real thing, whatever system this is."""
    (found,) = [each for each in interface_addresses() if each.host == "127.0.0.1"]
    assert found.kind is InterfaceKind.LOOPBACK
    assert found.prefix_length == 8
    assert found.is_usable
    assert "127.0.0.1" in local_addresses(loopback=True)


def test_a_machine_without_ipv6_has_no_address_towards_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel was built or started without, there is no socket to ask by."""

    def refuse(family: int, kind: int) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", refuse)
    assert source_towards(Address("2001:db8::1", 9)) is None


@pytest.mark.parametrize("problem", [PermissionError(13, "Permission denied"), AssertionError("no mask")])
def test_a_sandbox_that_lists_nothing_has_the_addresses_that_packets_leave_by(
    monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    """Newer Androids let no program ask for interfaces."""

    def refuse() -> None:
        raise problem

    sources = {False: "192.0.2.7", True: None}
    monkeypatch.setattr(interfaces, "Netlink", FakeNetlink.missing)
    monkeypatch.setattr(ifaddr, "get_adapters", refuse)
    monkeypatch.setattr(interfaces, "source_towards", lambda destination: sources[destination.is_ipv6])
    assert local_addresses() == ["192.0.2.7"]
