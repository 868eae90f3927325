"""The STUN server against programs of others, over loopback: coturn's tools and Debian's RFC 3489 client."""

from __future__ import annotations

import asyncio
import re

import pytest

from needs import needs_program
from peer_programs import end_of
from turn_front import front

pytestmark = pytest.mark.peer


async def asked(*, alternate: str | None, command: str, options: list[str]) -> tuple[int | None, str, int]:
    """What a program says about a server of ours: exit code, output, and the server's port."""
    async with front(alternate_address=alternate, tcp=False) as running:
        port = running.address.port
        code, output = await end_of(needs_program(command), *(o.format(port=port) for o in options))
        return code, output, port


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
