"""Two TCP ports that dial each other, on a machine that nobody translates."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from crowline.base.addresses import Address
from crowline.net.tcp_discovery import PATIENCE, discover_tcp
from crowline.net.tcp_hairpin import tcp_hairpin
from crowline.net.tcp_sockets import name_of, open_shared
from crowline.stun.nat_findings import Facet, Hairpinning, Mapping, Reason, Sample

HOST = "127.0.0.1"
LONG = 30.0  # seconds; what has to happen takes a thousandth


@contextmanager
def reserved(count: int) -> Iterator[list[Address]]:
    """So many ports of ours."""
    sockets = [open_shared(Address(HOST, 0)) for _ in range(count)]
    try:
        yield [name_of(each.getsockname()) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def sample(local: Address, mapped: Address) -> Sample:
    return Sample(local, mapped, 0.0)


async def test_ports_that_reach_each_other_are_seen() -> None:
    """By the addresses that they have: nobody is in between."""
    with reserved(2) as (one, two):
        found = await tcp_hairpin(sample(one, one), sample(two, two), LONG)
    assert found in (Hairpinning.INTERNAL_SOURCE, Hairpinning.EXTERNAL_SOURCE)


async def test_refusals_end_the_attempt() -> None:
    """Nobody listens at those addresses; no time is waited for."""
    with reserved(4) as (one, two, nobody, nobody_else):
        async with asyncio.timeout(LONG):
            found = await tcp_hairpin(sample(one, nobody), sample(two, nobody_else), 10 * LONG)
    assert found is None


async def test_a_stranger_who_takes_one_of_the_calls_is_no_hairpin() -> None:
    """A server may name any address as ours; one connection alone proves nothing."""
    async with await asyncio.start_server(lambda *_: None, HOST, 0) as stranger:
        named = name_of(stranger.sockets[0].getsockname())
        with reserved(3) as (one, two, nobody):
            found = await tcp_hairpin(sample(one, nobody), sample(two, named), 0.2)
    assert found is None


async def test_an_attempt_that_is_given_up_leaves_nothing_open() -> None:
    """Sockets that stay open are errors of this suite."""
    async with await asyncio.start_server(lambda *_: None, HOST, 0) as stranger:
        named = name_of(stranger.sockets[0].getsockname())
        with reserved(2) as (one, two), pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await tcp_hairpin(sample(one, named), sample(two, Address(HOST, 9)), LONG)


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x01" + b"\xff" * 64])
async def test_a_server_that_speaks_no_stun_tells_nothing(says: bytes) -> None:
    """Silence, another protocol, or nonsense: nothing is known, and nobody waits long."""
    writers: list[asyncio.StreamWriter] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(says)

    server = await asyncio.start_server(accept, HOST, 0)
    began = asyncio.get_running_loop().time()
    found = await discover_tcp(name_of(server.sockets[0].getsockname()), own=HOST)
    assert asyncio.get_running_loop().time() - began < 30 * PATIENCE
    for writer in writers:
        writer.close()
    server.close()
    assert (found.mapping, found.samples) == (Mapping.UNKNOWN, ())
    assert found.unknown[Facet.MAPPING] is Reason.NO_ANSWER
