"""Real programs on a path that loses packets: their bulk goes over to TCP, byte for byte."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from crowline.lab.demo_stage import serve_on
from crowline.lab.long_path import Distance, LongPath
from crowline.lab.namespaces import Internet
from needs import needs_program

PROGRAM = str(Path(__file__).parent.parent / "bulk_peer.py")
PATIENCE = 120.0


def test_bulk_that_losses_slow_down_goes_over_tcp() -> None:
    """UDP leads across first; the side that sends finds out by itself, and nothing is lost on the way."""
    needs_program("tc")
    needs_program("nft")
    with Internet() as net, closing(LongPath(net, Distance(delay=0.1, rate=12.5e6, loss=0.02))) as path:
        url = serve_on(net, path.middle, net.folder())

        def begin(place: object, *arguments: str) -> subprocess.Popen[str]:
            argv = [sys.executable, PROGRAM, *arguments]
            return net.spawn(place, argv, stdout=subprocess.PIPE, text=True)

        receiver = begin(path.far, "receive", url)
        sender = begin(path.near, "send", url, receiver.stdout.readline().strip())
        sent = json.loads(sender.communicate(timeout=PATIENCE)[0])
        came = json.loads(receiver.communicate(timeout=PATIENCE)[0])
        assert came["digest"] == sent["digest"]
        assert sent["has_moved"]
