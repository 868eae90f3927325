"""Binding questions over a socket that the caller owns and uses for other things too."""

from __future__ import annotations

import asyncio
import errno

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import ServerUnreachable, UsageError
from crowline.base.machine import Transmit
from crowline.net.binding import Binding
from crowline.net.lossy import lossy
from crowline.stun.attributes import ErrorCode, XorMappedAddress
from crowline.stun.client import Mapped
from crowline.stun.message import Message, MessageClass, Method, parse
from crowline.stun.transaction import Schedule
from datagram_endpoint import Endpoint, endpoint
from turn_front import front

PATIENCE = 30.0  # seconds until something must have happened


def binding_on(own: Endpoint, schedule: Schedule | None = None) -> Binding:
    binding = Binding(own.send) if schedule is None else Binding(own.send, schedule=schedule)
    own.take = binding.receive
    return binding


async def test_a_shared_socket_is_asked_for_and_still_the_callers() -> None:
    """The answer is taken, other datagrams are left, and the socket works on after the end."""
    async with front() as running, endpoint() as own, endpoint() as friend, asyncio.timeout(PATIENCE):
        binding = binding_on(own)
        friend.write(b"hello", own.local)
        first, second = await asyncio.gather(binding.ask(running.address), binding.ask(running.address))
        assert first.address == second.address == own.local
        assert await own.others.get() == (b"hello", friend.local)
        binding.close()
        own.write(b"good bye", friend.local)
        assert await friend.others.get() == (b"good bye", own.local)


async def test_stun_that_answers_nothing_is_left_to_the_caller() -> None:
    """Checks of an ICE agent on the same socket, for example."""
    async with endpoint() as own, endpoint() as friend, asyncio.timeout(PATIENCE):
        binding = binding_on(own)
        check = Message(Method.BINDING, MessageClass.REQUEST, b"x" * 12).encode()
        friend.write(check, own.local)
        assert await own.others.get() == (check, friend.local)
        binding.close()


async def test_a_mute_server_is_an_error() -> None:
    """After the whole schedule, here a quick one."""
    async with endpoint() as own, endpoint() as mute, asyncio.timeout(PATIENCE):
        binding = binding_on(own, Schedule(rto=0.01, rc=2, rm=2))
        with pytest.raises(ServerUnreachable, match="does not answer"):
            await binding.ask(mute.local)
        binding.close()


async def test_a_socket_that_fails_once_is_asked_again() -> None:
    """What the system did not take is lost like any other datagram."""
    async with front() as running, endpoint() as own, asyncio.timeout(PATIENCE):
        failures = [OSError(errno.ENETUNREACH, "Network is unreachable")]

        def send(transmit: Transmit) -> None:
            if failures:
                raise failures.pop()
            own.send(transmit)

        binding = Binding(send, schedule=Schedule(rto=0.01, rc=7, rm=16))
        own.take = binding.receive
        assert (await binding.ask(running.address)).address == own.local
        binding.close()


async def test_a_datagram_that_is_none_is_an_error() -> None:
    """What the system says of the datagram itself is not taken for loss."""
    sending = lossy(lambda transmit: raise_(OSError(errno.EMSGSIZE, "Message too long")))
    with pytest.raises(OSError, match="too long"):
        sending(Transmit(b"", Address("192.0.2.1", 9)))


async def test_what_an_earlier_datagram_met_is_no_error_of_this_one() -> None:
    """A connected socket tells of ICMP so, which is anybody's word."""
    told: list[object] = []
    sending = lossy(
        lambda transmit: raise_(OSError(errno.ECONNREFUSED, "refused")), lambda *_: told.append(1)
    )
    sending(Transmit(b"", Address("192.0.2.1", 9)))
    assert not told


def raise_(error: Exception) -> None:
    raise error


async def test_an_error_response_is_an_error() -> None:
    """It says which."""
    async with endpoint() as own, endpoint() as server, asyncio.timeout(PATIENCE):
        binding = binding_on(own)

        def refuse(data: bytes, source: object) -> None:
            answer = parse(data).message.answer(MessageClass.ERROR, ErrorCode(500))
            server.write(answer.encode(), own.local)

        server.take = refuse
        with pytest.raises(ServerUnreachable, match="500"):
            await binding.ask(server.local)
        binding.close()


async def test_who_gave_up_does_not_take_the_answer_of_another() -> None:
    """One question is cancelled, the same one asked again is answered."""
    async with front() as running, endpoint() as own, asyncio.timeout(PATIENCE):
        binding = binding_on(own)
        impatient = asyncio.ensure_future(binding.ask(running.address))
        await asyncio.sleep(0)
        impatient.cancel()
        mapped = await binding.ask(running.address)
        assert isinstance(mapped, Mapped) and mapped.address == own.local
        assert impatient.cancelled()
        binding.close()


async def test_a_lost_answer_is_not_waited_for_where_the_next_one_came() -> None:
    """The first question is given up without an answer; the server answers from the second on."""
    async with endpoint() as own, endpoint() as server, asyncio.timeout(PATIENCE):
        binding = binding_on(own)
        seen: list[bytes] = []

        def answer(data: bytes, source: Address) -> None:
            request = parse(data).message
            seen.append(request.transaction_id)
            if request.transaction_id != seen[0]:
                reply = request.answer(MessageClass.SUCCESS, XorMappedAddress(source))
                server.write(reply.encode(), source)

        server.take = answer
        impatient = asyncio.ensure_future(binding.ask(server.local))
        await asyncio.wait({impatient}, timeout=0.1)
        impatient.cancel()
        assert (await binding.ask(server.local)).address == own.local
        binding.close()


async def test_closing_cancels_who_waits() -> None:
    """Nobody hangs on a question that will not be answered."""
    async with endpoint() as own, endpoint() as mute, asyncio.timeout(PATIENCE):
        binding = binding_on(own)
        waiting = asyncio.ensure_future(binding.ask(mute.local))
        await asyncio.sleep(0)
        binding.close()
        assert await asyncio.wait({waiting}) == ({waiting}, set())
        assert waiting.cancelled()
        with pytest.raises(UsageError):
            await binding.ask(mute.local)
