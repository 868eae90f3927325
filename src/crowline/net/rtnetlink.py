"""The messages in which Linux tells addresses, links and routes (rtnetlink(7)): bytes to values, no socket.

The kernel is trusted, its messages are not: other versions have other fields, so that every length is
checked, what is unknown is skipped, and what does not parse is ``None``.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from typing import NamedTuple

# linux/netlink.h
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP, NLM_F_DUMP_INTERRUPTED = 0x01, 0x300, 0x10

# linux/rtnetlink.h: message types
NEW_LINK, DELETE_LINK, GET_LINK = 16, 17, 18
NEW_ADDRESS, DELETE_ADDRESS, GET_ADDRESS = 20, 21, 22
NEW_ROUTE, DELETE_ROUTE, GET_ROUTE = 24, 25, 26
NEW_NEIGHBOUR, GET_NEIGHBOUR = 28, 30
NEW_ROUTER_OPTION = 68

# linux/rtnetlink.h: groups to listen to, as bits
LINKS, IPV4_ADDRESSES, IPV4_ROUTES, IPV6_ADDRESSES, IPV6_ROUTES = 0x1, 0x10, 0x40, 0x100, 0x400
ROUTER_OPTIONS = 1 << 19  # RTNLGRP_ND_USEROPT

# linux/if.h
UP, LOOPBACK, POINT_TO_POINT, RUNNING = 0x1, 0x8, 0x10, 0x40

# linux/if_addr.h. For IPv4 the first one says "secondary", which is no matter here.
TEMPORARY, OPTIMISTIC, DUPLICATE, DEPRECATED, TENTATIVE = 0x01, 0x04, 0x08, 0x20, 0x40

_AF_INET, _AF_INET6 = 2, 10
_ROUTER_ADVERTISEMENT = 134  # ICMPv6, RFC 4861 §4.2
_UNICAST_ROUTES = {1, 2}  # RTN_UNICAST, RTN_LOCAL: everything else leads nowhere

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ATTRIBUTE_TYPE = 0x3FFF  # without the bits for "nested" and "network byte order"
_LINK = struct.Struct("=BxHiII")  # family, device type, index, flags, changed flags
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=8BI")  # family, two lengths, service, table, protocol, scope, type, flags
_ROUTER_OPTION = struct.Struct("=BxHiBB6x")  # family, length of options, index, ICMP type and code
_NEXT_HOP = struct.Struct("=HBBi")  # length, flags, weight, index
_NEIGHBOUR = struct.Struct("=B3xiHBB")  # family, index, state, flags, type
_U32 = struct.Struct("=I")
_ERROR = struct.Struct("=i")
_MAX_ERRNO = 4095  # linux/err.h

_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_INFO_KIND = 3, 18, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_MULTIPATH, _RTA_TABLE = 1, 4, 5, 7, 9, 15
_NDA_DST, _NDA_LLADDR = 1, 2
_MAIN_TABLE = 254

MAX_NAME = 15
"""Bytes of a device name: IFNAMSIZ without the zero at its end."""


class Message(NamedTuple):
    """One message: its header, and what follows."""

    type: int
    flags: int
    sequence: int
    payload: memoryview


class Link(NamedTuple):
    """A device. `kind` is the driver's word for it, such as ``tun``, ``bridge``, ``veth``, or empty."""

    device: int
    name: str
    kind: str
    device_type: int
    flags: int


class LinkAddress(NamedTuple):
    """An address on a device."""

    device: int
    host: str
    prefix_length: int
    flags: int


class RouteStep(NamedTuple):
    """Where packets go: the device they leave by, the next hop if there is one, the source they get."""

    device: int
    gateway: str
    source: str


class Neighbour(NamedTuple):
    """A host on the network of a device, and its address there, such as that of its Ethernet card."""

    device: int
    host: str
    station: bytes


class RouterOption(NamedTuple):
    """Options of a router advertisement that the kernel leaves to programs, as they were sent."""

    device: int
    options: bytes


