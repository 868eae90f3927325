"""The STUN server against programs of others, over loopback: coturn's tools and Debian's RFC 3489 client."""

from __future__ import annotations

import asyncio
import os
import re

import pytest

from crowline.base.addresses import Address
from crowline.base.secrets import Secret
from crowline.server.front import StunTurnFront
from needs import needs_program

pytestmark = pytest.mark.peer

SECONDS = 60.0  # a discovery with a lost packet takes a few


async def run(*command: str) -> tuple[int | None, str]:
    """Exit code and all output; killed when it takes too long."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output.decode(errors="replace")


async def asked(*, alternate: str | None, command: str, options: list[str]) -> tuple[int | None, str, int]:
    """What a program says about a server of ours: exit code, output, and the server's port."""
    front = StunTurnFront(
        Address("127.0.0.1", 0),
        secret=Secret(os.urandom(32)),
        permits=lambda user, peer: False,
        alternate_address=alternate,
        tcp=False,
    )
    await front.start()
    try:
        port = front.address.port
        code, output = await run(needs_program(command), *(o.format(port=port) for o in options))
        return code, output, port
    finally:
        await front.close()


@pytest.mark.parametrize("padding", [[], ["-P"]])
def test_coturns_discovery_finds_out_everything(padding: list[str]) -> None:
    """Mapping and filtering discovery by RFC 5780, with and without 1,500 bytes of padding, to the end."""
    options = ["-m", "-f", *padding, "-p", "{port}", "127.0.0.1"]
    code, output, port = asyncio.run(
        asked(alternate="127.0.0.2", command="turnutils_natdiscovery", options=options)
    )
    assert code == 0
    assert len(re.findall(r"RFC 5780 response \d", output)) == 4
    assert f"Response origin: : 127.0.0.2:{port}" in output
    assert "Other addr: : 127.0.0.2:" in output
    assert "Other addr: : 127.0.0.1:" in output
    assert "Endpoint Independent Filtering" in output


def test_coturns_client_gets_all_three_answers() -> None:
    """Plain, by CHANGE-REQUEST and by RESPONSE-PORT: the last goes to a port that did not ask."""
    code, output, _ = asyncio.run(
        asked(alternate="127.0.0.2", command="turnutils_stunclient", options=["-p", "{port}", "127.0.0.1"])
    )
    assert code == 0
    assert re.findall(r"RFC 5780 response (\d)", output) == ["1", "2", "3"]
    ports = re.findall(r"UDP reflexive addr: 127\.0\.0\.1:(\d+)", output)
    assert len(ports) == 3


def test_coturns_client_gets_its_answer_from_one_address() -> None:
    """Without a second address there is one answer and no more to ask."""
    code, output, _ = asyncio.run(
        asked(alternate=None, command="turnutils_stunclient", options=["-p", "{port}", "127.0.0.1"])
    )
    assert code == 0
    assert "UDP reflexive addr: 127.0.0.1:" in output
    assert "Other addr" not in output


def test_a_classic_client_finds_no_nat() -> None:
    """Debian's client of RFC 3489 runs all of its tests and finds what is true on loopback."""
    _, output, _ = asyncio.run(asked(alternate="127.0.0.2", command="stun", options=["127.0.0.1:{port}"]))
    assert "Primary: Open" in output
