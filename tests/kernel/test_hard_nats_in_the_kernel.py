"""Real programs behind NATs that ICE's checks alone do not pass: plans open a direct path, or say why not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crowline.lab.bed import Bed, build_bed
from crowline.lab.presets import PRESETS
from crowline.lab.profile import Profile
from crowline.lab.virtual import CORE_HOPS
from needs import needs_program

# Seconds for what takes two or three; a spray that misses, once in sixty times, is tried again after 20, and
# after 40 more.
PATIENCE = "150"

# One side: says its code, waits until its path is what is wanted, and proves that it carries data.
PEER = """
import asyncio, json, os, sys
import crowline

async def main(wanted, code):
    async with asyncio.timeout(float(os.environ["PATIENCE"])):
        if code:
            async with crowline.join(code) as peer:
                stream = await peer.open_stream()
                await talk(peer, stream, wanted)
        else:
            async with crowline.host() as room:
                print(room.code, flush=True)
                peer = await room.peer()
                await talk(peer, await anext(peer.streams()), wanted)

async def talk(peer, stream, wanted):
    # A stream is there for the other side when something was written to it.
    await stream.write(b"hello\\n")
    await stream.readline()
    while peer.path is None or peer.path.kind != wanted or peer.path.reason.endswith("so far"):
        await asyncio.sleep(0.01)
    await stream.write(b"there\\n" + os.urandom(200_000))
    assert await stream.readline() == b"there\\n"
    await stream.readexactly(200_000)
    path = peer.path
    print(json.dumps({"kind": path.kind, "transport": path.transport, "reason": path.reason}), flush=True)
    await stream.write(b"bye\\n")
    await stream.readline()

asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""))
"""


def meet(bed: Bed, folder: Path, wanted: str) -> list[dict[str, Any]]:
    """Have a program at each of both hosts; what each says of its path."""
    bed.serve()
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True}
    arguments = [sys.executable, "-c", PEER, wanted]
    host = bed.spawn("a", arguments, env=environment(folder / "a"), **options)
    code = line_of(host)
    guest = bed.spawn("b", [*arguments, code], env=environment(folder / "b"), **options)
    return [json.loads(line_of(each)) for each in (host, guest)]


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def environment(home: Path) -> dict[str, str]:
    """With a home of its own, where each machine keeps what worked."""
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "CROWLINE_"))}
    return kept | {"HOME": str(home), "PATIENCE": PATIENCE}


def busy(profile: Profile, rate: float) -> Profile:
    """The same place, with neighbours that open so many mappings a second."""
    return replace(profile, nats=tuple(replace(nat, cross_traffic=rate) for nat in profile.nats))


HOME, SYMMETRIC = PRESETS["home"], PRESETS["symmetric"]
SEQUENTIAL = PRESETS["symmetric-sequential"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        (HOME, SYMMETRIC, "by trying many"),
        (HOME, PRESETS["symmetric-block"], "by trying many"),
        (busy(SEQUENTIAL, 10.0), HOME, "was foretold"),
        (busy(SEQUENTIAL, 10.0), busy(SEQUENTIAL, 10.0), "were foretold"),
    ],
    ids=["random", "block", "sequential", "both sequential"],
)
def test_a_hard_nat_is_passed(tmp_path: Path, a: Profile, b: Profile, reason: str) -> None:
    """Whichever side it is on: the path is direct, carries data, and its reason names the plan.

    What ICE alone makes of these is a relay.
    """
    with build_bed(a, b) as bed:
        ends = meet(bed, tmp_path, "direct")
    assert [end["kind"] for end in ends] == ["direct", "direct"]
    assert all(reason in end["reason"] for end in ends), ends
    kept = [(tmp_path / side / ".local/state/crowline/plans.json") for side in "ab"]
    assert all(path.exists() for path in kept)


@pytest.mark.timeout(240)
def test_packets_that_die_on_the_way_spoil_no_port(tmp_path: Path) -> None:
    """A Linux router that drops nothing keeps a stray packet as a flow of its own, and gives whoever answers
    it another port: what opens the NAT of the other side must not get there. Across the internet, five hops
    do not.
    """
    needs_program("nft")
    with build_bed(HOME, SEQUENTIAL, translator="kernel") as bed:
        bed.internet.set_core(CORE_HOPS)
        [gateway] = bed.internet._gateways
        table, chain = "crowline", "unasked"
        assert bed.internet.spawn_in(gateway, ["nft", "delete", "chain", "inet", table, chain]).wait(30) == 0
        ends = meet(bed, tmp_path, "direct")
    assert all("was foretold" in end["reason"] for end in ends), ends


@pytest.mark.timeout(240)
def test_two_random_nats_stay_with_the_relay_and_say_so(tmp_path: Path) -> None:
    """Nobody can guess both ports at once; the reason is known long before the last plan has failed."""
    with build_bed(SYMMETRIC, SYMMETRIC) as bed:
        ends = meet(bed, tmp_path, "relay")
    assert {end["reason"] for end in ends} == {"both NATs draw a new random port for each destination"}
