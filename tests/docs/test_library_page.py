"""`docs/library.md` tells the truth: its code runs, and its tables have every name."""

from __future__ import annotations

import asyncio
import importlib
import re
import types
from pathlib import Path
from typing import Any

import pytest

import crowline.ice
from crowline.base.addresses import Address
from crowline.ice import CandidateLine, IceFailed, PairLost
from crowline.ice.events import IceEvent
from crowline.net import IceConnection, TurnAccount
from datagram_endpoint import endpoint
from turn_front import front

PAGE = (Path(__file__).parents[2] / "docs" / "library.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
PATIENCE = 60.0  # seconds until something must have happened
PACKAGES = ["crowline.stun", "crowline.turn", "crowline.ice", "crowline.net"]
# Not the server's own host: a port of that which lies in the relay's range is taken for another allocation.
PEER_HOST = "127.0.0.2"
UNUSED = {"OwnSocket"}  # which `open_socket` uses


@pytest.fixture(scope="module")
def page() -> Any:
    """What the page defines, run from top to bottom as it promises."""
    module = types.ModuleType("library_page")
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"docs/library.md, block {number}", "exec"), module.__dict__)
    return module


def test_every_function_of_the_page_is_tried_here() -> None:
    """A new block needs a new test."""
    defined = set(re.findall(r"^(?:async )?(?:def|class) (\w+)", "\n".join(BLOCKS), re.MULTILINE))
    tried = set(re.findall(r"\bpage\.(\w+)", Path(__file__).read_text(encoding="utf-8")))
    assert defined - UNUSED <= tried


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_is_on_the_page(package: str) -> None:
    """In the tables of names at its end."""
    _, _, names = PAGE.partition("## All names")
    listed = set(re.findall(r"`(\w+)`", names))
    assert set(importlib.import_module(package).__all__) <= listed


def test_names_of_the_page_are_there() -> None:
    """What the tables list can be imported, from the package that they list it under."""
    _, _, names = PAGE.partition("## All names")
    for section in re.split(r"^\| `(?=crowline\.)", names, flags=re.MULTILINE)[1:]:
        package, _, table = section.partition("`")
        offered = importlib.import_module(package).__all__
        first_columns = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        assert first_columns
        for name in re.findall(r"`(\w+)`", " ".join(first_columns)):
            assert name in offered


def test_every_event_of_an_agent_is_on_the_page() -> None:
    """Each that the package offers, with a word on when it comes."""
    offered = [event for event in IceEvent.__args__ if event.__name__ in crowline.ice.__all__]
    assert IceFailed in offered and PairLost in offered
    for event in offered:
        assert re.search(rf"^\| `{event.__name__}` \| \w", PAGE, re.MULTILINE)


async def test_seen_by(page: Any) -> None:
    """A server sees the socket where it is; other datagrams are the program's own."""
    async with front() as server, endpoint() as friend, asyncio.timeout(PATIENCE):
        own = await page.open_socket("127.0.0.1")
        friend.write(b"hello", own.local)
        assert await page.seen_by(own, server.address) == own.local
        own.transport.close()


async def test_serve_stun(page: Any) -> None:
    """The page's server answers the page's client."""
    async with asyncio.timeout(PATIENCE):
        server, own = await page.open_socket("127.0.0.1"), await page.open_socket("127.0.0.1")
        page.serve_stun(server)
        assert await page.seen_by(own, server.local) == own.local
        for each in (server, own):
            each.transport.close()


async def test_mapped_address(page: Any) -> None:
    """The blocking socket is answered by a server in another thread of this program."""
    async with front() as server, asyncio.timeout(PATIENCE):
        mapped = await asyncio.to_thread(page.mapped_address, server.address)
        assert mapped.host == "127.0.0.1"


async def test_echo_at(page: Any) -> None:
    """A peer hears itself from the relayed address."""
    async with front() as server, endpoint(PEER_HOST) as peer, asyncio.timeout(PATIENCE):
        own = await page.open_socket("127.0.0.1")
        relay = await page.echo_at(own, TurnAccount(server.address, "user", "password"), peer.local)
        peer.write(b"hello", relay.address)
        assert await peer.others.get() == (b"hello", relay.address)
        await relay.close()
        own.transport.close()


async def test_connect(page: Any) -> None:
    """Two connections over queues of lines carry a datagram."""
    async with front() as server, asyncio.timeout(PATIENCE):
        sockets = [await page.open_socket(host) for host in ("127.0.0.2", "127.0.0.3")]
        lines: list[asyncio.Queue[str]] = [asyncio.Queue(), asyncio.Queue()]
        one, two = await asyncio.gather(
            page.connect(sockets[0], True, lines[1].put_nowait, lines[0], [server.address]),
            page.connect(sockets[1], False, lines[0].put_nowait, lines[1], [server.address]),
        )
        one[0].send(b"hello")
        assert await two[1].get() == b"hello"
        for connection, _, tasks in (one, two):
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await connection.close()
        for own in sockets:
            own.transport.close()


async def test_open_tcp(page: Any) -> None:
    """Two connections without a datagram socket carry a datagram."""
    arrived: asyncio.Queue[bytes] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def end(number: int) -> IceConnection:
        return IceConnection(
            number == 0,
            send=lambda transmit: None,
            tell=lambda line: loop.call_soon(lambda: ends[1 - number].hear(line)),
            on_data=lambda data: arrived.put_nowait(bytes(data)),
        )

    ends: list[IceConnection] = []
    async with asyncio.timeout(PATIENCE):
        ends += [end(0), end(1)]
        for each in ends:
            assert len(page.open_tcp(each, ["127.0.0.1"])) == 1
            await each.gather()
        await asyncio.gather(*(each.connected() for each in ends))
        ends[0].send(b"hello")
        assert await arrived.get() == b"hello"
        for each in ends:
            await each.close()


def test_agree(page: Any) -> None:
    """Each of the two agents sends to the other's home."""
    assert page.agree() == [Address("192.0.2.2", 1000), Address("192.0.2.1", 1000)]


def test_links_of_the_page_lead_somewhere() -> None:
    """Files of this repository."""
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (Path(__file__).parents[2] / "docs" / target).exists(), target


def test_the_line_of_the_page_is_one() -> None:
    """It is what an agent takes."""
    found = re.search(r'CandidateLine\.parse\("(.*?)"\)', PAGE)
    assert found is not None
    assert CandidateLine.parse(found[1]).candidate().address == Address("198.51.100.7", 50000)
