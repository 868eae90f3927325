"""Two people behind NATs pair and chat by name: by the hub at once, directly soon, kept while cut off."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crowline.lab.demo_stage import seat, serve_on
from crowline.lab.demo_transfer import CROWLINE
from crowline.lab.namespaces import Internet
from crowline.lab.places import Site
from needs import needs_program

Factory = Callable[..., Internet]

# Seconds until a process that does nothing any more is ended; what has to happen takes a few.
PATIENCE = "150"


def nft(net: Internet, site: Site, command: str) -> None:
    """Have nftables do something at the site's host."""
    process = net.spawn_in(site.hosts[0].namespace, [needs_program("nft"), command])
    assert process.wait(timeout=30) == 0


def cut_off(net: Internet, site: Site) -> None:
    """Nothing arrives at the host or leaves it any more."""
    nft(net, site, "add table inet cut")
    for hook in ("input", "output"):
        nft(net, site, f"add chain inet cut {hook} {{ type filter hook {hook} priority 0 ; policy drop ; }}")


def wanted(process: subprocess.Popen[str], type_: str, /, **fields: object) -> dict[str, Any]:
    """The next object of that kind with these fields."""
    assert process.stdout is not None
    for line in process.stdout:
        found: dict[str, Any] = json.loads(line)
        if found["t"] == type_ and found | fields == found:
            return found
    raise AssertionError(f"it ended without {type_} {fields}")


def say(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps({"t": "say", "text": text}) + "\n")
    process.stdin.flush()


def test_who_paired_chats_directly_and_misses_nothing(internet: Factory, tmp_path: Path) -> None:
    """What is written while one side is cut off is kept, said to be so, and delivered once, in order."""
    net = internet("kernel")
    left, right = net.site("home"), net.site("home")
    url = serve_on(net, net.server(), tmp_path)

    def start(site: Site, *arguments: str) -> subprocess.Popen[str]:
        argv = ["timeout", PATIENCE, *CROWLINE, *arguments, "--json", "--no-port-mapping"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        return seat(net, site, tmp_path).spawn(argv, text=True, **pipes)

    pairing = start(left, "pair", "--name", "ana", "--server", url)
    code = wanted(pairing, "code")["code"]
    other = start(right, "pair", code, "--name", "ben", "--server", url)
    assert wanted(pairing, "known", name="ben") and wanted(other, "known", name="ana")
    assert pairing.wait(30) == 0 and other.wait(30) == 0

    ana, ben = start(left, "chat", "--peer", "ben"), start(right, "chat", "--peer", "ana")
    say(ana, "one")
    assert wanted(ben, "path")["kind"] == "hub"
    assert wanted(ben, "message")["text"] == "one"
    wanted(ana, "path", kind="direct")
    say(ben, "two")
    assert wanted(ana, "message")["text"] == "two"
    cut_off(net, right)
    say(ana, "three")
    wanted(ana, "reachable", on=False)
    say(ana, "four")
    nft(net, right, "delete table inet cut")
    wanted(ana, "reachable", on=True)
    assert [wanted(ben, "message")["text"] for _ in range(2)] == ["three", "four"]
    wanted(ana, "delivered", id=3)
    for process in (ana, ben):
        assert process.stdin is not None
        process.stdin.close()
    assert ana.wait(30) == 0 and ben.wait(30) == 0
