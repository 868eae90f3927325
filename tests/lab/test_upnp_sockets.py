"""A gateway of the zoo on real sockets of this machine, asked by a plain HTTP client."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

from crowline.base.addresses import Address
from crowline.lab.nat import Nat
from crowline.lab.presets import HOME
from crowline.lab.router_temper import ZOO, Temper
from crowline.lab.upnp_device import UpnpDevice
from crowline.lab.upnp_http import HttpAsked
from crowline.lab.upnp_sockets import Served, served
from crowline.portmap.upnp.ssdp import write_search

HOST = "127.0.0.1"
PATIENCE = 30.0  # seconds for what must happen


def device(temper: str | Temper) -> UpnpDevice:
    nat = Nat(HOME, "44.1.1.7", random.Random(1).randbytes)
    kind = ZOO[temper] if isinstance(temper, str) else temper
    return UpnpDevice(nat, HOST, kind, entropy=random.Random(2).randbytes, http_port=0)


async def get(place: Served, most: int = 1 << 20) -> bytes:
    """All that the description's URL gives, up to so many bytes."""
    reader, writer = await asyncio.open_connection(place.http.host, place.http.port)
    try:
        writer.write(HttpAsked("GET", "/rootDesc.xml").encode(str(place.http)))
        data = b""
        async with asyncio.timeout(PATIENCE):
            while len(data) < most and (piece := await reader.read(65536)):
                data += piece
        return data
    finally:
        writer.close()
        await writer.wait_closed()


class Searcher(asyncio.DatagramProtocol):
    """Collects answers with where they came from."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[tuple[bytes, str]] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.answers.put_nowait((data, addr[0]))


async def searched(place: Served) -> tuple[bytes, str]:
    """The first answer to a search, and its host."""
    loop = asyncio.get_running_loop()
    transport, searcher = await loop.create_datagram_endpoint(Searcher, local_addr=(HOST, 0))
    try:
        destination = Address(place.ssdp.host, place.ssdp.port)
        transport.sendto(write_search("upnp:rootdevice", destination), (destination.host, destination.port))
        async with asyncio.timeout(PATIENCE):
            return await searcher.answers.get()
    finally:
        transport.close()


async def test_a_search_leads_to_the_description() -> None:
    """The answer names the URL, and there is the document."""
    async with served(device("plain")) as place:
        answer, host = await searched(place)
        document = await get(place)
    assert host == HOST
    assert f"LOCATION: {place.location}\r\n".encode() in answer
    assert document.startswith(b"HTTP/1.1 200 OK\r\n")
    assert document.endswith(b"</root>")


async def test_another_host_answers_in_its_place() -> None:
    """The datagram really comes from there."""
    temper = replace(ZOO["ventriloquist"], speaks_from="127.0.0.2")
    async with served(device(temper)) as place:
        assert (await searched(place))[1] == "127.0.0.2"


async def test_a_giant_document_has_no_end() -> None:
    """A client that takes megabytes gets them; one that leaves ends it."""
    async with served(device("giant")) as place:
        assert len(await get(place, most=2 << 20)) >= 2 << 20


async def test_a_document_that_is_cut_off_is_shorter_than_it_says() -> None:
    """The connection ends in the middle."""
    async with served(device("half")) as place:
        head, _, body = (await get(place)).partition(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
    assert 0 < len(body) < int(length.split()[1])


async def test_a_silent_device_ends_with_its_server() -> None:
    """Its connections stay open until then, and none after."""
    async with served(device("silent")) as place:
        reader, writer = await asyncio.open_connection(place.http.host, place.http.port)
        writer.write(HttpAsked("GET", "/rootDesc.xml").encode(str(place.http)))
        await writer.drain()
        # By the time a search is answered, the connection has been taken.
        await searched(place)
    async with asyncio.timeout(PATIENCE):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
