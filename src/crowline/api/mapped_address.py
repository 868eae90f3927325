"""Under which address a STUN server sees this machine, asked over UDP, TCP or TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from crowline.base.addresses import Address
from crowline.base.errors import CrowlineError, LocalProblem, ServerUnreachable
from crowline.base.transport import Transport
from crowline.net.binding import Binding
from crowline.net.interfaces import source_towards
from crowline.net.resolver import resolve
from crowline.net.stream import StreamSocket, StreamTarget
from crowline.net.udp import UdpSocket
from crowline.stun.client import Mapped
from crowline.stun.message import MalformedStun
from crowline.turn.framing import StreamFramer

__all__ = ["Mapped", "mapped_address"]

STUN_PORT = 3478  # RFC 8489 §8.1
STUNS_PORT = 5349  # the same over TLS
# Seconds after which the next address of a name is asked beside the first (RFC 8305 §5).
_ATTEMPT_DELAY = 0.25
# Bytes of an answer on a stream; real ones have about a hundred.
_MAX_ANSWER = 2048

T = TypeVar("T")


async def mapped_address(
    host: str,
    port: int | None = None,
    *,
    transport: Transport = Transport.UDP,
    ipv6: bool | None = None,
    timeout: float = 10.0,
) -> Mapped:
    """What the server at `host`, a name or an address, says of a new socket of ours.

    `port` is 3478 by default, 5349 over TLS; `ipv6` chooses a family, where the first to answer is taken
    otherwise; `timeout` is in seconds. A stream goes through the proxy of the environment, whose address is
    then what the server sees. Raises `ServerUnreachable` or `LocalProblem`.
    """
    port = port or (STUNS_PORT if transport is Transport.TLS else STUN_PORT)
    try:
        async with asyncio.timeout(timeout):
            if transport.is_stream and ipv6 is None:
                return await _by_stream(StreamTarget(host, port, transport))
            servers = await _addresses(host, port, ipv6)
            if not transport.is_stream:
                return await _first(_by_datagram, servers)
            targets = [StreamTarget(each.host, port, transport, name=host) for each in servers]
            return await _first(_by_stream, targets)
    except TimeoutError:
        raise ServerUnreachable(
            f"{host} port {port} did not answer over {transport.name} within {timeout:g} s.",
            hint="" if transport.is_stream else "UDP may be blocked here: ask over TCP or TLS.",
        ) from None


async def _addresses(host: str, port: int, ipv6: bool | None) -> list[Address]:
    found = await resolve([(host, port)], "")
    if not found:
        raise ServerUnreachable(f"{host} cannot be looked up: no such name, or no answer.")
    wanted = [each for each in found if ipv6 is None or each.is_ipv6 is ipv6]
    if not wanted:
        raise ServerUnreachable(f"{host} has no IPv{6 if ipv6 else 4} address.")
    return wanted


async def _by_datagram(server: Address) -> Mapped:
    """From a socket on the address by which packets to that server leave."""
    own = source_towards(server)
    if own is None:
        raise LocalProblem(f"This machine has no way to {server.host}.", hint="Is it offline?")

    def receive(data: memoryview, source: Address, size: int) -> None:
        for start in range(0, len(data), size):
            binding.receive(data[start : start + size], source, sock.local)

    sock = UdpSocket.bind(Address.parse(own, 0), receive)
    binding = Binding(sock.send)
    try:
        return await binding.ask(server, sock.local)
    finally:
        binding.close()
        sock.close()


async def _by_stream(target: StreamTarget) -> Mapped:
    """From a new connection, which ends after the answer (RFC 8489 §6.2.2)."""
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    framer = StreamFramer(_MAX_ANSWER)

    def end(reason: str) -> None:
        if not ended.done():
            ended.set_result(reason)

    def receive(data: bytes) -> None:
        framer.feed(data)
        try:
            while (message := framer.next_message()) is not None:
                binding.receive(message, stream.remote, stream.local)
        except MalformedStun:
            end("it does not speak STUN")

    stream = await StreamSocket.connect(target, receive, end)
    binding = Binding(lambda transmit: stream.send(transmit.data))
    question = asyncio.ensure_future(binding.ask(stream.remote, stream.local, transport=target.transport))
    try:
        either: set[asyncio.Future[Any]] = {question, ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if question.done():
            return question.result()
        raise ServerUnreachable(f"{target.host} port {target.port} gave no answer: {ended.result()}.")
    finally:
        question.cancel()
        binding.close()
        stream.close()


async def _first(ask: Callable[[T], Coroutine[Any, Any, Mapped]], targets: Sequence[T]) -> Mapped:
    """The first answer; each target is asked a moment after the one before. Raises what failed last."""

    async def ask_later(target: T, delay: float) -> Mapped:
        await asyncio.sleep(delay)
        return await ask(target)

    tasks = [
        asyncio.ensure_future(ask_later(target, number * _ATTEMPT_DELAY))
        for number, target in enumerate(targets)
    ]
    failure: CrowlineError = ServerUnreachable()
    try:
        for answer in asyncio.as_completed(tasks):
            try:
                return await answer
            except CrowlineError as error:
                failure = error
        raise failure
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
