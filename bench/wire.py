"""How much the kernel laboratory's wire carries: UDP in runs of 1,200-byte segments, across two translators.

Sends at rising rates from a host behind one translator to a host behind another and prints what arrived;
beside it the same over the kernel's own cable (veth) between two namespaces. Needs root.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress

from crowline.lab.kernel import ip
from crowline.lab.namespaces import Internet
from crowline.lab.places import Host

SEGMENT = 1200
RUN = SEGMENT * 50
SECONDS = 1.0
RATES = (100e6, 200e6, 400e6, 800e6)  # bytes a second
UDP_SEGMENT, UDP_GRO, SO_RCVBUFFORCE = 103, 104, 33

SENDER = """
import socket, sys, time
local, target, port, rate, seconds = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(17, 103, 1200)
s.bind((local, 5000))
s.connect((target, int(port)))
run, sent, start = b"x" * 60000, 0, time.perf_counter()
while (now := time.perf_counter() - start) < seconds:
    if sent > now * rate:
        time.sleep(0.0001)
        continue
    try:
        s.send(run)
    except ConnectionRefusedError:
        continue
    sent += len(run)
print(sent)
"""


def measure(net: Internet, sender: Host, receiver: Host, target: str, rate: float) -> tuple[float, float]:
    """Offered and received bytes a second."""
    with closing(net.socket(receiver, socket.SOCK_DGRAM, port=6000)) as sink:
        sink.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        sink.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        sink.settimeout(0.5)
        argv = [sys.executable, "-c", SENDER, sender.addresses[0], target, "6000", str(rate), str(SECONDS)]
        process = net.spawn(sender, argv, stdout=subprocess.PIPE, text=True)
        buffer, received, first, last = bytearray(65536), 0, 0.0, 0.0
        while process.poll() is None or last:
            try:
                size = sink.recv_into(buffer)
            except TimeoutError:
                if process.poll() is not None:
                    break
                continue
            last = time.perf_counter()
            first = first or last
            received += size
        sent = int(process.communicate()[0])
    return sent / SECONDS, received / (last - first) if last > first else 0.0


def across_translators(translator: str) -> None:
    with Internet(translator=translator) as net:  # type: ignore[arg-type]
        left, right = net.site("home"), net.site("home")
        hosts = left.hosts[0], right.hosts[0]
        with closing(net.socket(hosts[1], socket.SOCK_DGRAM, port=6000)) as opener:
            opener.sendto(b"open", (left.outside[0], 5000))
        for rate in RATES:
            show(f"wire, {translator} NAT", *measure(net, *hosts, right.outside[0], rate))


def over_a_cable() -> None:
    with Internet() as net:
        hosts = net.server("one", addresses=1), net.server("other", addresses=1)
        ends = (("10.0.0.1", hosts[0]), ("10.0.0.2", hosts[1]))
        ip(hosts[0].namespace, f"link add cable type veth peer name cable netns {hosts[1].namespace}")
        for address, host in ends:
            ip(host.namespace, f"addr add {address}/24 dev cable", "link set cable up")
        plain = [Host(host.name, host.namespace, (address,)) for address, host in ends]
        for rate in RATES:
            show("cable, no NAT", *measure(net, plain[0], plain[1], "10.0.0.2", rate))


def show(what: str, offered: float, received: float) -> None:
    share = received / offered if offered else 0.0
    print(
        f"{what:<20} offered {offered / 1e6:6.0f} MB/s   received {received / 1e6:6.0f} MB/s   {share:6.1%}"
    )


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("bench/wire.py needs root: it works in network namespaces")
        raise SystemExit(0)
    with suppress(KeyboardInterrupt):
        over_a_cable()
        across_translators("kernel")
        across_translators("user")
