"""A link over TCP beside the one in use, made when somebody's bulk is slow: in one process, on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

import crowline
from crowline.api import pair_links
from crowline.session.events import LinkSought
from crowline.session.frames import Kind, header
from crowline.session.links import LinkTransmit
from serving import serving
from waiting import until


@pytest.fixture
async def peers() -> AsyncIterator[tuple[crowline.Peer, crowline.Peer]]:
    """The hosting and the joining side, by a direct path over UDP."""
    async with (
        serving() as server,
        crowline.host(server.url) as room,
        crowline.join(room.code, server.url) as there,
    ):
        both = await room.peer(), there
        await until(lambda: all(path_of(peer) == "udp" for peer in both))
        yield both


def path_of(peer: crowline.Peer) -> str:
    return peer.path.transport if peer.path is not None and peer.path.is_direct else ""


def transports(peer: crowline.Peer) -> set[str]:
    return {path.transport for path in peer.paths()}


@pytest.mark.parametrize("side", [0, 1])
async def test_whichever_side_is_slow_both_get_the_link(
    peers: tuple[crowline.Peer, crowline.Peer], side: int
) -> None:
    """The other side is asked by a frame, since only one of them can nominate; the path in use stays."""
    connection = peers[side]._connection
    chosen = connection.session.chosen
    assert chosen is not None
    await until(lambda: all(has_tcp_pair(peer) for peer in peers))
    connection.session._transmits.append(LinkTransmit(chosen, (header(Kind.SEEK, 0, 0),)))
    connection._on_session_event(LinkSought())
    connection.flush()
    await until(lambda: all("tcp" in transports(peer) for peer in peers))
    assert [path_of(peer) for peer in peers] == ["udp", "udp"]
    agents = [peer._connection._traversal.agent for peer in peers]  # type: ignore[union-attr]
    await until(lambda: not any(agent.selected.transport.is_stream for agent in agents))


async def test_a_link_that_nobody_uses_goes_and_one_that_carried_bulk_stays(
    peers: tuple[crowline.Peer, crowline.Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either side's bytes count."""
    monkeypatch.setattr(pair_links, "LINGER", 0.05)
    host, joining = peers
    links = joining._connection.carriers.pairs
    assert links is not None
    await until(lambda: has_tcp_pair(joining))
    links._carried = lambda number: pair_links._BULK
    joining._connection._on_session_event(LinkSought())
    host._connection._on_session_event(LinkSought())
    await until(lambda: all("tcp" in transports(peer) for peer in peers))
    links.chosen(joining._connection.carriers.paths.up[joining._connection.session.chosen])
    await asyncio.sleep(0.3)
    assert "tcp" in transports(joining)
    links._carried = lambda number: 0
    await until(lambda: "tcp" not in transports(joining) and "tcp" not in transports(host))


async def test_a_wish_that_comes_before_any_pair_is_remembered(
    peers: tuple[crowline.Peer, crowline.Peer],
) -> None:
    """The first pair over TCP that works after it becomes the link."""
    for peer in peers:
        peer._connection._on_session_event(LinkSought())
    await until(lambda: all("tcp" in transports(peer) for peer in peers))


def has_tcp_pair(peer: crowline.Peer) -> bool:
    traversal = peer._connection._traversal
    return traversal is not None and any(pair.transport.is_stream for pair in traversal.valid_pairs())
