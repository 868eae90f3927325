"""Discovery with real sockets on this machine: no translator, servers of all kinds, and silence."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from crowline.api.mapped_address import mapped_address
from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem, UsageError
from crowline.base.transport import Transport
from crowline.net.fresh_sockets import FreshSockets
from crowline.net.mapping_lifetimes import measure_lifetimes
from crowline.net.nat_discovery import choose_server, discover_nat
from crowline.net.udp import UdpSocket
from crowline.punch.nat_profile import Facet, Filtering, Mapping, Reason
from crowline.stun.attributes import OtherAddress, XorMappedAddress
from crowline.stun.message import MessageClass, parse
from turn_front import front

OTHER_HOST = "127.0.0.3"
HOME = "127.0.0.1"
TRIES = 20  # on a busy machine an answer may take longer than it is waited for


@contextmanager
def silent_server() -> Iterator[Address]:
    """A port that takes packets and never answers; TCP is refused there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind((HOME, 0))
        yield Address(HOME, mute.getsockname()[1])


async def test_a_machine_without_translator_is_recognised() -> None:
    """UDP and TCP, by a server with two addresses."""
    async with front(alternate_address=OTHER_HOST) as running:
        for _ in range(TRIES):
            profile = await discover_nat([running.address])
            if profile.filtering is Filtering.ENDPOINT_INDEPENDENT and profile.tcp and profile.tcp.answers:
                break
    assert profile.answers
    assert (profile.mapping, profile.filtering) == (Mapping.NONE, Filtering.ENDPOINT_INDEPENDENT)
    assert profile.classic_name == "open internet"
    assert profile.outside_hosts == (HOME,)
    assert profile.tcp is not None
    assert profile.tcp.answers
    assert profile.tcp.mapping is Mapping.NONE
    assert profile.tcp.unknown[Facet.FILTERING] is Reason.NO_CALLS_BACK


async def test_a_server_with_one_address_is_enough_for_most() -> None:
    """What it could not tell is said, and TCP is left out where nobody wants it."""
    async with front() as running:
        profile = await discover_nat([running.address], tcp=False)
    assert profile.mapping is Mapping.NONE
    assert profile.unknown[Facet.FILTERING] is Reason.ONE_ADDRESS
    assert profile.tcp is None


async def test_silence_is_a_result() -> None:
    """Nothing is raised, and the reason is said."""
    with silent_server() as mute:
        profile = await discover_nat([mute])
    assert not profile.answers
    assert profile.unknown[Facet.MAPPING] is Reason.NO_ANSWER
    assert profile.tcp is not None
    assert not profile.tcp.answers
    assert profile.summary().has_udp is False


async def test_the_server_with_a_second_address_is_chosen() -> None:
    """Although others come first in the list; those are asked for mappings only."""
    async with front() as plain, front(alternate_address=OTHER_HOST) as able:
        with silent_server() as mute:
            for _ in range(TRIES):
                chosen = await choose_server([mute, plain.address, able.address], HOME)
                if chosen.server == able.address:
                    break
        assert (chosen.server, chosen.answers) == (able.address, True)
        assert set(chosen.further) == {mute, plain.address}


