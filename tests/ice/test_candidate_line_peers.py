"""Our lines read by agents of others, and theirs by us."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from crowline.base.addresses import Address
from crowline.ice.attribute_line import IcePwd, IceUfrag, read_attribute
from crowline.ice.candidate import CandidateFactory
from crowline.ice.candidate_line import CandidateLine
from needs import missing

try:
    import aioice
except ImportError:
    aioice = None  # type: ignore[assignment]

pytestmark = pytest.mark.peer

PATIENCE = 60  # seconds for libnice to gather and say it

# Reads lines from standard input and says how it read each; then its own description. The system's Python has
# the bindings, which are no package of the virtual environment.
NICE = """
import sys
import gi
gi.require_version("Nice", "0.1")
from gi.repository import GLib, Nice

context = GLib.MainContext.default()
agent = Nice.Agent.new(context, Nice.Compatibility.RFC5245)
agent.set_property("upnp", False)
stream = agent.add_stream(1)
agent.set_stream_name(stream, "application")
for line in sys.stdin:
    candidate = agent.parse_remote_candidate_sdp(stream, line.rstrip())
    print("READ", candidate and agent.generate_local_candidate_sdp(candidate))
loopback = Nice.Address.new()
loopback.set_from_string("127.0.0.1")
agent.add_local_address(loopback)
done = []
agent.connect("candidate-gathering-done", lambda *_: done.append(True))
agent.gather_candidates(stream)
while not done:
    context.iteration(True)
print(agent.generate_local_sdp())
"""


def ours() -> list[CandidateLine]:
    """A host, a server-reflexive and a relayed candidate."""
    factory = CandidateFactory()
    base, server = Address("192.0.2.2", 35570), Address("198.51.100.1", 3478)
    mapped = Address("203.0.113.7", 40000)
    return [
        CandidateLine.of(factory.host(base)),
        CandidateLine.of(factory.host(Address("2001:db8::2", 35571))),
        CandidateLine.of(factory.server_reflexive(mapped, base, server), extensions={"generation": "0"}),
        CandidateLine.of(factory.relayed(Address("198.51.100.1", 50000), mapped, server)),
    ]


def test_aioice_reads_our_lines_and_we_read_its_own() -> None:
    """Each value is what it was."""
    if aioice is None:
        missing("aioice is not installed")
    for line in ours():
        text = line.write()
        theirs = aioice.Candidate.from_sdp(text.removeprefix("candidate:"))
        assert (theirs.foundation, theirs.host, theirs.port) == (line.foundation, line.host, line.port)
        assert (theirs.priority, theirs.type) == (line.priority, line.type.value)
        assert (theirs.related_address or "", theirs.related_port or 0) == (
            line.related_host,
            line.related_port,
        )
        assert CandidateLine.parse(theirs.to_sdp()) == line


async def test_we_read_what_aioice_gathers() -> None:
    """Candidates, user name fragment and password of a running agent."""
    if aioice is None:
        missing("aioice is not installed")
    connection = aioice.Connection(ice_controlling=True)
    try:
        async with asyncio.timeout(PATIENCE):
            await connection.gather_candidates()
        for candidate in connection.local_candidates:
            line = CandidateLine.parse(candidate.to_sdp())
            assert line.write() == f"candidate:{candidate.to_sdp()}"
        assert IceUfrag(connection.local_username).write()
        assert IcePwd(connection.local_password).write()
    finally:
        await connection.close()


def test_libnice_reads_our_lines_and_we_read_its_own() -> None:
    """It writes our candidates as we did, but for capitals; its own description is read whole."""
    python = "/usr/bin/python3"
    can_import = [
        python,
        "-c",
        "import gi; gi.require_version('Nice', '0.1'); from gi.repository import Nice",
    ]
    if not Path(python).exists() or subprocess.run(can_import, capture_output=True, check=False).returncode:
        missing("libnice's bindings (gir1.2-nice-0.1, python3-gi) are not installed")
    lines = [replace(line, extensions=()) for line in ours()]
    done = subprocess.run(
        [python, "-c", NICE],
        input="".join(f"a={line.write()}\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    read = [line.removeprefix("READ ") for line in done.stdout.splitlines() if line.startswith("READ ")]
    assert [CandidateLine.parse(line) for line in read] == lines
    said = [read_attribute(line) for line in done.stdout.splitlines() if not line.startswith("READ ")]
    kinds = {type(each) for each in said if each is not None}
    assert kinds == {CandidateLine, IceUfrag, IcePwd}
