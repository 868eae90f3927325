"""Numbers of Linux's UDP segmentation offload: runs of datagrams of one size in one system call."""

from __future__ import annotations

import errno

# linux/udp.h; the socket module names them only in later Pythons.
UDP_SEGMENT = 103
UDP_GRO = 104
# UDP_MAX_SEGMENTS of include/linux/udp.h was 64 before Linux 6.9: the number that every kernel takes.
MAX_SEGMENTS = 64
# The largest UDP payload over IPv4; IPv6 would take a little more.
MAX_PAYLOAD = 65507
# What a kernel answers that cannot cut runs at all, no checksum offload or no such option: one datagram a
# call from there on.
CANNOT_SEGMENT = {errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP}
# And where the datagrams do not fit into a packet of this one path: only this run is cut here, since others
# may use the socket.
REFUSED_RUN = CANNOT_SEGMENT | {errno.EINVAL, errno.EMSGSIZE}
