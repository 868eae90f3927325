"""A path between two hosts on which the kernel itself does what distance and routers do: for throughput.

    near ──(tunnel, the delay)── middle ──(cable)── far

The middle forwards: nftables loses each packet with one probability, a token bucket in each direction
(`tc-tbf`) gives the rate and the queue before it. Only the delay passes through Python, unread, so that the
path carries what `lab/wire.py`, which looks into every packet, cannot: 1 Gbit/s, and thousands of single
packets a second without a turn of its own timing in them.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

from crowline.base.errors import LocalProblem
from crowline.lab.kernel import (
    FORWARDING,
    TUNNEL_QUEUE,
    await_running,
    ip,
    load_rules,
    set_kernel_parameters,
    shape,
)
from crowline.lab.namespaces import Internet
from crowline.lab.places import Host

_NEAR, _MIDDLE, _OTHER, _FAR = "44.9.1.2", "44.9.2.1", "44.9.2.3", "44.9.2.2"
# Bytes that a token bucket lets through at once: one segmentation run, which is the largest packet.
_BURST = 64 * 1024
# nftables draws whole numbers: losses are told in parts of this.
_PARTS = 100_000


@dataclass(frozen=True, slots=True)
class Distance:
    """`delay` in seconds one way, `rate` in bytes a second, `loss` a share of all packets in each direction;
    `queue` in bytes before the narrow place. Losses make the kernels hand over single packets, so that one
    packet is lost at a time."""

    delay: float
    rate: float
    loss: float = 0.0
    queue: int = 1 << 20


class LongPath:
    """Hosts `near` and `far`, and `middle`, where a server may run that both reach. Part of an `Internet`,
    which also removes it; `close` it before."""

    def __init__(self, net: Internet, distance: Distance, name: str = "long") -> None:
        self.distance = distance
        self.near = Host(f"{name}-near", net.namespace(f"{name}-near"), (_NEAR,))
        self.middle = Host(f"{name}-middle", net.namespace(f"{name}-middle"), (_MIDDLE, _OTHER))
        self.far = Host(f"{name}-far", net.namespace(f"{name}-far"), (_FAR,))
        self._line = self._lay()
        self._configure()

    def close(self) -> None:
        """End the process of the line."""
        assert self._line.stdin is not None and self._line.stdout is not None
        self._line.stdin.close()
        self._line.wait()
        self._line.stdout.close()

    def _lay(self) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "crowline.lab.delay_line", str(self.distance.delay)]
        argv += ["0" if self.distance.loss else "1"]
        argv += [self.near.namespace, "eth0", self.middle.namespace, "left"]
        line = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        assert line.stdout is not None
        if not line.stdout.readline():
            line.wait()
            raise LocalProblem("The laboratory's long line cannot be laid.")
        return line

    def _configure(self) -> None:
        near, middle, far = (host.namespace for host in (self.near, self.middle, self.far))
        set_kernel_parameters(middle, FORWARDING)
        ip(near, f"link set eth0 up txqueuelen {TUNNEL_QUEUE}", f"addr add {_NEAR}/32 dev eth0")
        ip(near, "route add default dev eth0")
        ip(middle, f"link add right type veth peer name eth0 netns {far}")
        ip(middle, f"link set left up txqueuelen {TUNNEL_QUEUE}", "link set right up")
        ip(
            middle,
            f"addr add {_MIDDLE}/24 dev right",
            f"addr add {_OTHER}/24 dev right",
            f"route add {_NEAR}/32 dev left",
        )
        ip(far, "link set eth0 up", f"addr add {_FAR}/24 dev eth0", f"route add default via {_MIDDLE}")
        await_running(middle, ["right"])
        for device in ("left", "right"):
            shape(middle, device, self.distance.rate, _BURST, self.distance.queue)
        if self.distance.loss:
            load_rules(middle, _lossy(self.distance.loss))


def _lossy(share: float) -> str:
    """Lose that share of what is forwarded."""
    return f"""table inet long {{
    chain forward {{
        type filter hook forward priority 0;
        numgen random mod {_PARTS} < {round(share * _PARTS)} drop
    }}
}}
"""