@asynccontextmanager
async def server_that_names(other: Callable[[Address], Address], delay: float) -> AsyncIterator[Address]:
    """It answers after so many seconds, and names that as its second address."""
    loop = asyncio.get_running_loop()

    class Answering(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
            attributes = XorMappedAddress(Address(*source)), OtherAddress(other(address))
            answer = parse(data).message.answer(MessageClass.SUCCESS, *attributes).encode()
            loop.call_later(delay, send, answer, source)

    def send(answer: bytes, source: tuple[str, int]) -> None:
        if not transport.is_closing():
            transport.sendto(answer, source)

    transport, _ = await loop.create_datagram_endpoint(Answering, local_addr=(HOME, 0))
    address = Address(*transport.get_extra_info("sockname"))
    try:
        yield address
    finally:
        transport.close()


async def test_a_second_address_that_cannot_be_one_is_no_reason_to_choose_a_server() -> None:
    """As those have that are behind a translator themselves; the next one has a moment to answer."""

    def same_host(address: Address) -> Address:
        return Address(address.host, address.port + 1)

    def another(address: Address) -> Address:
        return Address(OTHER_HOST, address.port + 1)

    async with server_that_names(same_host, 0.0) as quick, server_that_names(another, 0.02) as able:
        for _ in range(TRIES):
            chosen = await choose_server([quick, able], HOME)
            if chosen.server == able:
                break
    assert chosen.server == able


async def test_a_silent_server_is_no_obstacle_beside_another() -> None:
    """The one that answers is asked."""
    async with front() as running:
        with silent_server() as mute:
            chosen = await choose_server([mute, running.address], HOME)
            profile = await discover_nat([mute, running.address], tcp=False)
        assert chosen.server == running.address
    assert profile.answers


async def test_servers_of_two_families_are_a_mistake() -> None:
    """As are none at all."""
    for servers in ([], [Address(HOME, 1), Address("::1", 1)]):
        with pytest.raises(UsageError):
            await discover_nat(servers)


async def test_an_address_that_is_not_ours_is_a_local_problem() -> None:
    """No socket can be opened there."""
    with pytest.raises(LocalProblem):
        await discover_nat([Address(HOME, 9)], own="192.0.2.1", tcp=False)


async def test_a_discovery_that_is_given_up_leaves_nothing_open() -> None:
    """Sockets that stay open, and tasks, are errors of this suite."""
    with silent_server() as mute:
        task = asyncio.ensure_future(discover_nat([mute]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_lifetimes_are_measured_idle_and_busy() -> None:
    """No mapping ends where there is no translator: idle ones outlive the longest silence."""
    async with front(alternate_address=OTHER_HOST) as running:
        found = await measure_lifetimes([running.address], waits=(0.05, 0.1), busy=(0.05, 0.05))
    assert found.alive is not None
    assert found.alive >= 0.1
    assert (found.dead, found.reason) == (None, None)
    assert found.busy_reason is Reason.NO_TRANSLATION


async def test_lifetimes_by_a_server_with_one_address_are_asked_for_again() -> None:
    """Without RESPONSE-PORT the same socket asks again, which says nothing where there is no translator."""
    async with front() as running:
        found = await measure_lifetimes([running.address], waits=(0.05, 0.1), busy=(0.05,))
    assert found.reason is found.busy_reason is Reason.NO_TRANSLATION


async def test_silence_has_no_lifetime() -> None:
    """Nobody waits for minutes."""
    with silent_server() as mute:
        found = await measure_lifetimes([mute])
    assert found.reason is found.busy_reason is Reason.NO_ANSWER


async def test_fresh_sockets_have_ports_in_no_order() -> None:
    """A kernel that counts would look like a translator that does."""
    with FreshSockets(HOME, 10, lambda *_: None) as sockets:
        ports = [each.port for each in sockets.addresses]
    assert len(set(ports)) == 10
    assert ports != sorted(ports)


async def test_a_machine_out_of_descriptors_has_a_local_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was opened before is closed again: open sockets are errors of this suite."""
    bind, opened = UdpSocket.bind, list[Address]()

    def scarce(address: Address, receive: Callable[..., None]) -> UdpSocket:
        if len(opened) == 3:
            raise OSError(errno.EMFILE, "Too many open files")
        opened.append(address)
        return bind(address, receive)

    monkeypatch.setattr(UdpSocket, "bind", scarce)
    with pytest.raises(LocalProblem, match="Too many open files"):
        FreshSockets(HOME, 10, lambda *_: None)
    assert len(opened) == 3


async def test_our_server_takes_connections_at_all_four_addresses() -> None:
    """So that clients see how their TCP ports are mapped; each answer names the address that is not asked."""
    async with front(alternate_address=OTHER_HOST) as running:
        first = running.address
        other = (await mapped_address(HOME, first.port)).other
        assert other is not None
        assert other.host == OTHER_HOST
        for host, there in ((HOME, OTHER_HOST), (OTHER_HOST, HOME)):
            for port, opposite in ((first.port, other.port), (other.port, first.port)):
                mapped = await mapped_address(host, port, transport=Transport.TCP)
                assert mapped.address == mapped.local
                assert mapped.other == Address(there, opposite)