def messages(data: memoryview) -> Iterator[Message]:
    """The messages of one read, up to the first whose length is impossible."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        yield Message(kind, flags, sequence, data[at + _HEADER.size : at + length])
        at += _aligned(length)


def read_link(payload: memoryview) -> Link | None:
    """A message of type `NEW_LINK` or `DELETE_LINK`."""
    if len(payload) < _LINK.size:
        return None
    _, device_type, index, flags, _ = _LINK.unpack_from(payload)
    name = kind = ""
    for what, value in _attributes(payload[_LINK.size :]):
        if what == _IFLA_IFNAME:
            name = _text(value)
        elif what == _IFLA_LINKINFO:
            kind = next((_text(inner) for key, inner in _attributes(value) if key == _IFLA_INFO_KIND), "")
    return Link(index, name, kind, device_type, flags)


def read_address(payload: memoryview) -> LinkAddress | None:
    """A message of type `NEW_ADDRESS` or `DELETE_ADDRESS`; ``None`` for other families than IP."""
    if len(payload) < _ADDRESS.size:
        return None
    family, prefix_length, flags, _, index = _ADDRESS.unpack_from(payload)
    local = other = ""
    for what, value in _attributes(payload[_ADDRESS.size :]):
        if what == _IFA_LOCAL:
            local = _host(family, value)
        elif what == _IFA_ADDRESS:
            # The address itself, or the other end's where there is a local one, too.
            other = _host(family, value)
        elif what == _IFA_FLAGS and len(value) >= _U32.size:
            flags = _U32.unpack_from(value)[0]
    host = local or other
    if not host or prefix_length > (128 if family == _AF_INET6 else 32):
        return None
    return LinkAddress(index, host, prefix_length, flags)


def read_route(payload: memoryview) -> RouteStep | None:
    """A message of type `NEW_ROUTE`; ``None`` for a route that leads nowhere or to several places."""
    if len(payload) < _ROUTE.size:
        return None
    fields = _ROUTE.unpack_from(payload)
    family, kind = fields[0], fields[7]
    if kind not in _UNICAST_ROUTES:
        return None
    index, gateway, source = 0, "", ""
    for what, value in _attributes(payload[_ROUTE.size :]):
        if what == _RTA_OIF and len(value) >= _U32.size:
            index = _U32.unpack_from(value)[0]
        elif what == _RTA_GATEWAY:
            gateway = _host(family, value)
        elif what == _RTA_PREFSRC:
            source = _host(family, value)
    return RouteStep(index, gateway, source) if index else None


def read_default_routes(payload: memoryview) -> list[RouteStep]:
    """The ways out that a message of type `NEW_ROUTE` names, if it is a default route of the main table.

    One route may lead to several routers. Those without a router, as in tunnels, are left out.
    """
    if len(payload) < _ROUTE.size:
        return []
    family, length, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(payload)
    if kind not in _UNICAST_ROUTES or length:
        return []
    index, gateway, source = 0, "", ""
    found: list[RouteStep] = []
    for what, value in _attributes(payload[_ROUTE.size :]):
        if what == _RTA_TABLE and len(value) >= _U32.size:
            table = _U32.unpack_from(value)[0]
        elif what == _RTA_OIF and len(value) >= _U32.size:
            index = _U32.unpack_from(value)[0]
        elif what == _RTA_GATEWAY:
            gateway = _host(family, value)
        elif what == _RTA_PREFSRC:
            source = _host(family, value)
        elif what == _RTA_MULTIPATH:
            found += _next_hops(family, value)
    found.append(RouteStep(index, gateway, source))
    return [step for step in found if table == _MAIN_TABLE and step.device and step.gateway]


def read_neighbour(payload: memoryview) -> Neighbour | None:
    """A message of type `NEW_NEIGHBOUR`; ``None`` where it names no host and no station."""
    if len(payload) < _NEIGHBOUR.size:
        return None
    family, index, _, _, _ = _NEIGHBOUR.unpack_from(payload)
    host, station = "", b""
    for what, value in _attributes(payload[_NEIGHBOUR.size :]):
        if what == _NDA_DST:
            host = _host(family, value)
        elif what == _NDA_LLADDR:
            station = bytes(value)
    return Neighbour(index, host, station) if host and any(station) else None


def read_router_option(payload: memoryview) -> RouterOption | None:
    """A message of type `NEW_ROUTER_OPTION`."""
    if len(payload) < _ROUTER_OPTION.size:
        return None
    family, length, index, kind, _ = _ROUTER_OPTION.unpack_from(payload)
    options = payload[_ROUTER_OPTION.size : _ROUTER_OPTION.size + length]
    if family != _AF_INET6 or kind != _ROUTER_ADVERTISEMENT or len(options) != length:
        return None
    return RouterOption(index, bytes(options))


def each_option(options: bytes) -> Iterator[bytes]:
    """The options in a `RouterOption`, header included, up to the first whose length is impossible."""
    at = 0
    while at + 2 <= len(options):
        size = options[at + 1] * 8  # RFC 4861 §4.6
        if size == 0 or at + size > len(options):
            return
        yield options[at : at + size]
        at += size


def read_error(payload: memoryview) -> int:
    """The errno of a message of type `NLMSG_ERROR`; 0 is an acknowledgement, or what is no errno."""
    number = -int(_ERROR.unpack_from(payload)[0]) if len(payload) >= _ERROR.size else 0
    return number if 0 < number <= _MAX_ERRNO else 0


def dump_request(kind: int, sequence: int) -> bytes:
    """Ask for all links (`GET_LINK`), all addresses, all routes or all neighbours, likewise."""
    body = bytes(_LINK.size)
    flags = NLM_F_REQUEST | NLM_F_DUMP
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def route_request(host: str, sequence: int) -> bytes:
    """Ask which way packets to that host go. Raises `ValueError` for text that is no address."""
    packed = ipaddress.ip_address(host).packed
    family = _AF_INET6 if len(packed) == 16 else _AF_INET
    body = _ROUTE.pack(family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0)
    body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(packed), _RTA_DST) + packed
    return _HEADER.pack(_HEADER.size + len(body), GET_ROUTE, NLM_F_REQUEST, sequence, 0) + body


def _next_hops(family: int, data: memoryview) -> Iterator[RouteStep]:
    at = 0
    while at + _NEXT_HOP.size <= len(data):
        length, _, _, index = _NEXT_HOP.unpack_from(data, at)
        if length < _NEXT_HOP.size or at + length > len(data):
            return
        for what, value in _attributes(data[at + _NEXT_HOP.size : at + length]):
            if what == _RTA_GATEWAY:
                yield RouteStep(index, _host(family, value), "")
        at += _aligned(length)


def _attributes(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, what = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            return
        yield what & _ATTRIBUTE_TYPE, data[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _text(value: memoryview) -> str:
    return bytes(value[: MAX_NAME + 1]).partition(b"\0")[0].decode("utf-8", "replace")


def _host(family: int, value: memoryview) -> str:
    """The address, or nothing where family and length disagree."""
    size = {_AF_INET: 4, _AF_INET6: 16}.get(family)
    return str(ipaddress.ip_address(bytes(value))) if len(value) == size else ""
