"""A tunnel device in a network namespace: what is sent there is read here, and the other way round.

Every packet carries a virtio-net header, so that the kernel hands over whole segmentation super-packets
(TSO, USO: up to 64 KiB in one read) and takes them back. That is what lets pure Python carry gigabytes.
"""

from __future__ import annotations

import fcntl
import os
import struct
from dataclasses import dataclass

from crowline.lab.namespace import inside

# linux/if_tun.h
TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
TUN_F_CSUM = 0x01
TUN_F_TSO4 = 0x02
TUN_F_TSO6 = 0x04
TUN_F_USO4 = 0x20  # Linux 6.2
TUN_F_USO6 = 0x40
_INTERFACE_REQUEST = struct.Struct("16sH22x")

# The best first: an older kernel refuses the whole set when it does not know one of it.
_OFFLOADS = (
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6,
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6,
    0,
)

HEADER_SIZE = 10  # bytes of struct virtio_net_hdr before every packet
NEEDS_CHECKSUM = 0x01  # in its first byte: the transport checksum is left to the receiver (CHECKSUM_PARTIAL)
LARGEST_READ = HEADER_SIZE + 65535 + 1  # the largest IP packet, and one byte more to notice what does not fit
LONGEST_DEVICE_NAME = 15  # IFNAMSIZ without its NUL


@dataclass(frozen=True, slots=True)
class Tun:
    """An open tunnel device. `offloads` are the TUN_F_… bits that the kernel agreed to."""

    descriptor: int
    device: str
    namespace: str | int
    offloads: int

    @property
    def segments_udp(self) -> bool:
        """Whether one read gives a whole run of UDP datagrams."""
        return bool(self.offloads & TUN_F_USO4)

    def refuse_runs(self) -> None:
        """From now on every read gives a single packet: the kernel cuts runs up by itself."""
        fcntl.ioctl(self.descriptor, TUNSETOFFLOAD, self.offloads & TUN_F_CSUM)

    def close(self) -> None:
        """Close it; the device vanishes from its namespace."""
        os.close(self.descriptor)


def open_tun(device: str, namespace: str | int) -> Tun:
    """Create the device in that namespace (a name or a process id); it is down and has no address yet.

    The descriptor does not block. Raises `OSError` without the privilege, the kernel module or the namespace.
    """
    if len(device.encode()) > LONGEST_DEVICE_NAME:
        raise ValueError(f"{device!r} is too long for a device name")
    return inside(namespace, lambda: _create(device, namespace))


def _create(device: str, namespace: str | int) -> Tun:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        request = _INTERFACE_REQUEST.pack(device.encode(), IFF_TUN | IFF_NO_PI | IFF_VNET_HDR)
        fcntl.ioctl(descriptor, TUNSETIFF, request)
        return Tun(descriptor, device, namespace, _negotiate_offloads(descriptor))
    except BaseException:
        os.close(descriptor)
        raise


def _negotiate_offloads(descriptor: int) -> int:
    for offloads in _OFFLOADS:
        try:
            fcntl.ioctl(descriptor, TUNSETOFFLOAD, offloads)
        except OSError:
            continue
        return offloads
    return 0
