"""A path of large packets that becomes narrower in the middle of a transfer, without a word."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from crowline.lab.demo_stage import serve_on
from crowline.lab.kernel import FORWARDING, await_running, ip, load_rules, set_kernel_parameters
from crowline.lab.namespaces import Internet
from crowline.lab.places import Host
from needs import needs_program

PROGRAM = str(Path(__file__).parent.parent / "sized_peer.py")
PATIENCE = 120.0  # seconds for a program to end
NEAR, FAR, MIDDLE, OTHER = "44.9.1.2", "44.9.2.2", "44.9.1.1", "44.9.2.1"

# A black hole (RFC 2923 §2.1): nobody hears that a packet is too large, and parts of one are lost.
SILENCE = """table inet silence {
    chain output {
        type filter hook output priority 0;
        icmp type destination-unreachable drop
    }
}
"""
NO_PARTS = """table inet whole {
    chain arrival {
        type filter hook prerouting priority -450;
        ip frag-off & 0x3fff != 0 drop
    }
}
"""


@pytest.mark.parametrize("mtu", [9000, 1500])
def test_a_path_that_narrows_costs_a_transfer_seconds_and_no_byte(mtu: int) -> None:
    """Its packets had grown to what the path carried; the link with the least ones carries on."""
    needs_program("nft")
    with Internet() as net:
        near, middle, far = (net.namespace(name) for name in ("wide-near", "wide-middle", "wide-far"))
        set_kernel_parameters(middle, FORWARDING)
        for device, namespace, address, gateway in (("left", near, NEAR, MIDDLE), ("right", far, FAR, OTHER)):
            ip(middle, f"link add {device} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {namespace}")
            ip(middle, f"link set {device} up", f"addr add {gateway}/24 dev {device}")
            ip(namespace, "link set eth0 up", f"addr add {address}/24 dev eth0")
            ip(namespace, f"route add default via {gateway}")
        await_running(middle, ["left", "right"])
        url = serve_on(net, Host("wide-middle", middle, (MIDDLE, OTHER)), net.folder())

        def begin(name: str, namespace: str, *arguments: str) -> subprocess.Popen[str]:
            argv = [sys.executable, PROGRAM, *arguments]
            return net.spawn(Host(name, namespace, ()), argv, stdout=subprocess.PIPE, text=True)

        receiver = begin("wide-far", far, "receive", url)
        assert receiver.stdout is not None
        sender = begin("wide-near", near, "send", url, receiver.stdout.readline().strip())
        assert sender.stdout is not None
        assert sender.stdout.readline() == "grown\n"
        load_rules(middle, SILENCE)
        load_rules(far, NO_PARTS)
        ip(middle, "link set right mtu 1300")
        sent = json.loads(sender.communicate(timeout=PATIENCE)[0])
        came = json.loads(receiver.communicate(timeout=PATIENCE)[0])
        assert came["digest"] == sent["digest"]
        assert sent["size"] > mtu - 100
