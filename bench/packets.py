"""How many single packets a second the kernel laboratory's wire carries: small UDP, one system call each.

Sends at rising rates from a host behind one translator to a host behind another, both in user space, then
with nftables, and prints what arrived; beside it the same over the kernel's own cable (veth). Needs root.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from crowline.lab.impairment import Impairment
from crowline.lab.kernel import ip
from crowline.lab.namespaces import Internet, TranslatorChoice
from crowline.lab.places import Host
from crowline.lab.presets import HOME, PRESETS
from crowline.lab.profile import Profile

RATES = (10_000, 20_000, 30_000, 40_000)  # packets a second
SECONDS = 1.0
SO_RCVBUFFORCE = 33
HOME_PLACE = PRESETS["home"]
TWO_LAYERS = Profile("two layers", (HOME, HOME))  # which keep ports, so that the receiver can be found

SENDER = """
import socket, sys, time
local, target, rate, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((local, 5000))
s.connect((target, 6000))
sent, start = 0, time.perf_counter()
while (now := time.perf_counter() - start) < seconds:
    if sent > now * rate:
        time.sleep(0.0005)
        continue
    for _ in range(8):
        try:
            s.send(b"x" * 100)
        except ConnectionRefusedError:
            continue
        sent += 1
print(sent)
"""


def measure(net: Internet, sender: Host, receiver: Host, target: str, rate: int) -> tuple[float, float]:
    """Offered and received packets a second."""
    with closing(net.socket(receiver, socket.SOCK_DGRAM, port=6000)) as sink:
        sink.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        sink.settimeout(0.3)
        argv = [sys.executable, "-c", SENDER, sender.addresses[0], target, str(rate), str(SECONDS)]
        process = net.spawn(sender, argv, stdout=subprocess.PIPE, text=True)
        received = 0
        while True:
            try:
                sink.recv(2000)
                received += 1
            except TimeoutError:
                if process.poll() is not None:
                    break
        return int(process.communicate()[0]) / SECONDS, received / SECONDS


@contextmanager
def two_homes(
    translator: TranslatorChoice, place: Profile, line: Impairment | None = None
) -> Iterator[tuple[Internet, Host, Host, str]]:
    with Internet(translator=translator) as net:
        left, right = (net.site(place, impairment=line) for _ in range(2))
        with closing(net.socket(right.hosts[0], socket.SOCK_DGRAM, port=6000)) as opener:
            opener.sendto(b"open", (left.outside[0], 5000))
        yield net, left.hosts[0], right.hosts[0], right.outside[0]


@contextmanager
def cable() -> Iterator[tuple[Internet, Host, Host, str]]:
    with Internet() as net:
        one, other = net.server("one", addresses=1), net.server("other", addresses=1)
        ip(one.namespace, f"link add cable type veth peer name cable netns {other.namespace}")
        for host, address in ((one, "10.0.0.1"), (other, "10.0.0.2")):
            ip(host.namespace, f"addr add {address}/24 dev cable", "link set cable up")
        ends = (Host("one", one.namespace, ("10.0.0.1",)), Host("other", other.namespace, ("10.0.0.2",)))
        yield net, *ends, "10.0.0.2"


def main() -> None:
    worlds = {
        "cable, no NAT": cable(),
        "wire, two NATs in user space": two_homes("user", HOME_PLACE),
        "wire, two NATs in nftables": two_homes("kernel", HOME_PLACE),
        "wire, four NATs in user space": two_homes("user", TWO_LAYERS),
        "wire, user space, 1 % loss, 50 Mbit/s": two_homes(
            "user", HOME_PLACE, Impairment(delay=0.01, loss=0.01, rate=50e6 / 8)
        ),
    }
    for name, world in worlds.items():
        with world as (net, sender, receiver, target):
            for rate in RATES:
                offered, received = measure(net, sender, receiver, target, rate)
                share = received / offered if offered else 0.0
                print(f"{name:<38} offered {offered:7.0f}/s   received {received:7.0f}/s   {share:6.1%}")


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("bench/packets.py needs root: it works in network namespaces")
        raise SystemExit(0)
    with suppress(KeyboardInterrupt):
        main()
